"""Triton's load tester against a server, where it is there."""
