"""The Open Inference Protocol at the gateway."""
