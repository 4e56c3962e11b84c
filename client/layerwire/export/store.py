"""What deploying needs of a server.

It knows the store's messages and files; neither channels nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from layerwire.store.uploads import Progress, Uploaded
from layerwire.v1 import store_pb2
from layerwire.wire.safetensors import SafetensorsFile


class Store(Protocol):
    """What deploying asks of a client; errors are layerwire.errors'."""

    def upload(self, file: SafetensorsFile, progress: Progress | None, /) -> Uploaded:
        """Sends what the server hasn't got of a file."""

    def put_program(self, request: store_pb2.PutProgramRequest, /) -> store_pb2.PutProgramResponse:
        """Checks a program and keeps it."""

    def run(self, name: str, version: int | None, inputs: Mapping[str, Any], /) -> Mapping[str, Any]:
        """Runs a stored program; arrays come back as what the inputs are, numpy's or torch's."""
