"""THE table of operators: their parameters, the tensors that go with an input, an example, and which are exact.

It knows the SDK's methods by their signatures and torch's rules for shapes; neither torch itself nor requests.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from layerwire.calls import operator_methods

Shape: TypeAlias = tuple[int, ...]

_TENSORS = ("TensorLike", "TensorLike | None")
# What a function's options don't have: what changes no answer, and what the load tester says itself.
_NOT_OPTIONS = {"self", "timeout", "inplace", "out", "_stacklevel", "seed", "dtype"}
_DIMS = re.compile(r"(.*)([123])d")
_KERNEL = 3  # of convolutions without a weight of their own, along each axis
_EXAMPLE_SHAPES = {0: "8,64", 1: "4,4,64", 2: "4,4,16,16", 3: "2,4,8,8,8"}  # by the number of spatial axes


@cache
def functions() -> dict[str, dict[str, inspect.Parameter]]:
    """The parameters of each operator by its name, the input first; without those that are no options."""
    return {
        name: {one.name: one for one in inspect.signature(method).parameters.values() if one.name not in _NOT_OPTIONS}
        for name, method in operator_methods().items()
    }


def options_of(function: str) -> list[inspect.Parameter]:
    """What can be said of a function besides its input; raises ValueError if there is no such function."""
    parameters = functions().get(function)
    if parameters is None:
        near = difflib.get_close_matches(function, functions())
        hint = f"; did you mean {' or '.join(near)}?" if near else "; `layerwire call --list` lists them"
        raise ValueError(f"there is no function {function[:40]}{hint}")
    return list(parameters.values())[1:]


def is_tensor(parameter: inspect.Parameter) -> bool:
    """Whether a parameter takes a tensor."""
    return parameter.annotation in _TENSORS


def stem_and_dims(function: str) -> tuple[str, int]:
    """The function without its number of spatial axes, and that number, 0 where the name has none."""
    match = _DIMS.fullmatch(function)
    return (function, 0) if match is None else (match[1], int(match[2]))


@dataclass(frozen=True)
class Arguments:
    """What is known of a call before its tensors are there.

    Attributes:
        function: "conv2d".
        shape: of the input.
        values: arguments by name; of tensors their shapes.
    """

    function: str
    shape: Shape
    values: Mapping[str, Any]

    @property
    def stem(self) -> str:
        """The function without its number of axes."""
        return stem_and_dims(self.function)[0]

    @property
    def dims(self) -> int:
        """Its number of spatial axes, 0 where the name has none."""
        return stem_and_dims(self.function)[1]

    def extent(self, axis: int) -> int:
        """The input's, 1 where it has no such axis; torch will say what it misses."""
        return self.shape[axis] if -len(self.shape) <= axis < len(self.shape) else 1


class Operand(NamedTuple):
    """A tensor that goes with an input.

    Attributes:
        values: how it is drawn, a key of tensors.VALUES.
        shape: its shape where the call says none; None: it stays out.
        own: whether each sample has its own, as it does its input; else all share it, as calls of a layer do.
    """

    values: str
    shape: Callable[[Arguments], Shape | None] = lambda _call: None
    own: bool = False


class Operator(NamedTuple):
    """A row of the table.

    Attributes:
        options: the fewest with which `layerwire bench` can call it, besides --shape.
        shape: --shape of its example, where the usual one doesn't fit.
        operands: tensors besides the input, by parameter.
        values: how the input is drawn, a key of tensors.VALUES.
        exact: whether it chooses among the numbers it is given, or among a few others, and so is right to the bit.
    """

    options: str = ""
    shape: str = ""
    operands: Mapping[str, Operand] = {}
    values: str = "normal"
    exact: bool = False


def _pairs(call: Arguments) -> Shape:
    other = call.values.get("input2") or call.shape
    return (call.extent(-1), call.extent(-1), other[-1] if other else 1)


def _kernels(call: Arguments) -> Shape:
    channels, groups = call.extent(-1 - call.dims), call.values.get("groups", 1)
    per_group = channels // groups if isinstance(groups, int) and groups > 0 else channels
    return (channels, max(1, per_group), *[_KERNEL] * call.dims)


