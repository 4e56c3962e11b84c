"""The messages of a stream: large ones in parts, and replies that come together in one.

It knows StreamRequest and StreamResponse as far as they are parts or follow each other; no stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from layerwire.errors import InvalidArgumentError
from layerwire.wire.message_parts import LARGE_BYTES, PART_BYTES, Assembly, parts
from layerwire.wire.protobuf import MalformedError
from layerwire_server.gateway.router import FrameLink

_MESSAGE_BYTES = LARGE_BYTES  # answers are put together up to here


class LargeRequest:
    """A stream's message that comes in parts.

    Attributes:
        is_open: whether more parts of a message are to come.

    Args:
        check: called with the bytes of a message that is about to come; raises if it is too large.
        room: called with them next: memory for it, and the link by which it goes from there uncopied, if there is one.
    """

    def __init__(
        self, check: Callable[[int], None], room: Callable[[int], tuple[memoryview, FrameLink | None]]
    ) -> None:
        self._check = check
        self._make_room = room
        self._assembly = Assembly(self._room)
        self._link: FrameLink | None = None
        self.is_open = False

    def add(self, part: bytes) -> tuple[memoryview | None, FrameLink | None]:
        """The message, if this was its last part, and its link.

        Raises:
            InvalidArgumentError: it isn't the next part.
            ResourceExhaustedError: it is the first of a message that is too large.
        """
        try:
            message = self._assembly.add(part)
        except MalformedError:
            raise InvalidArgumentError("stream: part must be the next of its message", field="part") from None
        self.is_open = self._assembly.is_open
        return message, self._link

    def _room(self, nbytes: int) -> memoryview:
        self._check(nbytes)
        room, self._link = self._make_room(nbytes)
        return room


def together(replies: list[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The replies in order, joined to messages: StreamResponses that follow each other are a StreamResponse."""
    start, nbytes = 0, 0
    for index, reply in enumerate(replies):
        if nbytes and nbytes + len(reply) > _MESSAGE_BYTES:
            yield _message(replies[start:index])
            start, nbytes = index, 0
        nbytes += len(reply)
    yield _message(replies[start:])


def in_parts(message: bytes | memoryview, hold: Callable[[int], None]) -> Iterator[bytes]:
    """The messages that a large one goes in; `hold` is called with what each has beside the bytes of that one."""
    left_bytes = len(message)
    for part in parts([message], left_bytes):
        nbytes = min(left_bytes, PART_BYTES)
        left_bytes -= nbytes
        hold(len(part) - nbytes)
        yield part


def _message(replies: list[bytes | memoryview]) -> bytes | memoryview:
    return replies[0] if len(replies) == 1 else b"".join(replies)
