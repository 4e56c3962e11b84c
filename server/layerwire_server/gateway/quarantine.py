"""Calls that two workers died of, remembered for a while, so that the same call sent again kills no more.

It knows calls by their fingerprints; nothing of workers. Each gateway learns for itself.

It helps against a program that tries again, not against an enemy, who changes a byte. While nothing is in quarantine
it costs nothing; else a call is hashed only if its length is right. Of a call whose data lie in memory that its client
shares, those are hashed, so that it is the same call as one that brings them along.
"""

from __future__ import annotations

import contextlib
import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from layerwire.wire.protobuf import MalformedError
from layerwire_server.gateway import fingerprint, spans
from layerwire_server.gateway.client_memory import SHARED_MARK, SharedSpans
from layerwire_server.gateway.spans import Envelope, Group, Span
from layerwire_server.link import Family

_SECONDS = 600.0  # then it may be tried again: the weights that it names may be others now
_MOST_CALLS = 256
# What a call by itself has beside what its fingerprint is of: 9 bytes for the id, 6 for a tag and a length, 26 for
# options; and for each tensor tag and length of its data, and longer lengths of what that is in.
_MOST_ENVELOPE_BYTES, _MOST_TENSOR_BYTES = 64, 24
_MOST_SHARED_BYTES = 65536  # of a SharedData: two thousand ranges


class _DeadlyCall(NamedTuple):
    """A call that killed.

    Attributes:
        until: how long that counts.
        size: the bytes that its fingerprint is of, and its tensors.
        most_bytes: the most that it may have by itself.
    """

    until: float
    size: tuple[int, int]
    most_bytes: int


class Quarantine:
    """The calls that killed."""

    def __init__(self) -> None:
        self._calls: OrderedDict[bytes, _DeadlyCall] = OrderedDict()  # by fingerprint; oldest first
        self._sizes: frozenset[tuple[int, int]] = frozenset()
        self._most_bytes = 0  # that a fingerprint of them is of
        self._least_bytes = math.inf
        # Bytes that one of them may have by itself, as ranges that don't meet: where each begins, and where it ends.
        self._range_starts: list[int] = []
        self._range_ends: list[int] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._calls)

    def learn(self, payload: bytes | memoryview, family: Family, ordinal: int, now: float) -> None:
        """Remembers a call of a message; one that can't be made out is not remembered.

        Args:
            payload: the message.
            family: what it is; NONE for a StreamRequest.
            ordinal: which of its calls.
            now: the time, in seconds.
        """
        with contextlib.suppress(MalformedError, IndexError):
            number, template, data = _call(payload, family, ordinal)
            digest = fingerprint.digest(number, template, data)
            nbytes = len(template) + sum(map(len, data))
            most_bytes = nbytes + _MOST_ENVELOPE_BYTES + _MOST_TENSOR_BYTES * len(data)
            self._calls[digest] = _DeadlyCall(now + _SECONDS, (nbytes, len(data)), most_bytes)
            self._calls.move_to_end(digest)
            if len(self._calls) > _MOST_CALLS:
                self._calls.popitem(last=False)
            self._measure()

    def guilty(self, payload: bytes | memoryview, family: Family, now: float) -> set[int]:
        """The ordinals of a message's calls that are in quarantine."""
        self._forget(now)
        ordinals: set[int] = set()
        if len(payload) < self._least_bytes and (isinstance(payload, memoryview) or SHARED_MARK not in payload):
            return ordinals
        with contextlib.suppress(MalformedError):
            if family is not Family.NONE:
                return {0} if self._knows(payload, _unary(payload, family)) else ordinals
            places = spans.contents(payload)
            for ordinal, span in enumerate(places.calls):
                if self._may_be(span[1] - span[0]):
                    with contextlib.suppress(MalformedError):
                        if self._knows(payload, spans.envelope(payload, span)):
                            ordinals.add(ordinal)
            for first, group in places.groups_from():
                with contextlib.suppress(MalformedError):
                    ordinals.update(first + index for index in self._guilty_rows(payload, group))
        return ordinals

    def _guilty_rows(self, payload: bytes | memoryview, group: Group) -> list[int]:
        """Which of a group's calls are in quarantine."""
        count = group.call_count
        if not count:
            return []
        shared = None if group.shared is None else _shared_spans(payload, group.shared)
        data = group.data if shared is None else shared.data
        size = _length(spans.rows(data, count, 0))
        if size > self._most_bytes:
            return []
        call = spans.envelope(payload, group.template)
        template = fingerprint.request(payload, call).template
        if (len(template) + size, len(data)) not in self._sizes:
            return []
        rows = (_views(payload, shared, spans.rows(data, count, index)) for index in range(count))
        digests = (fingerprint.digest(call.number, template, row) for row in rows)
        return [index for index, digest in enumerate(digests) if digest in self._calls]

    def _knows(self, payload: bytes | memoryview, call: Envelope) -> bool:
        start, end = call.request
        if not self._may_be(end - start):
            return False
        template, data = fingerprint.request(payload, call)
        if (len(template) + _length(data), len(data)) not in self._sizes:
            return False
        return fingerprint.digest(call.number, template, _views(payload, None, data)) in self._calls

    def _may_be(self, nbytes: int) -> bool:
        """Whether a call that has so many bytes may be in quarantine."""
        index = bisect_right(self._range_starts, nbytes)
        return index > 0 and nbytes <= self._range_ends[index - 1]

    def _forget(self, now: float) -> None:
        while self._calls:
            digest, entry = next(iter(self._calls.items()))
            if now < entry.until:
                break
            del self._calls[digest]
            self._measure()

    def _measure(self) -> None:
        self._sizes = frozenset(entry.size for entry in self._calls.values())
        self._least_bytes = min((nbytes for nbytes, _ in self._sizes), default=math.inf)
        self._most_bytes = max((nbytes for nbytes, _ in self._sizes), default=0)
        self._range_starts, self._range_ends = [], []
        for start, end in sorted((entry.size[0], entry.most_bytes) for entry in self._calls.values()):
            if self._range_ends and start <= self._range_ends[-1]:
                self._range_ends[-1] = max(end, self._range_ends[-1])
            else:
                self._range_starts.append(start)
                self._range_ends.append(end)


