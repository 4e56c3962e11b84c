"""Triton's own client against a server, in processes of its own: its messages have the names of the server's."""
