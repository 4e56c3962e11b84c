"""What torch's exported calls become, a family of operators a file."""
