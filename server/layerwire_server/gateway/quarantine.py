"""Calls that two workers died of, remembered for a while, so that the same call sent again kills no more.

It knows calls by the digest of their bytes, without id and options; nothing of workers. Each gateway learns for itself.

It helps against a program that tries again, not against an enemy, who changes a byte. While nothing is in quarantine
it costs nothing; else a call is hashed only if its length is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import OrderedDict

from layerwire.wire.protobuf import MalformedError
from layerwire_server.gateway import spans
from layerwire_server.gateway.spans import Envelope
from layerwire_server.link import Family

_SECONDS = 600.0  # then it may be tried again: the weights that it names may be others now
_MOST_CALLS = 256
_MOST_ENVELOPE_BYTES = 64  # of a call beside its request without options: 9 for the id, 6 for a tag and a length, 26


class Quarantine:
    """The calls that killed."""

    def __init__(self) -> None:
        self._calls: OrderedDict[bytes, tuple[float, int]] = OrderedDict()  # digest -> until when, bytes; oldest first
        self._sizes: frozenset[int] = frozenset()  # bytes of them
        self._lengths: frozenset[int] = frozenset()  # bytes that one of them has with id and options

    def __len__(self) -> int:
        """How many there are."""
        return len(self._calls)

    def learn(self, payload: bytes, family: Family, ordinal: int, now: float) -> None:
        """Remembers a call of a message; one that can't be made out is not remembered.

        Args:
            payload: the message.
            family: what it is; NONE for a StreamRequest.
            ordinal: which of its calls.
            now: the time, in seconds.
        """
        with contextlib.suppress(MalformedError, IndexError):
            if family is Family.NONE:
                call = spans.envelope(payload, spans.call_spans(payload)[ordinal])
            else:
                call = _unary(payload, family)
            pieces = _pieces(payload, call)
            digest = _digest(call.number, pieces)
            self._calls[digest] = now + _SECONDS, sum(map(len, pieces))
            self._calls.move_to_end(digest)
            if len(self._calls) > _MOST_CALLS:
                self._calls.popitem(last=False)
            self._measure()

    def guilty(self, payload: bytes, family: Family, now: float) -> set[int]:
        """The ordinals of a message's calls that are in quarantine."""
        self._forget(now)
        ordinals: set[int] = set()
        if len(payload) < min(self._sizes, default=math.inf):
            return ordinals
        with contextlib.suppress(MalformedError):
            if family is not Family.NONE:
                return {0} if self._knows(payload, _unary(payload, family)) else ordinals
            for ordinal, span in enumerate(spans.call_spans(payload)):
                if span[1] - span[0] in self._lengths and self._knows(payload, spans.envelope(payload, span)):
                    ordinals.add(ordinal)
        return ordinals

    def _knows(self, payload: bytes, call: Envelope) -> bool:
        start, end = call.request
        if end - start not in self._lengths:
            return False
        pieces = _pieces(payload, call)
        return sum(map(len, pieces)) in self._sizes and _digest(call.number, pieces) in self._calls

    def _forget(self, now: float) -> None:
        while self._calls:
            digest, (until, _) = next(iter(self._calls.items()))
            if now < until:
                break
            del self._calls[digest]
            self._measure()

    def _measure(self) -> None:
        self._sizes = frozenset(nbytes for _, nbytes in self._calls.values())
        self._lengths = frozenset(nbytes + more for nbytes in self._sizes for more in range(_MOST_ENVELOPE_BYTES))


def _unary(payload: bytes, family: Family) -> Envelope:
    number = spans.UNARY_NUMBERS.get(family)
    if number is None:  # the other methods run no operator
        raise MalformedError
    return Envelope(0, number, (0, len(payload)))


def _pieces(payload: bytes, call: Envelope) -> list[memoryview]:
    """The bytes of a request without its options."""
    view = memoryview(payload)
    pieces, (start, end) = [], call.request
    for (before, after), _ in spans.options(payload, call.number, call.request):
        pieces.append(view[start:before])
        start = after
    return [*pieces, view[start:end]]


def _digest(number: int, pieces: list[memoryview]) -> bytes:
    digest = hashlib.sha256(bytes([number]))  # twice as fast as blake2b where processors have instructions for it
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
