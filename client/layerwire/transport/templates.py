"""Templates of calls: a call's message spelled out but for its id and data, once for all calls that are alike.

It knows the contract's messages; neither arrays nor channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf import message_factory

from layerwire.v1 import layerwire_pb2 as messages
from layerwire.wire import arrays, framing
from layerwire.wire.dtypes import TensorSpec
from layerwire.wire.framing import Entry, Keyed
from layerwire.wire.protobuf import prefix


class Signature(NamedTuple):
    """What stays when a call is repeated with other data.

    Attributes:
        family: field of Call.
        head: the operator; of run and differentiate the request without its tensors and options.
        tensors: where each stands, by field or key, and its spec or name.
        of: of differentiate: family and head of the call it is of, and how many of the tensors are that call's.
    """

    family: str
    head: bytes
    tensors: tuple[tuple[str, arrays.Spec | str], ...]
    of: tuple[str, bytes, int] | None = None


_FIELDS: Mapping[str, Any] = messages.Call.DESCRIPTOR.fields_by_name
REQUESTS: dict[str, Any] = {
    name: message_factory.GetMessageClass(field.message_type)
    for name, field in _FIELDS.items()
    if field.message_type is not None
}
# Families that take tensors by key, and the map; and those that answer with a map.
_KEYED = {"run": "inputs", "differentiate": "output_gradients"}
MAPS = {"run": "outputs", "differentiate": "gradients"}


@lru_cache(maxsize=4096)
def template(signature: Signature, options: bytes) -> Entry:
    """The template; `options` is the serialized options field."""
    family, head, tensors, of = signature
    number = _FIELDS[family].number
    if of is None:
        return framing.entry(number, _head(family, head, options), _placed(family, tensors))
    inner_family, inner_head, count = of
    placed = _placed(inner_family, tensors[:count])
    inner, inner_length = framing.literals(_head(inner_family, inner_head, options), placed)
    outer, outer_length = framing.literals(b"", _placed(family, tensors[count:]), head)
    opened = prefix(REQUESTS[family].DESCRIPTOR.fields_by_name[inner_family].number, inner_length)
    joined = (opened + inner[0], *inner[1:-1], inner[-1] + outer[0], *outer[1:])
    if len(inner) == 1:  # the call has no data of its own
        joined = (opened + inner[0] + outer[0], *outer[1:])
    return framing.entry_of(number, joined, len(opened) + inner_length + outer_length)


def _head(family: str, head: bytes, options: bytes) -> bytes:
    """What comes before the tensors: options, and operator or what stands in its place."""
    if family in _KEYED:
        return options + head
    return options + prefix(REQUESTS[family].DESCRIPTOR.fields_by_name["operator"].number, len(head)) + head


def _placed(family: str, tensors: tuple[tuple[str, arrays.Spec | str], ...]) -> framing.Tensors:
    fields = REQUESTS[family].DESCRIPTOR.fields_by_name
    keyed = _KEYED.get(family)
    number = 0 if keyed is None else fields[keyed].number
    return [
        (
            fields[name].number if keyed is None else Keyed(number, name),
            content if isinstance(content, str) else TensorSpec(*content),
        )
        for name, content in tensors
    ]
