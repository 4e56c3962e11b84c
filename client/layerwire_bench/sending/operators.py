"""One operator with a shape as a kind of call: its requests with random tensors, and the answers they should get.

It knows the table of operators and the SDK's methods; neither files nor command lines nor servers.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layerwire.calls import Request, Requests
from layerwire_bench import operator_table
from layerwire_bench.answers import reference
from layerwire_bench.operator_table import Arguments, Shape
from layerwire_bench.sending import tensors
from layerwire_bench.sending.tensors import USUAL, Array, Random, RandomTensor, SampleSettings, Source, StoredTensor
from layerwire_bench.workload import Entry, Sample, Terms


def entry_for(
    function: str,
    shape: Sequence[int],
    arguments: Mapping[str, Any] | None = None,
    *,
    dtype: str = "float32",
    settings: SampleSettings = USUAL,
    index: int = 0,
    terms: Terms = Terms(),  # noqa: B008  # frozen
) -> tuple[Entry, list[Sample]]:
    """A kind of call and its samples.

    Args:
        function: its name in torch.nn.functional.
        shape: of its input.
        arguments: by name; tensors as `RandomTensor`, `StoredTensor` or arrays. What is left out takes torch's default,
            or for a tensor that must be there one that fits the input.
        dtype: of the input, and of other tensors that don't say.
        settings: how samples are made. Each has an input of its own; weights are the same in all.
        index: of the entry within its workload.
        terms: how its calls are treated.

    Raises:
        ValueError: a parameter is unknown, missing, or of a wrong type or value, the tensors are too large, or torch
            refuses the call.
    """
    call = _OperatorCall(function, settings.check_shape(f"{function}: input", shape, dtype), dict(arguments or {}))
    shared = call.operands(dtype, settings.random(index), own=False)
    names = [tensor for tensor in shared.values() if isinstance(tensor, str)]
    weights = {name: array for name in names if (array := settings.fetch(name)) is not None}
    description = f"{call.description(dtype, shared)}{terms}"
    entry = Entry(f"{function} {shape_text(call.shape)}", description, terms.share, terms.priority, terms.deterministic)
    samples = []
    for number in range(settings.samples):
        request = call.request(shared | call.own(dtype, settings.random(index, number)), settings.seed + number)
        arrays = [one for one in request.tensors.values() if not isinstance(one, str)]
        settings.check(f"{function}: its tensors", sum(one.nbytes for one in arrays))
        if settings.verify:
            expected = reference.expectation(request, dtype, weights, max_bytes=settings.max_elements_bytes)
        else:
            expected = reference.no_expectation(request, dtype)
        samples.append(Sample(index, request, *expected, weights=weights))
    return entry, samples


class _OperatorCall:
    """A call with its arguments checked and tensors told from the rest."""

    def __init__(self, function: str, shape: Shape, arguments: dict[str, Any]) -> None:
        self.function = function
        self.shape = shape
        parameters = {one.name: one for one in operator_table.options_of(function)}
        self._input = next(iter(operator_table.functions()[function]))
        unknown = next((name for name in arguments if name not in parameters), None)
        if unknown is not None:
            raise ValueError(f"{function}: {unknown[:40]} is none of its parameters {', '.join(parameters)}")
        self._tensors = [name for name, one in parameters.items() if operator_table.is_tensor(one)]
        required = [name for name, one in parameters.items() if one.default is one.empty]
        for name in required:
            if name not in self._tensors and name not in arguments:
                raise ValueError(f"{function}: {name} is required")
        self._without_default = [name for name in required if name in self._tensors]
        self._sources = {name: value for name, value in arguments.items() if name in self._tensors}
        self._values = {name: value for name, value in arguments.items() if name not in self._tensors}
        shapes = {name: one.shape for name, one in self._sources.items() if not isinstance(one, StoredTensor | None)}
        self._arguments = Arguments(function, shape, {**self._values, **shapes})

    def own(self, dtype: str, random: Random) -> dict[str, Any]:
        """Tensors that each sample has of its own, the input first."""
        values = operator_table.operator(self._arguments.stem).values
        array = tensors.random_array(random, self.shape, dtype, values)
        return {self._input: array} | self.operands(dtype, random, own=True)

    def operands(self, dtype: str, random: Random, *, own: bool) -> dict[str, Array | str]:
        """Tensors beside the input that all samples share, or that each has of its own, in the order of parameters."""
        all_operands = {
            name: self._tensor(name, dtype, random)
            for name in self._tensors
            if operator_table.operand(self._arguments.stem, name).own == own
        }
        return {name: tensor for name, tensor in all_operands.items() if tensor is not None}

    def _tensor(self, name: str, dtype: str, random: Random) -> Array | str | None:
        """The tensor of a parameter, a stored one's name; None if it stays out."""
        values, usual_shape, _ = operator_table.operand(self._arguments.stem, name)
        source: Source | None = self._sources.get(name)
        if isinstance(source, StoredTensor):
            return source.name
        if source is None:
            shape = usual_shape(self._arguments)
            if shape is None:
                return None
            source = RandomTensor(shape)
        if not isinstance(source, RandomTensor):
            return source
        if values == "indices":
            return unpool_indices(random, self._arguments)
        return tensors.random_array(random, source.shape, source.dtype or dtype, values)

    def request(self, tensors: Mapping[str, Any], seed: int) -> Request:
        """The request with these tensors; raises ValueError if an argument is of a wrong type or value."""
        arguments = dict.fromkeys(self._without_default) | self._values | dict(tensors)
        method = getattr(Requests(), self.function)
        if "seed" in inspect.signature(method).parameters:
            arguments["seed"] = seed
        try:
            request: Request = method(**arguments)
        except TypeError as error:
            raise ValueError(str(error)) from None
        return request

    def description(self, dtype: str, tensors: Mapping[str, Any]) -> str:
        """A line that says all of it."""
        texts = {name: _text(value) for name, value in {**self._values, **tensors}.items()}
        for name, source in self._sources.items():
            if not isinstance(source, RandomTensor | StoredTensor):  # of files, whose elements tell calls apart
                texts[name] += f" crc32 {zlib.crc32(source.tobytes()):08x}"
        options = "".join(f", {name.strip('_')}={value}" for name, value in texts.items())
        return f"{self.function} {shape_text(self.shape)} {dtype}{options}"


