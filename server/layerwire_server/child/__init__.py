"""What gateway and worker processes have in common: their start, what they tell the supervisor, log and memory."""
