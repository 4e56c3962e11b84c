"""Runs a program with plain torch.nn.functional: the oracle for what exports it and for what serves it.

It knows messages and torch; no code of the server and none that makes programs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from layerwire.v1 import program_pb2

DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.float16,
    4: torch.bfloat16,
    5: torch.int8,
    6: torch.int16,
    7: torch.int32,
    8: torch.int64,
    9: torch.uint8,
    10: torch.bool,
}


def run(program, inputs, weights=None, intermediates=()):
    """The outputs by name, and the intermediates by their values' names.

    `inputs` are tensors by name; `weights` those of stored constants by key.
    """
    values = dict(inputs)
    assert set(values) == {one.name for one in program.inputs}
    for constant in program.constants:
        values[constant.name] = _constant(constant, weights or {})
    waiting = list(program.nodes)
    while waiting:
        ready = [node for node in waiting if all(one.value in values for one in node.inputs)]
        assert ready, f"nodes wait for each other or for what is not there: {[node.name for node in waiting]}"
        for node in ready:
            for field, value in _node(node, values).items():
                values[f"{node.name}.{field}"] = value
                if field == "output":
                    values[node.name] = value
        waiting = [node for node in waiting if node.name not in values]
    found = {output.name: values[output.value] for output in program.outputs}
    return found | {name: values[name] for name in intermediates}


def _constant(constant, weights):
    if constant.WhichOneof("content") == "stored":
        return weights[constant.stored.key]
    tensor = constant.tensor
    data = bytearray(tensor.data)
    flat = torch.frombuffer(data, dtype=DTYPES[tensor.dtype]) if data else torch.empty(0, dtype=DTYPES[tensor.dtype])
    return flat.reshape(tuple(tensor.shape))


def _node(node, values):
    family = node.WhichOneof("operator")
    union = getattr(node, family)
    name = union.WhichOneof("operator")
    inputs: dict[str, list] = {}
    for one in node.inputs:
        inputs.setdefault(one.field, []).append(values[one.value])
    message = getattr(union, name)
    if name == "concatenate":
        return {"output": torch.cat(inputs["input"], given(message).get("dim", 0))}
    assert all(len(several) == 1 for several in inputs.values())
    found = FUNCTIONS[name](message, **{field: several[0] for field, several in inputs.items()})
    if isinstance(found, tuple):
        return dict(zip(("output", "indices"), found, strict=True))
    return {"output": found}


def given(message):
    """The fields that are set, repeated ones as lists: torch's defaults hold for the rest."""
    return {
        field.name: list(value) if isinstance(value, (list, tuple)) or hasattr(value, "append") else value
        for field, value in message.ListFields()
    }


def arguments(message):
    """As given, without what torch's functions have no argument for, and with torch's dtypes."""
    found = given(message)
    found.pop("spatial_dims", None)
    if "dtype" in found:
        found["dtype"] = DTYPES[found["dtype"]]
    return found


def spatial(stem):
    """A function that has one form for each number of spatial axes, with one value an axis."""

    def run_one(message, **inputs):
        dims = message.spatial_dims
        found = arguments(message)
        for name, value in found.items():
            if isinstance(value, list):
                found[name] = value * dims if len(value) == 1 else value
        if "named_padding" in found:
            found["padding"] = {1: "valid", 2: "same"}[found.pop("named_padding")]
        return getattr(F, f"{stem}{dims}d")(*in_order(inputs), **found)

    return run_one


def in_order(inputs):
    """Tensors as torch's functions take them by position, None for one left out before others."""
    order = ("input", "input2", "indices", "weight", "bias")
    assert set(inputs) <= set(order)
    last = max(order.index(name) for name in inputs)
    optional = [name for name in order[: last + 1] if name in inputs or (name == "weight" and "bias" in inputs)]
    return [inputs.get(name) for name in optional]


def plain(function):
    """A function whose arguments are the message's fields."""
    return lambda message, **inputs: function(*in_order(inputs), **arguments(message))


def norm(function):
    """One whose scale and shift are arguments by name."""

    def run_one(message, input, **inputs):
        return function(input, **inputs, **arguments(message))

    return run_one


def max_unpool(message, input, indices):
    found = arguments(message)
    size = found.pop("output_size", None)
    found = {name: value * message.spatial_dims if len(value) == 1 else value for name, value in found.items()}
    return getattr(F, f"max_unpool{message.spatial_dims}d")(input, indices, output_size=size, **found)


