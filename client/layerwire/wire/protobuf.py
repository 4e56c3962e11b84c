"""The protobuf wire format, as far as messages are written and followed by hand: numbers, prefixes, fields.

It knows nothing of messages. https://protobuf.dev/programming-guides/encoding/

What is read here may be hostile: every length is bounded before it is used, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types
_SIZES = {FIXED64: 8, FIXED32: 4}


class MalformedError(Exception):
    """The bytes are no message, or have more fields than they may."""


class GroupError(MalformedError):
    """A group, or no wire type at all. Parsers may go on where they meet one; no message of ours has any."""


def varint(value: int) -> bytes:
    """A non-negative number in base 128, least significant group first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire_type: int = DELIMITED) -> int:
    """A field's number and wire type as the one number that stands before its value."""
    return number << 3 | wire_type


def prefix(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited field."""
    return varint(number << 3 | DELIMITED) + varint(length)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field: a text, bytes, or a message."""
    return prefix(number, len(content)) + content


def fields(payload: bytes | memoryview, at: int, end: int, most: int) -> Iterator[tuple[int, int, int]]:
    """The fields of the message that lies there: tag, and where the value begins and ends.

    Args:
        payload: the bytes.
        at: where the message begins.
        end: where it ends.
        most: how many fields it may have.

    Raises:
        MalformedError: a number or a value leaves the message, or there are more fields.
        GroupError: a field is none of numbers, bytes and messages.
    """
    while at < end:
        most -= 1
        mark, at = (payload[at], at + 1) if payload[at] < 0x80 else _number(payload, at, end)
        wire_type = mark & 7
        if wire_type == DELIMITED:
            size, at = _number(payload, at, end)
            after = at + size
        elif wire_type == VARINT:
            after = _number(payload, at, end)[1]
        elif wire_type in _SIZES:
            after = at + _SIZES[wire_type]
        else:
            raise GroupError
        if after > end or most < 0:
            raise MalformedError
        yield mark, at, after
        at = after


def _number(payload: bytes | memoryview, at: int, end: int) -> tuple[int, int]:
    """A number in base 128, and where it ends."""
    value = shift = 0
    while at < end and shift < 64:
        byte = payload[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise MalformedError
