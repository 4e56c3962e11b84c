"""The process that starts the others: their life, its command line, and /metrics."""
