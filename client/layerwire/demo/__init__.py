"""The demo on real data: a photograph and a small CNN through a server, every layer of both run remotely."""
