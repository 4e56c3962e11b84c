"""Programs: what they compute, by an interpreter of their own."""
