"""From results to a frame's answers."""
