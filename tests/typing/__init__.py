"""What type checkers know of the SDK."""
