"""Where calls wait, and which run next."""
