"""Counters of messages' bytes, which tell too how often gRPC copies those of large ones.

It knows how grpcio handles messages; nothing of what they are.
"""

from __future__ import annotations

from typing import Protocol

from layerwire_server.link import LARGE_BYTES
from layerwire_server.metrics import Metrics

# Read in grpcio's ReceiveMessageOperation and SendMessageOperation: slices -> bytes objects -> one, and bytes -> slice.
RECEIVE_COPIES, SEND_COPIES = 2, 1


class _Counter(Protocol):
    def add(self, amount: float = 1.0) -> None:
        """Counts so much more."""


class MessageCounter:
    """Bytes of messages of a method, one way.

    Args:
        nbytes: counts them.
        copies: counts the bytes that are copied.
        copy_count: how often each is.
    """

    __slots__ = ("_copies", "_copy_count", "_nbytes")

    def __init__(self, nbytes: _Counter, copies: _Counter, copy_count: int) -> None:
        self._nbytes = nbytes
        self._copies = copies
        self._copy_count = copy_count

    def add(self, nbytes: int) -> None:
        """Counts a message of so many bytes; copies of small ones don't count, as on links."""
        self._nbytes.add(nbytes)
        if nbytes >= LARGE_BYTES:
            self._copies.add(self._copy_count * nbytes)


def message_counters(metrics: Metrics, method: str) -> tuple[MessageCounter, MessageCounter]:
    """Those of what a method receives, and of what it sends."""
    return (
        MessageCounter(
            metrics.counter("layerwire_received_bytes_total", method=method),
            metrics.counter("layerwire_copied_bytes_total", place="from_grpc"),
            RECEIVE_COPIES,
        ),
        MessageCounter(
            metrics.counter("layerwire_sent_bytes_total", method=method),
            metrics.counter("layerwire_copied_bytes_total", place="to_grpc"),
            SEND_COPIES,
        ),
    )
