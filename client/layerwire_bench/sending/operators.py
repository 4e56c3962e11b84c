"""One operator with a shape as a kind of call: its requests with random tensors, and the answers they should get.

It knows the SDK's methods by their signatures; neither files nor command lines nor servers.
"""

from __future__ import annotations

import difflib
import inspect
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from layerwire.calls import Request, Requests, operator_methods
from layerwire_bench.answers import reference
from layerwire_bench.sending import tensors
from layerwire_bench.sending.operands import Asked, companion, indices, input_values
from layerwire_bench.sending.tensors import USUAL, Array, Making, Random, Shape, Shaped, Source, Stored
from layerwire_bench.sending.workload import Entry, Sample

_TENSORS = ("TensorLike", "TensorLike | None")
# What a function's options don't have: what changes no answer, and what the load tester says itself.
_NOT_OPTIONS = {"self", "timeout", "inplace", "out", "_stacklevel", "seed", "dtype"}


@cache
def functions() -> dict[str, dict[str, inspect.Parameter]]:
    """The parameters of each operator by its name, the input first; without those that are no options."""
    return {
        name: {one.name: one for one in inspect.signature(method).parameters.values() if one.name not in _NOT_OPTIONS}
        for name, method in operator_methods().items()
    }


def options_of(function: str) -> list[inspect.Parameter]:
    """What can be said of a function besides its input.

    Raises:
        ValueError: there is no such function.
    """
    found = functions().get(function)
    if found is None:
        near = difflib.get_close_matches(function, functions())
        hint = f"; did you mean {' or '.join(near)}?" if near else "; `layerwire call --list` lists them"
        raise ValueError(f"there is no function {function[:40]}{hint}")
    return list(found.values())[1:]


def is_tensor(parameter: inspect.Parameter) -> bool:
    """Whether a parameter takes a tensor."""
    return parameter.annotation in _TENSORS


def entry_for(
    function: str,
    shape: Sequence[int],
    given: Mapping[str, Any] | None = None,
    *,
    dtype: str = "float32",
    making: Making = USUAL,
    index: int = 0,
    share: float = 1.0,
    priority: int = 0,
    deterministic: bool = False,
) -> tuple[Entry, list[Sample]]:
    """A kind of call and its samples.

    Args:
        function: its name in torch.nn.functional.
        shape: of its input.
        given: its parameters by name; tensors as `Shaped`, `Stored` or arrays. What is left out takes torch's default,
            or for a tensor that must be there one that fits the input.
        dtype: of the input, and of other tensors that don't say.
        making: how samples are made. Each has an input of its own; weights are the same in all.
        index: of the entry within its workload.
        share: the entry's.
        priority: the entry's.
        deterministic: the entry's.

    Raises:
        ValueError: a parameter is unknown, missing, or of a wrong type or value, the tensors are too large, or torch
            refuses the call.
    """
    call = _Call(function, tensors.checked(f"{function}: input", shape, dtype, making), dict(given or {}))
    made = call.shared(dtype, making.random(index))
    stored = {one: array for one in _names(made) if (array := making.fetch(one)) is not None}
    entry = Entry(
        name=f"{function} {shown(call.shape)}",
        description=call.description(dtype, made, priority, deterministic),
        share=share,
        priority=priority,
        deterministic=deterministic,
    )
    found = []
    for number in range(making.samples):
        own = call.own(dtype, making.random(index, number))
        request = call.request(made | own, making.seed + number)
        arrays = [one for one in request.tensors.values() if not isinstance(one, str)]
        making.check(f"{function}: its tensors", sum(one.nbytes for one in arrays))
        expected = reference.unknown(request, dtype)
        if making.expects:
            expected = reference.expected(request, dtype, stored, allowed_bytes=making.max_elements_bytes)
        found.append(Sample(index, request, *expected, stored=stored))
    return entry, found


