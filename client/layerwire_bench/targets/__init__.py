"""Where calls go, a protocol a file."""
