"""Calls of one lane joined to one set of inputs, and its outputs taken apart again: the merge rules, on bytes.

It knows calls and plans; neither lanes' order nor devices.

Elementwise parts are padded to whole blocks of 64 elements, also when a call is alone: torch's vector body and scalar
tail round differently (silu, softplus, mish, elu), and a call's bits must not depend on its company.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from layerwire.wire.dtypes import ITEMSIZES, TensorSpec
from layerwire_server.operators.operator import Merge
from layerwire_server.worker.call import Call, Content
from layerwire_server.worker.plan import ELEMENTWISE_MULTIPLE, LaneKey
from layerwire_server.worker.weights.weights_cache import Bound, Held, Weights


class Part(NamedTuple):
    """An input of a batch: the pieces of its bytes, in order, and what they make."""

    pieces: list[bytes]
    spec: TensorSpec


Joined: TypeAlias = list[Part | Held | None]


def join(key: LaneKey, calls: Sequence[Call]) -> Joined:
    """The inputs of the batch, one an input of the operator."""
    if key.merge is Merge.ELEMENTWISE:
        return [_blocks(calls)]
    first = calls[0]
    if key.merge is Merge.ALONE:
        return [_whole(content, spec) for content, spec in zip(first.contents, first.plan.specs, strict=True)]
    rows = sum(call.rows for call in calls)
    joined: Joined = []
    for index, (spec, trailing) in enumerate(zip(first.plan.specs, first.plan.trailing, strict=True)):
        if trailing is None or spec is None:
            joined.append(_whole(first.contents[index], spec))
        else:
            pieces: list[bytes] = [call.contents[index] for call in calls]  # type: ignore[misc]  # rows are bytes
            joined.append(Part(pieces, TensorSpec(spec.dtype, (rows, *trailing))))
    return joined


def split(key: LaneKey, calls: Sequence[Call], outputs: Sequence[memoryview]) -> list[list[memoryview]]:
    """Each call's part of the outputs, uncopied.

    Raises:
        ValueError: the outputs are not as large as the calls' plans say.
    """
    answers: list[list[memoryview]] = [[] for _ in calls]
    for index, output in enumerate(outputs):
        start = 0
        for call, answer in zip(calls, answers, strict=True):
            spec = call.plan.outputs[index]
            answer.append(output[start : start + spec.nbytes])
            if key.merge is Merge.ELEMENTWISE:
                start += call.rows * ELEMENTWISE_MULTIPLE * ITEMSIZES[spec.dtype]
            else:
                start += spec.nbytes
        if start != len(output):
            raise ValueError(f"{key.operator} gave {len(output)} bytes for calls of {start}")
    return answers


def _whole(content: Content, spec: TensorSpec | None) -> Part | Held | None:
    if isinstance(content, Weights | Bound):
        return content
    if content is None or spec is None:
        return None
    return Part([content], spec)


def _blocks(calls: Sequence[Call]) -> Part:
    spec = calls[0].plan.specs[0]
    assert spec is not None
    block = ELEMENTWISE_MULTIPLE * ITEMSIZES[spec.dtype]
    pieces: list[bytes] = []
    for call in calls:
        content = call.contents[0]
        assert isinstance(content, bytes)
        pieces.append(content)
        missing = -len(content) % block
        if missing:
            pieces.append(bytes(missing))
    return Part(pieces, TensorSpec(spec.dtype, (sum(call.rows for call in calls) * ELEMENTWISE_MULTIPLE,)))
