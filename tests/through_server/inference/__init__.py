"""The Open Inference Protocol, against a real server."""
