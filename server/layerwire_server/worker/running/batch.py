"""Joins the calls of a batch to one set of inputs, and splits its outputs again: the merge rules, on bytes.

It knows calls, plans and the kernel's inputs; neither lanes' order nor devices.

Elementwise parts are padded to whole blocks of 64 elements, also when a call is alone, but for operators that round
nothing: torch's vector body and scalar tail round differently (silu, softplus, mish, elu), and a call's bits must not
depend on its company.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from layerwire.wire.dtypes import ITEMSIZES, TensorSpec
from layerwire_server.operators.operator import Merge
from layerwire_server.worker.call import CallGroup, Content
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.weights.weights_cache import ProgramWeights, Weights


class Part(NamedTuple):
    """An input of a batch: the pieces of its bytes, in order, and what they make."""

    pieces: list[bytes | memoryview]
    spec: TensorSpec


# An input of a kernel: a tensor, a program's weights, or nothing where an optional input was left out.
KernelInput: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...] | None
# An input of a batch: bytes that are to come to the device, or what is there already.
BatchInput: TypeAlias = Part | KernelInput


def join(key: LaneKey, calls: Sequence[CallGroup]) -> list[BatchInput]:
    """The inputs of the batch, one an input of the operator."""
    if key.merge is Merge.ELEMENTWISE:
        return [_flat(calls)]
    first = calls[0]
    if key.merge is Merge.ALONE:
        return [_whole(content, spec) for content, spec in zip(first.contents, first.plan.specs, strict=True)]
    rows = sum(call.rows * call.count for call in calls)
    inputs: list[BatchInput] = []
    for index, (spec, trailing_shape) in enumerate(zip(first.plan.specs, first.plan.trailing_shapes, strict=True)):
        if trailing_shape is None or spec is None:
            inputs.append(_whole(first.contents[index], spec))
        else:
            pieces: list[bytes | memoryview] = [call.contents[index] for call in calls]  # type: ignore[misc]  # rows are bytes
            inputs.append(Part(pieces, TensorSpec(spec.dtype, (rows, *trailing_shape))))
    return inputs


def split(key: LaneKey, calls: Sequence[CallGroup], outputs: Sequence[memoryview]) -> list[list[memoryview]]:
    """Each item's part of the outputs: the data of all its calls one after another, uncopied where it lies so.

    Raises:
        ValueError: the outputs are not as large as the calls' plans say.
    """
    answers: list[list[memoryview]] = [[] for _ in calls]
    for index, output in enumerate(outputs):
        start, end = 0, len(output)
        for call, answer in zip(calls, answers, strict=True):
            nbytes, size = call.plan.output_bytes[index]
            stop = start + size * call.count
            data = output if stop - start == end else output[start:stop]
            answer.append(data if nbytes == size else _own_bytes(data, call.count, nbytes, size))
            start = stop
        if start != end:
            raise ValueError(f"{key.operator} gave {end} bytes for calls of {start}")
    return answers


def _own_bytes(data: memoryview, count: int, nbytes: int, size: int) -> memoryview:
    """The first bytes of each of the calls."""
    if not nbytes:
        return data[:0]
    if count == 1 or len(data) < size * count:  # too short: the caller finds out
        return data[:nbytes]
    rows = np.frombuffer(data, np.uint8).reshape(count, size)
    return np.ascontiguousarray(rows[:, :nbytes]).reshape(-1).data


def _whole(content: Content, spec: TensorSpec | None) -> BatchInput:
    if isinstance(content, Weights | ProgramWeights):
        return content.device
    if content is None or spec is None:
        return None
    return Part([content], spec)


def _flat(calls: Sequence[CallGroup]) -> Part:
    spec = calls[0].plan.specs[0]
    assert spec is not None
    itemsize = ITEMSIZES[spec.dtype]
    pieces: list[bytes | memoryview] = []
    elements = 0
    for call in calls:
        plan, content = call.plan, call.contents[0]
        assert isinstance(content, bytes | memoryview)
        elements += plan.elements * call.count
        nbytes = plan.input_bytes[0]
        padding = plan.elements * itemsize - nbytes
        if not padding:
            pieces.append(content)
        elif call.count == 1:
            pieces += (content, bytes(padding))
        else:
            blocks = np.zeros((call.count, nbytes + padding), np.uint8)
            blocks[:, :nbytes] = np.frombuffer(content, np.uint8).reshape(call.count, nbytes)
            pieces.append(blocks.reshape(-1).data)
    return Part(pieces, TensorSpec(spec.dtype, (elements,)))
