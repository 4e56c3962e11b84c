"""What is on the wire: dtypes, protobuf by hand, framing, safetensors, health; arrays above them."""
