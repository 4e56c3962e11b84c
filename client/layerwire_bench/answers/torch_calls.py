"""torch's call for each operator of the contract, its parameters bound once.

It knows operator messages and torch; no code of the server, none that makes messages, neither graphs nor arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F

from layerwire.v1 import program_pb2
from layerwire.wire.dtypes import DTYPE_NAMES

Tensors: TypeAlias = dict[str, torch.Tensor]
Call: TypeAlias = Callable[..., Any]
Maker: TypeAlias = Callable[[Any], Call]  # an operator's message -> what takes its tensors, by name or in torch's order

DTYPES: dict[int, torch.dtype] = {value: getattr(torch, name) for value, name in DTYPE_NAMES.items()}
WITH_INDICES = ("output", "indices")


class Bound(NamedTuple):
    """A call that takes tensors by position, and the names of what it returns: a tensor for one name, else a tuple."""

    call: Call
    outputs: tuple[str, ...]


def bound(union: Any, fields: Sequence[str]) -> Bound:
    """The call of an operator, such as a PoolOperator, whose tensors come in the order of these fields.

    Raises:
        KeyError: torch alone can't give what the operator is to answer: it draws numbers, or isn't there.
    """
    name = union.WhichOneof("operator")
    message = getattr(union, name)
    if name == "concatenate":
        dim = given(message).get("dim", 0)
        return Bound(lambda *tensors: torch.cat(tensors, dim), ("output",))
    if len(set(fields)) < len(fields):
        raise ValueError(f"{name}: inputs must each be given once, got {', '.join(fields)}")
    if drawn(union):
        raise KeyError(name)
    call = CALLS[name](message)
    if name == "batch_norm" and message.return_statistics:
        running = ("running_mean", "running_var") if "running_mean" in fields else ()
        return Bound(by_name(call, fields), ("output", "batch_mean", "batch_var", *running))
    outputs = WITH_INDICES if getattr(message, "return_indices", False) else ("output",)
    return Bound(by_name(call, fields), outputs)


def drawn(union: Any) -> bool:
    """Whether the answer depends on numbers that the server draws from a generator of its own."""
    name = union.WhichOneof("operator")
    return bool(name == "gumbel_softmax" or (name == "rrelu" and union.rrelu.training))


def by_name(call: Call, fields: Sequence[str]) -> Call:
    """The call with its tensors by position, in the order of the fields; input goes first, as torch has it."""
    if tuple(fields) == ("input",):
        return call
    if "input" not in fields:
        raise ValueError(f"input is required, got {', '.join(fields) or 'none'}")
    first = list(fields).index("input")
    rest = [(index, field) for index, field in enumerate(fields) if index != first]
    return lambda *tensors: call(tensors[first], **{field: tensors[index] for index, field in rest})


def given(message: Any) -> dict[str, Any]:
    """The fields that are set, repeated ones as lists: torch's defaults hold for the rest."""
    return {
        field.name: value if isinstance(value, bool | int | float | str) else list(value)
        for field, value in message.ListFields()
        if field.name != "spatial_dims"
    }


def arguments(message: Any) -> dict[str, Any]:
    """As `given`, with torch's dtypes, and one value an axis where there are spatial axes."""
    found = given(message)
    if "dtype" in found:
        found["dtype"] = DTYPES[found["dtype"]]
    dims = getattr(message, "spatial_dims", 1)
    return {
        name: value * dims if isinstance(value, list) and len(value) == 1 else value for name, value in found.items()
    }


def plain(function: Call) -> Maker:
    """A function whose arguments are the message's fields."""
    return lambda message: partial(function, **arguments(message)) if message.ListFields() else function


def spatial(stem: str) -> Maker:
    """A function that has one form for each number of spatial axes."""

    def make(message: Any) -> Call:
        found = arguments(message)
        if "named_padding" in found:
            found["padding"] = {1: "valid", 2: "same"}[found.pop("named_padding")]
        if stem == "lp_pool" and message.spatial_dims == 1:  # which torch multiplies by
            found["kernel_size"] = found["kernel_size"][0]
        return partial(getattr(F, f"{stem}{message.spatial_dims}d"), **found)

    return make


def sliding(function: Call) -> Maker:
    """One over planes, for which a number stands for both axes."""
    return lambda message: partial(
        function, **{name: value[0] if len(value) == 1 else value for name, value in given(message).items()}
    )


def adaptive(stem: str) -> Maker:
    """Adaptive pooling, for which -1 keeps the input's extent."""

    def make(message: Any) -> Call:
        found = arguments(message)
        found["output_size"] = [None if extent == -1 else extent for extent in found["output_size"]]
        return partial(getattr(F, f"{stem}{message.spatial_dims}d"), **found)

    return make


def fractional(message: Any) -> Call:
    function = getattr(F, f"fractional_max_pool{message.spatial_dims}d")
    found = arguments(message)
    return lambda x, samples: function(x, _random_samples=samples, **found)


def along_axis(function: Call) -> Maker:
    """A kind of softmax; without an axis it takes torch's choice, which torch itself warns of."""

    def make(message: Any) -> Call:
        found = arguments(message)
        if "dim" in found:
            return partial(function, **found)
        return lambda x: function(x, dim=0 if x.ndim in (0, 1, 3) else 1, **found)

    return make


