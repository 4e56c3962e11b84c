"""The kinds of request: what each brings, and how it is answered."""
