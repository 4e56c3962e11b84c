"""What torch's views, copies, slices and joins become.

It knows their schemas and messages; neither tracing nor naming.
"""

from __future__ import annotations

from collections.abc import Sequence

from layerwire.export.graph import Size, Value
from layerwire.export.refusal import LoweringError
from layerwire.export.traced_call import Lowering, TracedCall, shape_of
from layerwire.v1 import program_pb2

_PAD_MODES = {
    "constant": program_pb2.PAD_MODE_CONSTANT,
    "reflect": program_pb2.PAD_MODE_REFLECT,
    "replicate": program_pb2.PAD_MODE_REPLICATE,
    "circular": program_pb2.PAD_MODE_CIRCULAR,
}


def _free(shape: Sequence[Size]) -> list[int]:
    """The shape with -1 for the one size that follows the batch."""
    if sum(isinstance(size, str) for size in shape) > 1:
        raise LoweringError("two axes of the result depend on the batch size")
    return [size if isinstance(size, int) else -1 for size in shape]


def _reshape(call: TracedCall, value: Value, shape: Sequence[Size]) -> Value:
    if tuple(shape) == value.shape:
        return value
    return call.transform(value, shape=shape, reshape={"shape": _free(shape)})


def _view(call: TracedCall) -> Value:
    return _reshape(call, call.value("self"), call.shape)


def _flatten(call: TracedCall) -> Value:
    return call.transform(call.value("self"), flatten={"start_dim": call["start_dim"], "end_dim": call["end_dim"]})


def _same(call: TracedCall) -> Value:
    value = call.value("self" if "self" in call.arguments else "input")
    if value.dtype != call.dtype:
        raise LoweringError("a change of dtype")
    return value


def _dropout(call: TracedCall) -> Value:
    if call.get("train", False):
        raise LoweringError("dropout in training")
    return call.transform(_same(call), dropout={"p": float(call["p"])})


def _copy(call: TracedCall) -> Value:
    """In evaluation torch turns a dropout into a copy; the module still tells."""
    if type(call.module).__module__ == "torch.nn.modules.dropout":
        return call.transform(_same(call), dropout={"p": float(call.module.p)})
    return _same(call)


def _permute(call: TracedCall) -> Value:
    return _permute_axes(call, call.sizes("dims"))


def _permute_axes(call: TracedCall, dims: Sequence[int]) -> Value:
    return call.transform(call.value("self"), permute={"dims": dims})


def _transpose(call: TracedCall) -> Value:
    ndim = len(call.shape)
    first, second = ("dim0", "dim1") if "dim0" in call.arguments else ("axis0", "axis1")
    dims = list(range(ndim))
    a, b = call.axis(first, ndim), call.axis(second, ndim)
    dims[a], dims[b] = b, a
    return _permute_axes(call, dims)


def _reverse(call: TracedCall) -> Value:
    return _permute_axes(call, range(len(call.shape))[::-1])


