"""torch's call for each operator of the contract, its parameters bound once.

It knows operator messages and torch; no code of the server, none that makes messages, neither graphs nor arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F

from layerwire.v1 import operators_pb2, program_pb2
from layerwire.wire.dtypes import DTYPE_NAMES

Tensors: TypeAlias = dict[str, torch.Tensor]
Function: TypeAlias = Callable[..., Any]
# An operator's message -> what takes its tensors: the input first, others by their fields.
Maker: TypeAlias = Callable[[Any], Function]

TORCH_DTYPES: dict[int, torch.dtype] = {value: getattr(torch, name) for value, name in DTYPE_NAMES.items()}
_UNIONS = (
    operators_pb2.PoolOperator, operators_pb2.UnpoolOperator, operators_pb2.LinearOperator,
    operators_pb2.ActivateOperator, operators_pb2.ConvolveOperator, operators_pb2.NormalizeOperator,
    program_pb2.TransformOperator,
)  # fmt: skip
# Tensors that torch calls otherwise than the message's field.
_TENSORS = {"cosine_similarity": {"input2": "x2"}, "fractional_max_pool": {"samples": "_random_samples"}}


class TorchCall(NamedTuple):
    """A call that takes tensors by position, and the names of what it returns: a tensor for one name, else a tuple."""

    function: Function
    outputs: tuple[str, ...]


def torch_call(union: Any, fields: Sequence[str]) -> TorchCall:
    """The call of an operator, such as a PoolOperator, whose tensors come in the order of these fields.

    Raises:
        KeyError: torch alone can't give what the operator is to answer: it draws numbers, or isn't there.
    """
    name = union.WhichOneof("operator")
    message = getattr(union, name)
    if name == "concatenate":
        dim = message.dim  # 0 unless it is set
        return TorchCall(lambda *tensors: torch.cat(tensors, dim), ("output",))
    if len(set(fields)) < len(fields):
        raise ValueError(f"{name}: inputs must each be given once, got {', '.join(fields)}")
    if draws_numbers(union):
        raise KeyError(name)
    torch_names = _TENSORS.get(name, {})
    function = _by_position(CALLS[name](message), [torch_names.get(field, field) for field in fields])
    if name == "batch_norm" and message.return_statistics:
        running = ("running_mean", "running_var") if "running_mean" in fields else ()
        return TorchCall(function, ("output", "batch_mean", "batch_var", *running))
    return TorchCall(function, ("output", "indices") if getattr(message, "return_indices", False) else ("output",))


def draws_numbers(union: Any) -> bool:
    """Whether the answer depends on numbers that the server draws from a generator of its own."""
    name = union.WhichOneof("operator")
    return bool(name == "gumbel_softmax" or (name == "rrelu" and union.rrelu.training))


def _by_position(function: Function, fields: Sequence[str]) -> Function:
    """The function with its tensors by position, in the order of the fields; input goes first, as torch has it."""
    if tuple(fields) == ("input",):
        return function
    if "input" not in fields:
        raise ValueError(f"input is required, got {', '.join(fields) or 'none'}")
    first = list(fields).index("input")
    rest = [(index, field) for index, field in enumerate(fields) if index != first]
    return lambda *tensors: function(tensors[first], **{field: tensors[index] for index, field in rest})


def arguments(message: Any) -> dict[str, Any]:
    """The fields that are set, as torch's arguments: repeated ones as lists with a value an axis, enums as words."""
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.enum_type is not None:
            prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
            word = field.enum_type.values_by_number[value].name.removeprefix(prefix).lower().replace("_", "-")
            values[field.name.removeprefix("named_")] = getattr(torch, word) if field.name == "dtype" else word
        elif isinstance(value, bool | int | float | str):
            values[field.name] = value
        else:
            values[field.name] = list(value) * (getattr(message, "spatial_dims", 1) if len(value) == 1 else 1)
    values.pop("spatial_dims", None)
    return values


def _namesake(name: str, message: Any) -> Function:
    """Torch's function of the operator's name, of its number of spatial axes where it has one for each."""
    dims = getattr(message, "spatial_dims", "")
    function: Function = getattr(F, f"{name}{dims}d" if dims else name, None) or getattr(torch, name)
    return function


def _namesake_maker(
    name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda arguments: arguments
) -> Maker:
    """Torch's function of the operator's name, with the message's fields as arguments, changed where torch differs."""

    def make(message: Any) -> Function:
        function, values = _namesake(name, message), change(arguments(message))
        return partial(function, **values) if values else function

    return make


def _with_numbers(values: dict[str, Any]) -> dict[str, Any]:
    """A number for one axis, and where it stands for all of them."""
    return {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in values.items()}


