"""From a frame's bytes to calls."""