def _pixel_shuffle(call: TracedCall) -> Value:
    factor = call["upscale_factor"]
    *outer, channels, height, width = call.value("self").shape
    n = len(outer)
    if not isinstance(channels, int):
        raise LoweringError("channels depend on the batch size")
    split = [*outer, channels // factor**2, factor, factor, height, width]
    return _shuffle_blocks(call, split, [*range(n + 1), n + 3, n + 1, n + 4, n + 2])


def _pixel_unshuffle(call: TracedCall) -> Value:
    factor = call["downscale_factor"]
    *outer, _, height, width = call.shape
    n = len(outer)
    split = [*outer, call.value("self").shape[n], height, factor, width, factor]
    return _shuffle_blocks(call, split, [*range(n + 1), n + 2, n + 4, n + 1, n + 3])


def _shuffle_blocks(call: TracedCall, split: Sequence[Size], dims: Sequence[int]) -> Value:
    value = _reshape(call, call.value("self"), split)
    value = call.transform(value, shape=[split[dim] for dim in dims], permute={"dims": dims})
    return _reshape(call, value, call.shape)


def _channel_shuffle(call: TracedCall) -> Value:
    return call.transform(call.value("self"), channel_shuffle={"groups": call["groups"]})


def _expand(call: TracedCall) -> Value:
    value = call.value("self")
    if value.shape != call.shape and not (call.broadcasts and len(value.shape) == len(call.shape)):
        raise LoweringError("copies along an axis, but for an operand of add, sub, mul and div")
    return value


def _repeat(call: TracedCall) -> Value:
    value, repeats = call.value("self"), call.sizes("repeats")
    ndim = len(repeats)
    value = _reshape(call, value, (1,) * (ndim - len(value.shape)) + value.shape)
    for dim, count in enumerate(repeats):
        if not 1 <= count <= 64:
            raise LoweringError("repeats are 1 to 64")
        if count > 1:
            shape = [*value.shape]
            shape[dim] = call.shape[dim]
            value = call.transform([value] * count, shape=shape, concatenate={"dim": dim})
    return value


def _cat(call: TracedCall) -> Value:
    return _concatenate(call, call["tensors"])


def _concatenate(call: TracedCall, values: Sequence[Value]) -> Value:
    if len(values) > 64:
        raise LoweringError(f"{len(values)} tensors joined, at most 64")
    if any(value.dtype != call.dtype for value in values):
        raise LoweringError("tensors of different dtypes")
    if len(values) == 1:
        return values[0]
    return call.transform(values, concatenate={"dim": call.axis("dim", len(call.shape))})


def _stack(call: TracedCall) -> Value:
    dim = call.axis("dim", len(call.shape))
    one = (*call.shape[:dim], 1, *call.shape[dim + 1 :])
    return _concatenate(call, [_reshape(call, value, one) for value in call["tensors"]])


def _narrow(call: TracedCall, dim: int, start: int, length: Size) -> Value:
    value = call.value("self")
    if length == value.shape[dim]:
        return value
    if isinstance(length, str) or isinstance(value.shape[dim], str):
        raise LoweringError("a piece along the batch axis")
    shape = (*value.shape[:dim], length, *value.shape[dim + 1 :])
    return call.transform(value, shape=shape, narrow={"dim": dim, "start": start, "length": length})


def _slice(call: TracedCall) -> Value:
    value = call.value("self")
    dim = call.axis("dim", len(value.shape))
    if call["step"] != 1:
        raise LoweringError("a step other than 1")
    extent, start = value.shape[dim], call.get("start", 0)
    if not isinstance(start, int):
        raise LoweringError("start depends on the batch size")
    if isinstance(extent, int):
        start = max(0, start + extent) if start < 0 else min(start, extent)
    return _narrow(call, dim, start, call.shape[dim])


def _select(call: TracedCall) -> Value:
    dim = call.axis("dim", len(call.value("self").shape))
    return _reshape(call, _narrow(call, dim, call.sizes("index")[0], 1), call.shape)


def _pieces(call: TracedCall) -> list[Value | None]:
    """split, chunk and unbind: results lie one behind the other."""
    dim, start = call.axis("dim", len(call.value("self").shape)), 0
    pieces: list[Value | None] = []
    for position, result in enumerate(call.results):
        shape = shape_of(result)
        length = shape[dim] if len(shape) == len(call.value("self").shape) else 1
        if isinstance(length, str):
            raise LoweringError("pieces along the batch axis")
        piece = _narrow(call, dim, start, length) if position in call.used_results else None
        pieces.append(piece and _reshape(call, piece, shape))
        start += length
    return pieces


def _pad(call: TracedCall) -> Value:
    mode = _PAD_MODES[call.get("mode", "constant")]
    return call.transform(
        call.value("self"), pad={"pad": call.sizes("pad"), "mode": mode, "value": call.get("value", 0)}
    )


def _pad_by(mode: str) -> Lowering:
    def lower(call: TracedCall) -> Value:
        pad = {"pad": call.sizes("padding"), "mode": _PAD_MODES[mode]}
        return call.transform(call.value("self"), pad=pad)

    return lower


_VIEWS = (
    "view.default", "_unsafe_view.default", "reshape.default", "view_as.default", "unflatten.int", "unsqueeze.default",
    "squeeze.default", "squeeze.dim", "squeeze.dims",
)  # fmt: skip
_COPIES = ("clone.default", "contiguous.default", "detach.default", "alias.default", "lift_fresh_copy.default")
_CASTS = ("_to_copy.default", "to.dtype", "to.device", "to.other", "to.dtype_layout", "type_as.default")

ARRANGEMENTS: dict[str, Lowering] = {
    **{f"aten.{name}": _view for name in _VIEWS},
    **{f"aten.{name}": _copy for name in _COPIES},
    **{f"aten.{name}": _same for name in _CASTS},
    **{f"aten.{name}.default": _dropout for name in ("dropout", "feature_dropout", "alpha_dropout")},
    **{
        f"aten.{name}d.default": _pad_by("reflect")
        for name in ("reflection_pad1", "reflection_pad2", "reflection_pad3")
    },
    **{f"aten.replication_pad{dims}d.default": _pad_by("replicate") for dims in (1, 2, 3)},
    "aten.pad.default": _pad,
    "aten.constant_pad_nd.default": _pad,
    "aten.flatten.using_ints": _flatten,
    "aten.permute.default": _permute,
    "aten.transpose.int": _transpose,
    "aten.swapaxes.default": _transpose,
    "aten.t.default": _reverse,
    "aten.numpy_T.default": _reverse,
    "aten.pixel_shuffle.default": _pixel_shuffle,
    "aten.pixel_unshuffle.default": _pixel_unshuffle,
    "aten.channel_shuffle.default": _channel_shuffle,
    "aten.native_channel_shuffle.default": _channel_shuffle,
    "aten.expand.default": _expand,
    "aten.expand_as.default": _expand,
    "aten.repeat.default": _repeat,
    "aten.cat.default": _cat,
    "aten.stack.default": _stack,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.split.Tensor": _pieces,
    "aten.split_with_sizes.default": _pieces,
    "aten.chunk.default": _pieces,
    "aten.tensor_split.sections": _pieces,
    "aten.unbind.int": _pieces,
}