def _text(value: Any) -> str:
    value = getattr(value, "shape", value)
    return shape_text(value) if isinstance(value, list | tuple) else str(value)


def shape_text(shape: Sequence[Any]) -> str:
    """(1,3,32,32), which is how a shape stands in names."""
    return f"({','.join(map(str, shape))})"


def unpool_indices(random: Random, call: Arguments) -> Array:
    """Indices for max_unpool as a max pool could have given them: each in a window of its own.

    Source: the output's extents are those of torch.nn.functional.max_unpool2d.

    Raises:
        ValueError: the output has not as many places as the input elements along an axis.
    """
    inner = call.shape[-call.dims :]
    outer = _output_extents(call, inner)
    if any(large < small for large, small in zip(outer, inner, strict=True)):
        sizes = f"its output {outer} must not be smaller than its input {inner}"
        raise ValueError(f"{call.function}: {sizes} along an axis, or several values would share a place")
    flat = np.zeros(call.shape, np.int64)
    for axis, (small, large) in enumerate(zip(inner, outer, strict=True)):
        edges = np.arange(small + 1) * large // max(1, small)
        across = (-1, *[1] * (call.dims - 1 - axis))
        flat = flat * large + random.integers(edges[:-1].reshape(across), edges[1:].reshape(across), call.shape)
    return flat


def _output_extents(call: Arguments, inner: Shape) -> Shape:
    """Of max_unpool."""
    size = call.values.get("output_size")
    if size is not None:
        return (size,) * call.dims if isinstance(size, int) else tuple(size)[-call.dims :]
    kernel, padding = _by_axis(call, "kernel_size", 1), _by_axis(call, "padding", 0)
    stride = _by_axis(call, "stride", None) or kernel
    return tuple(
        (extent - 1) * step - 2 * pad + size
        for extent, step, pad, size in zip(inner, stride, padding, kernel, strict=True)
    )


def _by_axis(call: Arguments, name: str, default: int | None) -> Shape:
    """An argument's value for each axis; () where there is none.

    Raises:
        ValueError: it has another number of values.
    """
    value = call.values.get(name, default)
    if value is None:
        return ()
    values = (value,) * call.dims if isinstance(value, int) else tuple(value)
    values *= call.dims if len(values) == 1 else 1
    if len(values) != call.dims or not all(isinstance(one, int) for one in values):
        raise ValueError(f"{call.function}: {name} must be an integer or {call.dims} integers, got {value}")
    return values
