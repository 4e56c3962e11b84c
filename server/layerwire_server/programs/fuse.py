"""Other ways to run a program's steps: the same nodes in another order, in place, or with channels side by side.

It knows graphs and kernels; nothing of how steps are run or which way is fastest where.

    relu before a max pool comes after it: it never changes which of two numbers is the larger, and has less to do there
    relu of a value that nobody else reads writes over it, so that no memory has to be had for its output
    a max pool without indices goes by rows, then by columns, which keeps another of equal zeros, or of several NaN
    other pools go by the kernels that have torch's bits
    with "packed", products with large weights go by oneDNN, which keeps those in blocks of its own
    with "channels_last", convolutions take and give planes whose channels are neighbours in memory
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch

from layerwire.wire.dtypes import TensorSpec
from layerwire_server.operators.activate import Relu
from layerwire_server.operators.convolve import Conv
from layerwire_server.operators.convolve_transpose import ConvTranspose
from layerwire_server.operators.linear import Linear
from layerwire_server.operators.max_pool_kernels import separable_maximum
from layerwire_server.operators.normalize_running import BatchNorm
from layerwire_server.operators.operator import Kernel, Operator
from layerwire_server.operators.pool import MaxPool
from layerwire_server.programs.graph import ABSENT, Step

StepKernels: TypeAlias = list[tuple[Step, Kernel]]

_POOL_KERNELS = ("comparison", "plane_sums")  # of pools that are run by them here
_LARGE_ELEMENTS = 2**15  # of weights: with smaller ones oneDNN's 10 us a product are more than it gains
_MOST_MAXIMA = 16  # of whole planes, for a window
_OWNERS = (Conv, ConvTranspose, Linear, BatchNorm, MaxPool)  # their outputs are memory of their own, and no views


def fused_steps(
    steps: Sequence[Step], results: frozenset[int], weights: Mapping[int, TensorSpec]
) -> dict[str, StepKernels]:
    """Steps with their kernels, by the name of the way; none where that would change nothing.

    Args:
        steps: of a graph, in running order.
        results: slots of its outputs.
        weights: its constants by slot.
    """
    order = _pools_first(steps, results)
    plain = [(step, _kernel(step, order, results)) for step in order]
    ways = {}
    if order != list(steps) or any(kernel != step.operator.run for step, kernel in plain):
        ways["fused"] = plain
    if any(_takes_planes(step.operator) for step in steps):
        ways["channels_last"] = [
            (step, _channels_last(kernel) if _takes_planes(step.operator) else kernel) for step, kernel in plain
        ]
    large = {slot for slot, spec in weights.items() if math.prod(spec.shape) >= _LARGE_ELEMENTS}
    for name, pairs in [*ways.items()] if "fused" in ways else [("", plain), *ways.items()]:
        products = [(step, _product(step, kernel, large)) for step, kernel in pairs]
        if products != pairs:
            ways[f"{name}_packed".removeprefix("_")] = products
    return ways


def _product(step: Step, kernel: Kernel, large: Container[int]) -> Kernel:
    if isinstance(step.operator, Linear) and step.inputs[1] in large:
        return step.operator.kernels().get("onednn", kernel)
    return kernel


def _pools_first(steps: Sequence[Step], results: frozenset[int]) -> list[Step]:
    """The steps with each relu behind the max pool that alone reads it."""
    order = list(steps)
    reads = _reads(steps, results)
    writers = {step.outputs[0]: index for index, step in enumerate(steps) if type(step.operator) is Relu}
    for index, pool in enumerate(steps):
        slot = pool.inputs[0]
        if not _goes_by_rows(pool.operator) or slot not in writers or reads[slot] > 1:
            continue
        relu = order[writers[slot]]
        order[writers[slot]] = replace(pool, inputs=relu.inputs, outputs=relu.outputs)
        order[index] = replace(relu, inputs=relu.outputs, outputs=pool.outputs)
    return order


def _kernel(step: Step, steps: Sequence[Step], results: frozenset[int]) -> Kernel:
    operator = step.operator
    if isinstance(operator, MaxPool) and _goes_by_rows(operator):
        window = operator.window
        return lambda tensor: (separable_maximum(tensor, window),)
    kernels = operator.kernels()
    for name in _POOL_KERNELS:
        if name in kernels:
            return kernels[name]
    if type(operator) is Relu and _reads(steps, results)[step.inputs[0]] == 1:
        writer = next((other for other in steps if step.inputs[0] in other.outputs), None)
        if writer is not None and isinstance(writer.operator, _OWNERS):
            return lambda tensor: (tensor.relu_(),)
    return operator.run


def _reads(steps: Sequence[Step], results: frozenset[int]) -> Counter[int]:
    """How often each slot is read, as a result too."""
    reads = Counter(slot for step in steps for slot in step.inputs if slot != ABSENT)
    reads.update(results)
    return reads


def _goes_by_rows(operator: Operator) -> bool:
    if not isinstance(operator, MaxPool) or operator.return_indices:
        return False
    kernel_size = operator.window.kernel_size
    return max(kernel_size) > 1 and sum(kernel_size) <= _MOST_MAXIMA  # of a single element it would be a view


def _takes_planes(operator: Operator) -> bool:
    return isinstance(operator, Conv) and operator.spatial_dims == 2


def _channels_last(kernel: Callable[..., tuple[torch.Tensor, ...]]) -> Kernel:
    def run(tensor: torch.Tensor, *others: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        if tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return kernel(tensor, *others)

    return run
