"""Cuts a message into its requests unparsed, and knows those again that differ from an earlier one in id and data only.

It knows kinds of request and the wire format; nothing of plans or lanes.

Requests whose bytes outside ids and tensors' data are the same, at the same places, mean the same: all tags and lengths
are among those bytes. So one is parsed and walked through, and those after it are compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from layerwire.v1 import layerwire_pb2, tensor_pb2
from layerwire.wire import protobuf
from layerwire_server.link import Family
from layerwire_server.worker.call import data_slice
from layerwire_server.worker.request_kinds.kind import MOST_KEY_BYTES, NativeKind

_LENGTHS = 1024  # of requests that are looked for
_ALTERNATIVES = 4  # of one length
_MOST_FIELDS = 4096
_CALL: Any = layerwire_pb2.Call.DESCRIPTOR
_TENSOR: Any = tensor_pb2.Tensor.DESCRIPTOR
_DATA_TAG = protobuf.tag(_TENSOR.fields_by_name["data"].number)

# What a request came by, None of a frame that is one group, and its length.
Size: TypeAlias = tuple[Family | None, int]
# Where something stands: numbers of fields, and keys of maps.
Place: TypeAlias = tuple[int | bytes, ...]

_CALLS_TAG, _CALL_TAG, _GROUP_TAG, _TEMPLATE_TAG, _IDS_TAG, _PIECE_TAG = (
    protobuf.tag(message.DESCRIPTOR.fields_by_name[name].number)
    for message, name in (
        (layerwire_pb2.StreamRequest, "calls"),
        (layerwire_pb2.Calls, "calls"),
        (layerwire_pb2.Calls, "groups"),
        (layerwire_pb2.CallGroup, "template"),
        (layerwire_pb2.CallGroup, "ids"),
        (layerwire_pb2.CallGroup, "data"),
    )
)  # all below 128: a byte each
Spans: TypeAlias = list[tuple[int, int]]


def calls_and_groups(payload: bytes | memoryview) -> tuple[Spans, Spans] | None:
    """Where the calls and then the groups of a StreamRequest are; None if that isn't all there is, plainly laid out."""
    calls: Spans = []
    groups: Spans = []
    try:
        size, at = _length(payload, 1)
        end = at + size
        if payload[0] != _CALLS_TAG or end != len(payload):
            return None
        while at < end:
            tag = payload[at]
            size, start = _length(payload, at + 1)
            at = start + size
            if tag == _GROUP_TAG:
                groups.append((start, at))
            elif tag == _CALL_TAG and not groups:
                calls.append((start, at))
            else:
                return None
    except IndexError:
        return None
    return (calls, groups) if at == end else None


def group_pieces(
    payload: bytes | memoryview, at: int, end: int
) -> tuple[bytes, bytes, list[bytes | memoryview]] | None:
    """Template, ids and data of the CallGroup that lies there; None if it has others, or in another order."""
    spans = _piece_spans(payload, at, end)
    if spans is None:
        return None
    template, ids, *data = [data_slice(payload, start, stop) for start, stop in spans]
    return bytes(template), bytes(ids), data


def _piece_spans(payload: bytes | memoryview, at: int, end: int) -> Spans | None:
    """Where the same are."""
    spans: Spans = []
    tag = _TEMPLATE_TAG
    while at < end:
        if payload[at] != tag:
            return None
        try:
            size, start = _length(payload, at + 1)
        except IndexError:
            return None
        at = start + size
        if at > end:
            return None
        spans.append((start, at))
        tag = _IDS_TAG if len(spans) == 1 else _PIECE_TAG
    return spans if len(spans) > 1 else None