def _call(payload: bytes | memoryview, family: Family, ordinal: int) -> tuple[int, bytes, list[memoryview]]:
    """A call of a message: which field of Call its request is, its template, and its data."""
    places = None if family is not Family.NONE else spans.contents(payload)
    if places is None or ordinal < len(places.calls):
        call = _unary(payload, family) if places is None else spans.envelope(payload, places.calls[ordinal])
        template, data = fingerprint.request(payload, call)
        return call.number, template, _views(payload, None, data)
    for first, group in places.groups_from():
        if ordinal < first + group.call_count:
            call = spans.envelope(payload, group.template)
            shared = None if group.shared is None else _shared_spans(payload, group.shared)
            data = spans.rows(group.data if shared is None else shared.data, group.call_count, ordinal - first)
            return call.number, fingerprint.request(payload, call).template, _views(payload, shared, data)
    raise IndexError


def _unary(payload: bytes | memoryview, family: Family) -> Envelope:
    number = spans.UNARY_NUMBERS.get(family)
    if number is None:  # the other methods run no operator
        raise MalformedError
    return Envelope(0, number, (0, len(payload)))


def _length(data: Iterable[Span]) -> int:
    return sum(end - start for start, end in data)


def _shared_spans(payload: bytes | memoryview, span: Span) -> SharedSpans:
    start, end = span
    if end - start > _MOST_SHARED_BYTES:
        raise MalformedError
    return SharedSpans(bytes(payload[start:end]))


def _views(payload: bytes | memoryview, shared: SharedSpans | None, data: Iterable[Span]) -> list[memoryview]:
    """The data, which lie in the message or in shared memory."""
    if shared is not None:
        memory = shared.memory()
        return [memory.view(start, end - start) for start, end in data]
    view = memoryview(payload)
    return [view[start:end] for start, end in data]
