"""Groups of calls and answers as the contract's comments have them, taken apart and put together by protobuf alone."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import tensor_pb2


def ids_of(group: pb.CallGroup | pb.AnswerGroup) -> list[int]:
    return [number for (number,) in struct.iter_unpack("<Q", group.ids)]


def tensors(message: Any) -> Iterator[tensor_pb2.Tensor]:
    """The tensors of a message that have data, in the order of a group's data."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            for key in sorted(value, key=str.encode):
                yield from [value[key]] if not value[key].name else []
        elif field.message_type.full_name == "layerwire.v1.Tensor":
            yield from [value] if not value.name else []
        elif field.name not in ("operator", "options", "timing", "definition", "status"):
            yield from tensors(value)


def calls_of(group: pb.CallGroup) -> list[pb.Call]:
    """Each call by itself."""
    calls = []
    ids = ids_of(group)
    for index, number in enumerate(ids):
        call = pb.Call.FromString(group.template)
        assert not call.id
        call.id = number
        for tensor, column in zip(tensors(call), group.data, strict=True):
            assert not tensor.data
            size, rest = divmod(len(column), len(ids))
            assert not rest
            tensor.data = column[index * size : (index + 1) * size]
        calls.append(call)
    return calls


def of_answers(answers: Sequence[pb.Answer]) -> list[pb.AnswerGroup]:
    """Groups of the answers that are alike."""
    groups: dict[bytes, tuple[list[int], list[list[bytes]]]] = {}
    for answer in answers:
        data = [tensor.data for tensor in tensors(answer)]
        bare = pb.Answer.FromString(answer.SerializeToString())
        bare.ClearField("id")
        for tensor in tensors(bare):
            tensor.ClearField("data")
        ids, rows = groups.setdefault(bare.SerializeToString(deterministic=True), ([], []))
        ids.append(answer.id)
        rows.append(data)
    return [
        pb.AnswerGroup(
            template=template,
            ids=struct.pack(f"<{len(ids)}Q", *ids),
            data=[b"".join(column) for column in zip(*rows, strict=True)],
        )
        for template, (ids, rows) in groups.items()
    ]
