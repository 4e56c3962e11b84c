"""Joins the calls of a batch to one set of inputs, and splits its outputs again: the merge rules, on bytes.

It knows calls, plans and the kernel's inputs; neither lanes' order nor devices.

Elementwise parts are padded to whole blocks of 64 elements, also when a call is alone: torch's vector body and scalar
tail round differently (silu, softplus, mish, elu), and a call's bits must not depend on its company.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch

from layerwire.wire.dtypes import ITEMSIZES, TensorSpec
from layerwire_server.operators.operator import Merge
from layerwire_server.worker.call import Call, Content
from layerwire_server.worker.plan import ELEMENTWISE_MULTIPLE, LaneKey
from layerwire_server.worker.weights.weights_cache import ProgramWeights, Weights


class Part(NamedTuple):
    """An input of a batch: the pieces of its bytes, in order, and what they make."""

    pieces: list[bytes]
    spec: TensorSpec


# An input of a kernel: a tensor, a program's weights, or nothing where an optional input was left out.
KernelInput: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...] | None
# An input of a batch: bytes that are to come to the device, or what is there already.
BatchInput: TypeAlias = Part | KernelInput


def join(key: LaneKey, calls: Sequence[Call]) -> list[BatchInput]:
    """The inputs of the batch, one an input of the operator."""
    if key.merge is Merge.ELEMENTWISE:
        return [_blocks(calls)]
    first = calls[0]
    if key.merge is Merge.ALONE:
        return [_whole(content, spec) for content, spec in zip(first.contents, first.plan.specs, strict=True)]
    rows = sum(call.rows for call in calls)
    inputs: list[BatchInput] = []
    for index, (spec, trailing_shape) in enumerate(zip(first.plan.specs, first.plan.trailing_shapes, strict=True)):
        if trailing_shape is None or spec is None:
            inputs.append(_whole(first.contents[index], spec))
        else:
            pieces: list[bytes] = [call.contents[index] for call in calls]  # type: ignore[misc]  # rows are bytes
            inputs.append(Part(pieces, TensorSpec(spec.dtype, (rows, *trailing_shape))))
    return inputs


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


def _whole(content: Content, spec: TensorSpec | None) -> BatchInput:
    if isinstance(content, Weights | ProgramWeights):
        return content.device
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
        padding = -len(content) % block
        if padding:
            pieces.append(bytes(padding))
    return Part(pieces, TensorSpec(spec.dtype, (sum(call.rows for call in calls) * ELEMENTWISE_MULTIPLE,)))
