"""A call's fingerprint: a digest of its request without options, the same by itself, as a unary RPC and in a group.

It knows where tensors' data are in each request; nothing of operators, and nothing of why calls are compared.

A request is taken apart into what a group's template has of it, spelled in one way, and the data of each of its tensors
in the order in which a group has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

from layerwire.v1 import layerwire_pb2, tensor_pb2
from layerwire.wire.protobuf import MalformedError, field, fields, tag
from layerwire_server.gateway import spans
from layerwire_server.gateway.spans import Envelope, Span

# Tag -> what is there: the layout of a message that has tensors, or one of the words below. What isn't in it stays as
# it is.
Layout: TypeAlias = "dict[int, Layout | str]"

_OPTIONS, _TENSOR, _TENSORS = "options", "a tensor", "a map's entry with a tensor"
_MOST_FIELDS = 1200  # of a request: Differentiate may want 1024 gradients by 64 others
_MOST_TENSOR_FIELDS = 64
_DATA = tag(tensor_pb2.Tensor.DATA_FIELD_NUMBER)
_NAME = tag(tensor_pb2.Tensor.NAME_FIELD_NUMBER)
_KEY, _VALUE = tag(1), tag(2)  # of any map's entries


def _layout(descriptor: Any) -> Layout:
    layout: Layout = {}
    for each in descriptor.fields:
        message = each.message_type
        if message is None:
            continue
        if each.name == "options":
            layout[tag(each.number)] = _OPTIONS
        elif message is tensor_pb2.Tensor.DESCRIPTOR:
            layout[tag(each.number)] = _TENSOR
        elif message.GetOptions().map_entry:
            layout[tag(each.number)] = _TENSORS
        elif each.containing_oneof is not None and each.containing_oneof.name == "request":
            layout[tag(each.number)] = _layout(message)
    return layout


_LAYOUTS = _layout(layerwire_pb2.Call.DESCRIPTOR)


class RequestParts(NamedTuple):
    """A request taken apart.

    Attributes:
        template: its bytes without options and data, fields and map entries in order, lengths as short as can be.
        data: where the data of each tensor without a name lie.
    """

    template: bytes
    data: list[Span]


def request(payload: bytes | memoryview, call: Envelope) -> RequestParts:
    """The request that stands there, taken apart.

    Raises:
        MalformedError: it can't be followed.
    """
    layout = _LAYOUTS.get(tag(call.number))
    if isinstance(layout, dict):
        return _message(payload, call.request, layout)
    pieces, (start, end) = [], call.request  # of the inference protocol: it comes in no group
    for (before, after), _ in spans.options(payload, call.number, call.request):
        pieces.append(payload[start:before])
        start = after
    return RequestParts(b"".join([*pieces, payload[start:end]]), [])


def digest(number: int, template: bytes, data: Iterable[memoryview]) -> bytes:
    """The fingerprint of a call.

    Args:
        number: which field of Call its request is.
        template: of its request.
        data: of its tensors.
    """
    # sha256 is twice as fast as blake2b where processors have instructions for it.
    fingerprint = hashlib.sha256(b"%d %d " % (number, len(template)))
    fingerprint.update(template)
    for piece in data:
        fingerprint.update(b"%d " % len(piece))
        fingerprint.update(piece)
    return fingerprint.digest()


def _message(payload: bytes | memoryview, span: Span, layout: Layout) -> RequestParts:
    parts: list[tuple[int, bytes, bytes, list[Span]]] = []  # tag, key, bytes and data of each field
    before = span[0]
    for mark, start, end in fields(payload, *span, _MOST_FIELDS):
        what, whole, before = layout.get(mark), (before, end), end
        if what == _OPTIONS:
            continue
        if what is None:
            parts.append((mark, b"", bytes(payload[whole[0] : whole[1]]), []))
            continue
        key, inner = b"", RequestParts(b"", [])
        if isinstance(what, dict):
            inner = _message(payload, (start, end), what)
        elif what == _TENSOR:
            inner = _tensor(payload, (start, end))
        elif what == _TENSORS:
            key, inner = _entry(payload, (start, end))
        parts.append((mark, key, field(mark >> 3, inner.template), inner.data))
    parts.sort(key=lambda part: (part[0] >> 3, part[1]))
    return RequestParts(b"".join(part[2] for part in parts), [span for part in parts for span in part[3]])


def _entry(payload: bytes | memoryview, span: Span) -> tuple[bytes, RequestParts]:
    """An entry of a map: its key, and itself taken apart."""
    key, tensor = b"", RequestParts(b"", [(span[0], span[0])])
    for mark, start, end in fields(payload, *span, _MOST_TENSOR_FIELDS):
        if mark == _KEY:
            key = bytes(payload[start:end])
        elif mark == _VALUE:
            tensor = _tensor(payload, (start, end))
        else:
            raise MalformedError
    return key, RequestParts(field(_KEY >> 3, key) + field(_VALUE >> 3, tensor.template), tensor.data)


def _tensor(payload: bytes | memoryview, span: Span) -> RequestParts:
    """A tensor; one without data and name has no bytes of data."""
    pieces: list[bytes] = []
    data: list[Span] = []
    before, has_name = span[0], False
    for mark, start, end in fields(payload, *span, _MOST_TENSOR_FIELDS):
        if mark == _DATA:
            data.append((start, end))
        else:
            pieces.append(bytes(payload[before:end]))
            has_name = has_name or mark == _NAME
        before = end
    if not data and not has_name:
        data.append((span[0], span[0]))
    return RequestParts(b"".join(pieces), data)
