"""Calls as groups and back, spelled by the generated classes: what the client writes and reads by hand."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import tensor_pb2


def tensors_of(message: Any) -> Iterator[tensor_pb2.Tensor]:
    """The tensors of a call or an answer in the order of a group's data."""
    for field in sorted(message.DESCRIPTOR.fields, key=lambda field: field.number):
        if field.message_type is None or field.message_type.full_name == "layerwire.v1.Program":
            continue
        value = getattr(message, field.name)
        if field.message_type.GetOptions().map_entry:
            for key in sorted(value, key=str.encode):
                yield value[key]
        elif message.HasField(field.name):
            if isinstance(value, tensor_pb2.Tensor):
                yield value
            elif field.message_type.file.package == "layerwire.v1":
                yield from tensors_of(value)


def group_of(calls: Sequence[pb.Call]) -> pb.CallGroup:
    """Calls that are alike as a group."""
    data: list[list[bytes]] = []
    templates = []
    for call in calls:
        like = pb.Call()
        like.CopyFrom(call)
        like.id = 0
        pieces = []
        for tensor in tensors_of(like):
            if tensor.WhichOneof("content") != "name":
                pieces.append(tensor.data)
                tensor.ClearField("data")
        data.append(pieces)
        templates.append(like.SerializeToString(deterministic=True))
    assert len(set(templates)) == 1, "they are alike"
    ids = b"".join(struct.pack("<Q", call.id) for call in calls)
    return pb.CallGroup(template=templates[0], ids=ids, data=[b"".join(column) for column in zip(*data, strict=True)])


def answers_of(group: pb.AnswerGroup) -> list[pb.Answer]:
    """The answers of a group."""
    ids = struct.unpack(f"<{len(group.ids) // 8}Q", group.ids)
    columns = [len(column) // len(ids) for column in group.data]
    answers = []
    for row, call_id in enumerate(ids):
        answer = pb.Answer.FromString(group.template)
        assert not answer.id
        answer.id = call_id
        tensors = [] if answer.WhichOneof("result") == "status" else list(tensors_of(answer))
        for tensor, column, nbytes in zip(tensors, group.data, columns, strict=True):
            assert not tensor.data
            tensor.data = column[row * nbytes : (row + 1) * nbytes]
        answers.append(answer)
    return answers