class _Call:
    """What was asked for, with parameters checked and tensors told from the rest."""

    def __init__(self, function: str, shape: Shape, given: dict[str, Any]) -> None:
        self.function = function
        self.shape = shape
        known = {one.name: one for one in options_of(function)}
        self._input = next(iter(functions()[function]))
        unknown = next((name for name in given if name not in known), None)
        if unknown is not None:
            raise ValueError(f"{function}: {unknown[:40]} is none of its parameters {', '.join(known)}")
        missing = [name for name, one in known.items() if one.default is one.empty and not is_tensor(one)]
        for name in missing:
            if name not in given:
                raise ValueError(f"{function}: {name} is required")
        self._sources = {name: source for name, source in given.items() if is_tensor(known[name])}
        self._parameters = {name: value for name, value in given.items() if name not in self._sources}
        self._tensors = [name for name, one in known.items() if is_tensor(one)]
        self._required = [name for name in self._tensors if known[name].default is inspect.Parameter.empty]

    def shared(self, dtype: str, random: Random) -> dict[str, Any]:
        """Tensors that all samples share, in the order of parameters."""
        return {name: one for name in self._tensors if (one := self._made(name, dtype, random, own=False)) is not None}

    def own(self, dtype: str, random: Random) -> dict[str, Any]:
        """Tensors that each sample has of its own, the input first."""
        asked = self._asked()
        found = {self._input: tensors.drawn(random, self.shape, dtype, input_values(asked))}
        return found | {
            name: one for name in self._tensors if (one := self._made(name, dtype, random, own=True)) is not None
        }

    def _asked(self) -> Asked:
        shapes = {name: source.shape for name, source in self._sources.items() if not isinstance(source, Stored | None)}
        return Asked(self.function, self.shape, {**self._parameters, **shapes})

    def _made(self, name: str, dtype: str, random: Random, *, own: bool) -> Array | str | None:
        """The tensor of a parameter, if it is there and of this kind."""
        asked = self._asked()
        values, shape, is_own = companion(asked, name)
        if is_own != own:
            return None
        source: Source | None = self._sources.get(name)
        if isinstance(source, Stored):
            return source.name
        if source is None:
            left_out = shape(asked)
            if left_out is None:
                return None
            source = Shaped(left_out)
        if not isinstance(source, Shaped):
            return source
        if values == "indices":
            return indices(random, asked)
        return tensors.drawn(random, source.shape, source.dtype or dtype, values)

    def request(self, made: Mapping[str, Any], seed: int) -> Request:
        """The request with these tensors.

        Raises:
            ValueError: a parameter is of a wrong type or value.
        """
        arguments = dict.fromkeys(self._required) | self._parameters | dict(made)
        method = getattr(Requests(), self.function)
        if "seed" in inspect.signature(method).parameters:
            arguments["seed"] = seed
        try:
            request: Request = method(**arguments)
        except TypeError as error:
            raise ValueError(str(error)) from None
        return request

    def description(self, dtype: str, made: Mapping[str, Any], priority: int, deterministic: bool) -> str:
        """A line that says all of it."""
        said = {name: _said(value) for name, value in {**self._parameters, **made}.items()}
        for name, source in self._sources.items():
            if not isinstance(source, Shaped | Stored):  # of files, whose elements tell calls apart
                said[name] += f" crc32 {zlib.crc32(source.tobytes()):08x}"
        said |= {"priority": str(priority)} if priority else {}
        said |= {"deterministic": "true"} if deterministic else {}
        options = "".join(f", {name.strip('_')}={value}" for name, value in said.items())
        return f"{self.function} {shown(self.shape)} {dtype}{options}"


def _names(made: Mapping[str, Any]) -> list[str]:
    return [one for one in made.values() if isinstance(one, str)]


def _said(value: Any) -> str:
    if isinstance(value, str):
        return value
    if hasattr(value, "shape"):
        return shown(value.shape)
    return shown(value) if isinstance(value, list | tuple) else str(value)


def shown(numbers: Sequence[Any]) -> str:
    """(1,3,32,32), which is how a shape stands in names."""
    return f"({','.join(map(str, numbers))})"
