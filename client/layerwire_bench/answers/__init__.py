"""What should come back, by torch, and how what came differs from it."""