def _length(payload: bytes | memoryview, at: int) -> tuple[int, int]:
    """A length, and where it ends; parsers take none of 2 GiB or more, and raise IndexError here."""
    value = payload[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for shift in (7, 14, 21, 28):
        at += 1
        byte = payload[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value < 1 << 31:
                return value, at + 1
            break
    raise IndexError


class Layout(NamedTuple):
    """Where in a request's bytes its tensors' data are.

    Attributes:
        template: a group's template for the same.
        literals: what else there is, with where it begins and ends.
        data: where each tensor's data begin and end, in the order of a group's data.
        ids: where a group's ids do.
    """

    template: bytes
    literals: tuple[tuple[int, int, bytes], ...]
    data: tuple[tuple[int, int], ...]
    ids: tuple[int, int] = (0, 0)


class Layouts:
    """The layouts that came of late."""

    def __init__(self) -> None:
        self._layouts: dict[Size, list[Layout]] = {}
        self._candidates: dict[Size, object] = {}  # the last plan of each length, or template

    def find(self, family: Family | None, payload: bytes | memoryview, at: int, end: int) -> Layout | None:
        """The layout of the request, or the frame, that lies there, if it is known."""
        layouts = self._layouts.get((family, end - at))
        if layouts is not None:
            for layout in layouts:
                for start, stop, literal in layout.literals:
                    if payload[at + start : at + stop] != literal:
                        break
                else:
                    return layout
        return None

    def learn(self, kind: NativeKind, message: Any, family: Family, content: bytes | memoryview, plan: object) -> None:
        """Remembers a request's layout, the second time that one of its length and plan comes.

        Args:
            kind: the request's kind.
            message: the request, parsed; it is not changed.
            family: what it came by.
            content: its bytes; in a stream those of its Call behind the id.
            plan: the request's, one object for all that are alike.
        """
        size = family, len(content)
        if self._is_second(size, plan):
            self._remember(size, _layout(kind, message, bytes(content), in_call=family is Family.NONE))

    def learn_frame(self, payload: bytes | memoryview, at: int, end: int) -> None:
        """Remembers the layout of a frame that is one group, which lies there, the second time that it comes."""
        template, ids, *data = _piece_spans(payload, at, end) or ((0, 0), (0, 0))
        size, content = (None, len(payload)), bytes(payload[slice(*template)])
        if content and self._is_second(size, content):
            literals = _literals(payload, [ids, *data])
            self._remember(size, None if literals is None else Layout(content, literals, tuple(data), ids))

    def _is_second(self, size: Size, candidate: object) -> bool:
        """Whether the same came as the last of its size; forgets it then."""
        if self._candidates.get(size) == candidate:
            del self._candidates[size]
            return True
        if len(self._candidates) >= _LENGTHS:
            self._candidates.clear()
        self._candidates[size] = candidate
        return False

    def _remember(self, size: Size, layout: Layout | None) -> None:
        if layout is None:
            return
        if len(self._layouts) >= _LENGTHS:
            self._layouts.clear()
        layouts = self._layouts.setdefault(size, [])
        layouts.insert(0, layout)
        del layouts[_ALTERNATIVES:]


def _layout(kind: NativeKind, message: Any, content: bytes, *, in_call: bool) -> Layout | None:
    """None of a request that isn't laid out plainly: a field twice, or one that no request has."""
    descriptor = _CALL if in_call else kind.request_type.DESCRIPTOR
    spans: dict[Place, tuple[int, int]] = {}
    try:
        _walk(content, 0, len(content), descriptor, (), spans)
    except (protobuf.MalformedError, IndexError):
        return None
    data = tuple(spans[place] for place in sorted(spans))
    tensors = [tensor for tensor in kind.tensors(message) if tensor.WhichOneof("content") == "data"]
    if [content[start:stop] for start, stop in data] != [tensor.data for tensor in tensors]:
        return None
    if any(tensor.WhichOneof("content") is None for tensor in kind.tensors(message)):
        return None
    literals = _literals(content, data)
    return None if literals is None else Layout(_template(kind, message), literals, data)


def _literals(
    content: bytes | memoryview, gaps: Sequence[tuple[int, int]]
) -> tuple[tuple[int, int, bytes], ...] | None:
    """What there is besides the gaps; None if that is too much to keep."""
    edges = [0, *(edge for gap in sorted(gaps) for edge in gap), len(content)]
    spans = [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]
    if sum(stop - start for start, stop in spans) > MOST_KEY_BYTES:
        return None
    return tuple((start, stop, bytes(content[start:stop])) for start, stop in spans)


def _template(kind: NativeKind, message: Any) -> bytes:
    call = layerwire_pb2.Call()
    request = getattr(call, kind.family)
    request.CopyFrom(message)
    for tensor in kind.tensors(request):
        if tensor.WhichOneof("content") == "data":
            tensor.ClearField("data")
    return call.SerializeToString(deterministic=True)


def _walk(
    content: bytes, at: int, end: int, descriptor: Any, place: Place, spans: dict[Place, tuple[int, int]]
) -> None:
    """Notes where tensors' data are.

    Raises:
        MalformedError: a field that leads to data comes twice, or one isn't known.
    """
    occurrences: set[object] = set()
    for tag, start, after in protobuf.fields(content, at, end, _MOST_FIELDS):
        field = descriptor.fields_by_number.get(tag >> 3)
        if field is None or (descriptor is _CALL and occurrences):
            raise protobuf.MalformedError
        if descriptor is _TENSOR and tag == _DATA_TAG:
            if tag in occurrences:
                raise protobuf.MalformedError
            spans[place] = start, after
        elif tag & 7 == protobuf.DELIMITED and _leads_to_data(field):
            inner, below, span = field.message_type, (*place, field.number), (start, after)
            if inner.GetOptions().map_entry:
                inner, below, span = _TENSOR, *_entry(content, *span, below)
            if below in occurrences:
                raise protobuf.MalformedError
            occurrences.add(below)
            _walk(content, *span, inner, below, spans)
        occurrences.add(tag)


def _entry(content: bytes, start: int, after: int, place: Place) -> tuple[Place, tuple[int, int]]:
    """The place of a map's tensor, and where it begins and ends.

    Raises:
        MalformedError: the entry isn't a key and a tensor.
    """
    fields = list(protobuf.fields(content, start, after, 2))
    if [tag for tag, _, _ in fields] != [protobuf.tag(1), protobuf.tag(2)]:
        raise protobuf.MalformedError
    (_, key_start, key_end), (_, tensor_start, tensor_end) = fields
    return (*place, content[key_start:key_end]), (tensor_start, tensor_end)


def _leads_to_data(field: Any) -> bool:
    """Whether a field is a tensor of a call, a map of them, or a request that has some."""
    message = field.message_type
    if message is None:
        return False
    if message.GetOptions().map_entry:
        return message.fields_by_name["value"].message_type is _TENSOR
    return message is _TENSOR or message.name.endswith("Request")
