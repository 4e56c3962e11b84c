"""Which kernel runs what: by trial on what callers send, and written down in the store."""