def adaptive(stem):
    def run_one(message, input):
        size = [None if extent == -1 else extent for extent in message.output_size]
        size = size * message.spatial_dims if len(size) == 1 else size
        options = {"return_indices": True} if getattr(message, "return_indices", False) else {}
        return getattr(F, f"{stem}{message.spatial_dims}d")(input, size, **options)

    return run_one


def batch_norm(message, input, running_mean=None, running_var=None, weight=None, bias=None):
    assert message.training or running_mean is not None
    return F.batch_norm(input, running_mean, running_var, weight, bias, **arguments(message))


def upsample(message, input):
    found = given(message)
    mode = program_pb2.UpsampleMode.Name(found.pop("mode", 1)).removeprefix("UPSAMPLE_MODE_").lower()
    for name in ("size", "scale_factor"):
        if name in found:
            found[name] = found[name] * (input.ndim - 2) if len(found[name]) == 1 else found[name]
    return F.interpolate(input, mode=mode.replace("_", "-"), **found)


def pad(message, input):
    mode = program_pb2.PadMode.Name(message.mode or 1).removeprefix("PAD_MODE_").lower()
    return F.pad(input, list(message.pad), mode, message.value if mode == "constant" else None)


def mean(message, input):
    return input.mean(tuple(message.dims) or tuple(range(input.ndim)), message.keepdim)


def reshape(message, input):
    return input.reshape(tuple(message.shape))


def flatten(message, input):
    return input.flatten(**given(message))


def permute(message, input):
    return input.permute(tuple(message.dims))


def channel_shuffle(message, input):
    return F.channel_shuffle(input, message.groups)


def narrow(message, input):
    return input.narrow(message.dim, message.start, message.length)


def unchanged(message, input):
    return input


def scaled(function):
    def run_one(message, input, other):
        assert input.dtype == other.dtype, "operands of different dtypes"
        return function(input, other, **given(message))

    return run_one


def equal(function):
    def run_one(message, input, other):
        assert input.dtype == other.dtype, "operands of different dtypes"
        return function(input, other)

    return run_one


ACTIVATIONS = [
    "relu",
    "relu6",
    "leaky_relu",
    "rrelu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "mish",
    "softplus",
    "softsign",
    "hardtanh",
    "hardsigmoid",
    "hardswish",
    "tanhshrink",
    "softshrink",
    "hardshrink",
    "threshold",
    "glu",
    "softmax",
    "softmin",
    "log_softmax",
    "prelu",
]
FUNCTIONS = {
    **{name: plain(getattr(F, name)) for name in ACTIVATIONS},
    "logsigmoid": plain(F.logsigmoid),
    "tanh": plain(torch.tanh),
    "sigmoid": plain(torch.sigmoid),
    "max_pool": spatial("max_pool"),
    "avg_pool": spatial("avg_pool"),
    "lp_pool": spatial("lp_pool"),
    "adaptive_max_pool": adaptive("adaptive_max_pool"),
    "adaptive_avg_pool": adaptive("adaptive_avg_pool"),
    "max_unpool": max_unpool,
    "linear": plain(F.linear),
    "bilinear": plain(F.bilinear),
    "conv": spatial("conv"),
    "conv_transpose": spatial("conv_transpose"),
    "conv_tbc": plain(torch.conv_tbc),
    "unfold": plain(F.unfold),
    "fold": plain(F.fold),
    "batch_norm": batch_norm,
    "layer_norm": norm(F.layer_norm),
    "group_norm": norm(F.group_norm),
    "instance_norm": norm(F.instance_norm),
    "rms_norm": norm(F.rms_norm),
    "local_response_norm": norm(F.local_response_norm),
    "normalize": norm(F.normalize),
    "reshape": reshape,
    "flatten": flatten,
    "permute": permute,
    "add": scaled(torch.add),
    "subtract": scaled(torch.sub),
    "multiply": equal(torch.mul),
    "divide": equal(torch.div),
    "matmul": equal(torch.matmul),
    "mean": mean,
    "pad": pad,
    "upsample": upsample,
    "channel_shuffle": channel_shuffle,
    "dropout": unchanged,
    "identity": unchanged,
    "narrow": narrow,
}
