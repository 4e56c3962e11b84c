"""What gateway and worker processes have in common: their start, their messages to the supervisor, log and memory."""
