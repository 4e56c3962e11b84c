"""The fake server that arrays go to and come back from."""

from __future__ import annotations

from tests.transport.conftest import serve, takes_groups

__all__ = ["serve", "takes_groups"]
