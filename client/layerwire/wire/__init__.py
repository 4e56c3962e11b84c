"""What is on the wire: dtypes, protobuf by hand, framing, safetensors; arrays above them."""