def bilinear(_message: Any) -> Call:
    return lambda x, input2, weight, bias=None: F.bilinear(x, input2, weight, bias)


def cosine_similarity(message: Any) -> Call:
    values = arguments(message)
    return lambda x, input2: F.cosine_similarity(x, input2, **values)


def batch_norm(message: Any) -> Call:
    found = arguments(message)
    if not found.pop("return_statistics", False):
        call = partial(_batch_norm, **found)
        return unchanging(call) if message.training else call
    return lambda x, **tensors: _with_statistics(x, tensors, found)


def _batch_norm(x: Any, running_mean: Any = None, running_var: Any = None, **rest: Any) -> Any:
    return F.batch_norm(x, running_mean, running_var, **rest)


def _with_statistics(x: torch.Tensor, tensors: Tensors, found: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
    copies = _copied_statistics(tensors)
    output = _batch_norm(x, **(tensors | copies), **found)
    values = x.transpose(0, 1).flatten(1).double()
    like = next(iter(tensors.values()), x).dtype
    return output, values.mean(1).to(like), values.var(1, correction=0).to(like), *copies.values()


def instance_norm(message: Any) -> Call:
    call = partial(F.instance_norm, **arguments(message))
    own = message.use_input_stats or not message.HasField("use_input_stats")
    return unchanging(call) if own else call


def unchanging(call: Call) -> Call:
    """The call on copies of running statistics, which torch updates in place where it normalises by others."""
    return lambda x, **tensors: call(x, **(tensors | _copied_statistics(tensors)))


def _copied_statistics(tensors: Tensors) -> Tensors:
    return {name: tensors[name].clone() for name in ("running_mean", "running_var") if name in tensors}


def upsample(message: Any) -> Call:
    found = given(message)
    mode = program_pb2.UpsampleMode.Name(found.pop("mode", 1)).removeprefix("UPSAMPLE_MODE_").lower().replace("_", "-")

    def run(x: torch.Tensor) -> Any:
        sizes = {name: found[name] for name in ("size", "scale_factor") if name in found}
        whole = {name: size * (x.ndim - 2) if len(size) == 1 else size for name, size in sizes.items()}
        return F.interpolate(x, mode=mode, **(found | whole))

    return run


def pad(message: Any) -> Call:
    mode = program_pb2.PadMode.Name(message.mode or 1).removeprefix("PAD_MODE_").lower()
    return partial(F.pad, pad=list(message.pad), mode=mode, value=message.value if mode == "constant" else None)


def mean(message: Any) -> Call:
    dims, keepdim = tuple(message.dims), message.keepdim
    return lambda x: x.mean(dims or tuple(range(x.ndim)), keepdim)


def reshape(message: Any) -> Call:
    return partial(torch.reshape, shape=tuple(message.shape))


def flatten(message: Any) -> Call:
    return partial(torch.flatten, **given(message))


def permute(message: Any) -> Call:
    return partial(torch.permute, dims=tuple(message.dims))


def narrow(message: Any) -> Call:
    return partial(torch.narrow, dim=message.dim, start=message.start, length=message.length)


def unchanged(_message: Any) -> Call:
    return lambda x: x


def alike(function: Call) -> Maker:
    """A function of two tensors of one dtype; torch itself would promote."""

    def make(message: Any) -> Call:
        found = given(message)

        def run(x: torch.Tensor, other: torch.Tensor) -> Any:
            if x.dtype != other.dtype:
                raise TypeError(f"operands of different dtypes, {x.dtype} and {other.dtype}")
            return function(x, other, **found)

        return run

    return make


# Functions of torch.nn.functional that take the message's fields as they are.
_PLAIN = [
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus",
    "softsign", "hardtanh", "hardsigmoid", "hardswish", "logsigmoid", "tanhshrink", "softshrink", "hardshrink",
    "threshold", "glu", "linear", "layer_norm", "group_norm", "rms_norm", "local_response_norm", "normalize",
]  # fmt: skip

CALLS: dict[str, Maker] = {  # field of the family's message -> maker
    **{name: plain(getattr(F, name)) for name in _PLAIN},
    **{name: along_axis(getattr(F, name)) for name in ("softmax", "softmin", "log_softmax")},
    **{name: spatial(name) for name in ("max_pool", "avg_pool", "lp_pool", "max_unpool", "conv", "conv_transpose")},
    **{name: adaptive(name) for name in ("adaptive_max_pool", "adaptive_avg_pool")},
    "fractional_max_pool": fractional,
    "unfold": sliding(F.unfold),
    "fold": sliding(F.fold),
    "tanh": plain(torch.tanh),
    "sigmoid": plain(torch.sigmoid),
    "bilinear": bilinear,
    "cosine_similarity": cosine_similarity,
    "conv_tbc": plain(torch.conv_tbc),
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "reshape": reshape,
    "flatten": flatten,
    "permute": permute,
    "add": alike(torch.add),
    "subtract": alike(torch.sub),
    "multiply": alike(torch.mul),
    "divide": alike(torch.div),
    "matmul": alike(torch.matmul),
    "mean": mean,
    "pad": pad,
    "upsample": upsample,
    "channel_shuffle": plain(F.channel_shuffle),
    "dropout": unchanged,
    "identity": unchanged,
    "narrow": narrow,
}
