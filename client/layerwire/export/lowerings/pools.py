"""What torch's pools, unpools and upsamplings become.

It knows their schemas and messages; neither tracing nor naming.
"""

from __future__ import annotations

from collections.abc import Sequence

from layerwire.export.graph import Value
from layerwire.export.refusal import LoweringError
from layerwire.export.traced_call import Lowering, Outputs, TracedCall
from layerwire.v1 import operators_pb2 as messages
from layerwire.v1 import program_pb2


def _max_pool(dims: int) -> Lowering:
    def lower(call: TracedCall) -> Outputs:
        pool = messages.MaxPool(
            spatial_dims=dims,
            kernel_size=call.sizes("kernel_size"),
            stride=call.sizes("stride"),
            padding=call.sizes("padding"),
            dilation=call.sizes("dilation"),
            ceil_mode=call["ceil_mode"],
            return_indices=1 in call.used_results,
        )
        return _pool(call, messages.PoolOperator(max_pool=pool))

    return lower


def _adaptive_max_pool(dims: int) -> Lowering:
    def lower(call: TracedCall) -> Outputs:
        size = call.sizes("output_size")
        pool = messages.AdaptiveMaxPool(spatial_dims=dims, output_size=size, return_indices=1 in call.used_results)
        return _pool(call, messages.PoolOperator(adaptive_max_pool=pool))

    return lower


def _pool(call: TracedCall, operator: messages.PoolOperator) -> Outputs:
    outputs = ("output", "indices") if 1 in call.used_results else ("output",)
    outputs_of_pool = call.emit_all(operator, outputs, input=call.value("self"))
    return [*outputs_of_pool] if len(call.results) > 1 else outputs_of_pool[0]


def _avg_pool(dims: int) -> Lowering:
    def lower(call: TracedCall) -> Value:
        pool = messages.AvgPool(
            spatial_dims=dims,
            kernel_size=call.sizes("kernel_size"),
            stride=call.sizes("stride"),
            padding=call.sizes("padding"),
            ceil_mode=call["ceil_mode"],
            count_include_pad=call["count_include_pad"],
            divisor_override=call.get("divisor_override"),
        )
        return call.emit(messages.PoolOperator(avg_pool=pool), input=call.value("self"))

    return lower


def _adaptive_avg_pool(dims: int) -> Lowering:
    def lower(call: TracedCall) -> Value:
        pool = messages.AdaptiveAvgPool(spatial_dims=dims, output_size=call.sizes("output_size"))
        return call.emit(messages.PoolOperator(adaptive_avg_pool=pool), input=call.value("self"))

    return lower


def _max_unpool(dims: int) -> Lowering:
    """The traced call has the output's size only; the operator also wants a window that leads there."""

    def lower(call: TracedCall) -> Value:
        value, size = call.value("self"), call.sizes("output_size")
        extents = [extent for extent in value.shape[-dims:] if isinstance(extent, int)]
        if len(extents) < dims:
            raise LoweringError("a spatial size depends on the batch size")
        kernel_size, stride, padding = _window(call, dims, extents, size)
        unpool = messages.MaxUnpool(
            spatial_dims=dims, kernel_size=kernel_size, stride=stride, padding=padding, output_size=size
        )
        operator = messages.UnpoolOperator(max_unpool=unpool)
        return call.emit(operator, input=value, indices=call.value("indices"))

    return lower


def _window(
    call: TracedCall, dims: int, extents: Sequence[int], size: Sequence[int]
) -> tuple[list[int], list[int], list[int]]:
    """The module's own window where there is one, else the largest stride that ends at the output's size."""
    module = call.module
    if type(module).__name__ == f"MaxUnpool{dims}d":
        sizes = (module.kernel_size, module.stride, module.padding)
        kernel_size, stride, padding = ([*x] if isinstance(x, tuple) else [x] * dims for x in sizes)
        return kernel_size, stride, padding
    if any(want < extent for extent, want in zip(extents, size, strict=True)):
        raise LoweringError("the output is smaller than the input")
    stride = [want // extent for extent, want in zip(extents, size, strict=True)]
    kernel_size = [want - (extent - 1) * step for extent, want, step in zip(extents, size, stride, strict=True)]
    return kernel_size, stride, [0] * dims


def _upsample(mode: program_pb2.UpsampleMode, antialias: bool = False) -> Lowering:
    def lower(call: TracedCall) -> Value:
        size = call.sizes("output_size") if call.get("output_size") is not None else []
        factors = [float(factor) for factor in call.get("scale_factors", []) if not size]
        upsample = program_pb2.Upsample(size=size, scale_factor=factors, mode=mode, antialias=antialias)
        if "align_corners" in call.arguments:
            upsample.align_corners = call["align_corners"]
        return call.transform(call.value("input"), upsample=upsample)

    return lower


POOLS: dict[str, Lowering] = {
    **{f"aten.max_pool{dims}d{kind}.default": _max_pool(dims) for dims in (1, 2, 3) for kind in ("", "_with_indices")},
    **{f"aten.adaptive_max_pool{dims}d.default": _adaptive_max_pool(dims) for dims in (1, 2, 3)},
    **{f"aten.avg_pool{dims}d.default": _avg_pool(dims) for dims in (1, 2, 3)},
    **{f"aten.adaptive_avg_pool{dims}d.default": _adaptive_avg_pool(dims) for dims in (1, 2, 3)},
    **{f"aten._adaptive_avg_pool{dims}d.default": _adaptive_avg_pool(dims) for dims in (2, 3)},
    **{f"aten.max_unpool{dims}d.default": _max_unpool(dims) for dims in (2, 3)},
    **{f"aten.upsample_nearest{dims}d.vec": _upsample(program_pb2.UPSAMPLE_MODE_NEAREST) for dims in (1, 2, 3)},
    **{
        f"aten._upsample_nearest_exact{dims}d.vec": _upsample(program_pb2.UPSAMPLE_MODE_NEAREST_EXACT)
        for dims in (1, 2, 3)
    },
    "aten.upsample_linear1d.vec": _upsample(program_pb2.UPSAMPLE_MODE_LINEAR),
    "aten.upsample_bilinear2d.vec": _upsample(program_pb2.UPSAMPLE_MODE_BILINEAR),
    "aten.upsample_bicubic2d.vec": _upsample(program_pb2.UPSAMPLE_MODE_BICUBIC),
    "aten.upsample_trilinear3d.vec": _upsample(program_pb2.UPSAMPLE_MODE_TRILINEAR),
    "aten._upsample_bilinear2d_aa.vec": _upsample(program_pb2.UPSAMPLE_MODE_BILINEAR, antialias=True),
    "aten._upsample_bicubic2d_aa.vec": _upsample(program_pb2.UPSAMPLE_MODE_BICUBIC, antialias=True),
}