def _with_kept_extents(values: dict[str, Any]) -> dict[str, Any]:
    """None for -1, the extent that adaptive pooling keeps."""
    return values | {"output_size": [None if extent == -1 else extent for extent in values["output_size"]]}


def _along_axis(name: str) -> Maker:
    """A kind of softmax; without an axis it takes torch's choice, which torch itself warns of."""

    def make(message: Any) -> Function:
        function = partial(getattr(F, name), **arguments(message))
        return function if message.HasField("dim") else lambda x: function(x, dim=0 if x.ndim in (0, 1, 3) else 1)

    return make


def _batch_norm(message: Any) -> Function:
    values = arguments(message)
    if not values.pop("return_statistics", False):
        function = partial(_batch_norm_of, **values)
        return _on_copies(function) if message.training else function
    return lambda x, **tensors: _with_statistics(x, tensors, values)


def _batch_norm_of(x: Any, running_mean: Any = None, running_var: Any = None, **rest: Any) -> Any:
    return F.batch_norm(x, running_mean, running_var, **rest)


def _with_statistics(x: torch.Tensor, tensors: Tensors, values: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
    copies = _copies_of_statistics(tensors)
    output = _batch_norm_of(x, **(tensors | copies), **values)
    elements = x.transpose(0, 1).flatten(1).double()
    like = next(iter(tensors.values()), x).dtype
    return output, elements.mean(1).to(like), elements.var(1, correction=0).to(like), *copies.values()


def _instance_norm(message: Any) -> Function:
    function = partial(F.instance_norm, **arguments(message))
    by_input = message.use_input_stats or not message.HasField("use_input_stats")
    return _on_copies(function) if by_input else function


def _on_copies(function: Function) -> Function:
    """The function on copies of running statistics, which torch updates in place where it normalises by others."""
    return lambda x, **tensors: function(x, **(tensors | _copies_of_statistics(tensors)))


def _copies_of_statistics(tensors: Tensors) -> Tensors:
    return {name: tensors[name].clone() for name in ("running_mean", "running_var") if name in tensors}


def _upsample(message: Any) -> Function:
    values = arguments(message)
    sizes = {name: values.pop(name) for name in ("size", "scale_factor") if name in values}

    def run(x: torch.Tensor) -> Any:
        whole = {name: size * (x.ndim - 2) if len(size) == 1 else size for name, size in sizes.items()}
        return F.interpolate(x, **values, **whole)

    return run


def _pad(message: Any) -> Function:
    values = {"mode": "constant"} | arguments(message)
    value = message.value if values["mode"] == "constant" else None
    return partial(F.pad, pad=list(message.pad), mode=values["mode"], value=value)


def _mean(message: Any) -> Function:
    dims, keepdim = tuple(message.dims), message.keepdim
    return lambda x: x.mean(dims or tuple(range(x.ndim)), keepdim)


def _of_one_dtype(function: Function) -> Maker:
    """A function of two tensors of one dtype; torch itself would promote."""

    def make(message: Any) -> Function:
        values = arguments(message)

        def run(x: torch.Tensor, other: torch.Tensor) -> Any:
            if x.dtype != other.dtype:
                raise TypeError(f"operands of different dtypes, {x.dtype} and {other.dtype}")
            return function(x, other, **values)

        return run

    return make


_OTHERS: dict[str, Maker] = {  # operators that are more than torch's function of their name with their fields
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "reshape": lambda message: partial(torch.reshape, shape=tuple(message.shape)),
    "permute": lambda message: partial(torch.permute, dims=tuple(message.dims)),
    "narrow": lambda message: partial(torch.narrow, dim=message.dim, start=message.start, length=message.length),
    "mean": _mean,
    "pad": _pad,
    "upsample": _upsample,
    "dropout": lambda _message: lambda x: x,
    "identity": lambda _message: lambda x: x,
    **{name: _namesake_maker(name, _with_numbers) for name in ("lp_pool", "unfold", "fold")},
    **{name: _namesake_maker(name, _with_kept_extents) for name in ("adaptive_max_pool", "adaptive_avg_pool")},
    **{name: _along_axis(name) for name in ("softmax", "softmin", "log_softmax")},
    **{name: _of_one_dtype(getattr(torch, name)) for name in ("add", "subtract", "multiply", "divide", "matmul")},
}
CALLS: dict[str, Maker] = {  # field of the family's message -> maker
    field.name: _OTHERS.get(field.name) or _namesake_maker(field.name)
    for union in _UNIONS
    for field in union.DESCRIPTOR.fields
    if field.name not in {"gumbel_softmax", "concatenate"}
}