def _time_kernel(call: Arguments) -> Shape:
    return (_KERNEL, call.extent(-1), call.extent(-1))


def _statistics(call: Arguments) -> Shape | None:
    by_input = call.stem == "instance_norm" and call.values.get("use_input_stats", True)
    return None if call.values.get("training", False) or by_input else (call.extent(1),)


def _planes(call: Arguments) -> Shape:
    batch = call.extent(0) if len(call.shape) == call.dims + 2 else 1
    return (batch, call.extent(-1 - call.dims), call.dims)


_KERNELS = {"weight": Operand("scaled", _kernels)}
_RUNNING = {"running_mean": Operand("small", _statistics), "running_var": Operand("near one", _statistics)}
_ANY = {"weight": Operand("near one"), "bias": Operand("small")}  # of normalisations; biases of all

OPERATORS: dict[str, Operator] = {  # function without its axes -> its row; one that isn't here needs nothing
    "max_pool": Operator("--kernel-size 2", exact=True),
    "avg_pool": Operator("--kernel-size 2"),
    # It takes roots of sums of powers, which have no value where they are negative.
    "lp_pool": Operator("--norm-type 2 --kernel-size 2", values="near one"),
    "fractional_max_pool": Operator(
        "--kernel-size 2 --output-size 3", operands={"_random_samples": Operand("unit", _planes, own=True)}, exact=True
    ),
    "adaptive_max_pool": Operator("--output-size 3", exact=True),
    "adaptive_avg_pool": Operator("--output-size 3"),
    "max_unpool": Operator(
        "--kernel-size 2", operands={"indices": Operand("indices", lambda call: call.shape, own=True)}, exact=True
    ),
    "relu": Operator(exact=True),
    "relu6": Operator(exact=True),
    "hardtanh": Operator(exact=True),
    "hardshrink": Operator(exact=True),
    "threshold": Operator("--threshold 0.1 --value 20", exact=True),
    "prelu": Operator(operands={"weight": Operand("unit", lambda _call: (1,))}),
    "linear": Operator(operands={"weight": Operand("scaled", lambda call: (call.extent(-1), call.extent(-1)))}),
    "bilinear": Operator(
        operands={"input2": Operand("normal", lambda call: call.shape, own=True), "weight": Operand("scaled", _pairs)}
    ),
    "cosine_similarity": Operator(operands={"x2": Operand("normal", lambda call: call.shape, own=True)}),
    "conv": Operator(operands=_KERNELS),
    "conv_transpose": Operator(operands=_KERNELS),
    "conv_tbc": Operator(
        shape="16,2,8",
        operands={
            "weight": Operand("scaled", _time_kernel),
            "bias": Operand("small", lambda call: (call.values.get("weight") or _time_kernel(call))[-1:]),
        },
    ),
    "unfold": Operator("--kernel-size 3", "1,3,16,16", exact=True),
    "fold": Operator("--output-size 16 --kernel-size 3", "1,27,196"),
    "layer_norm": Operator("--normalized-shape 64"),
    "rms_norm": Operator("--normalized-shape 64"),
    "group_norm": Operator("--num-groups 2", "4,4,16"),
    "batch_norm": Operator(operands=_RUNNING),
    "instance_norm": Operator(shape="4,4,16", operands=_RUNNING),
    "local_response_norm": Operator("--size 3", "4,4,16"),
}


def operator(stem: str) -> Operator:
    """The row of a function without its number of axes."""
    return OPERATORS.get(stem, Operator())


def operand(stem: str, parameter: str) -> Operand:
    """What is known of a tensor parameter."""
    return operator(stem).operands.get(parameter) or _ANY.get(parameter) or Operand("normal")


def example(function: str) -> str:
    """Words that follow `layerwire bench ADDRESS`: "max_pool2d --shape 4,4,16,16 --kernel-size 2"."""
    stem, dims = stem_and_dims(function)
    row = operator(stem)
    return f"{function} --shape {row.shape or _EXAMPLE_SHAPES[dims]} {row.options}".strip()
