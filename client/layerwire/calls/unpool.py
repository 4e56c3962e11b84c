"""Turns calls of the unpooling functions of torch.nn.functional into Requests.

It knows their messages; neither channels nor torch.
"""

from __future__ import annotations

from layerwire.calls.arguments import Size, sizes, step
from layerwire.calls.request import Answer_co, Family, Request, TensorLike
from layerwire.errors import invalid
from layerwire.v1 import operators_pb2 as messages


class UnpoolCalls(Family[Answer_co]):
    """max_unpool1d, max_unpool2d, max_unpool3d."""

    def max_unpool1d(
        self,
        input: TensorLike,
        indices: TensorLike,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        output_size: Size | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Puts each value back where max_pool1d took it, zero elsewhere; `indices` are those that it returned.

        Shape: [N, C, L] or [C, L] -> the same with L' = output_size, default (L - 1) stride - 2 padding + kernel_size.
        """
        return self._max_unpool(1, input, indices, kernel_size, stride, padding, output_size, timeout)

    def max_unpool2d(
        self,
        input: TensorLike,
        indices: TensorLike,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        output_size: Size | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Puts each value back where max_pool2d took it, zero elsewhere; `indices` are those that it returned.

        Shape: [N, C, H, W] or [C, H, W] -> the same with H', W' = output_size, defaults as for max_unpool1d.
        """
        return self._max_unpool(2, input, indices, kernel_size, stride, padding, output_size, timeout)

    def max_unpool3d(
        self,
        input: TensorLike,
        indices: TensorLike,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        output_size: Size | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Puts each value back where max_pool3d took it, zero elsewhere; `indices` are those that it returned.

        Shape: [N, C, D, H, W] or [C, D, H, W] -> the same with D', H', W' = output_size, defaults as for max_unpool1d.
        """
        return self._max_unpool(3, input, indices, kernel_size, stride, padding, output_size, timeout)

    def _max_unpool(
        self,
        spatial_dims: int,
        input: TensorLike,
        indices: TensorLike,
        kernel_size: Size,
        stride: Size | None,
        padding: Size,
        output_size: Size | None,
        timeout: float | None,
    ) -> Answer_co:
        function = f"max_unpool{spatial_dims}d"
        extents = step(function, "output_size", output_size)
        if len(extents) == spatial_dims + 2:  # torch takes the whole output shape too
            planes = tuple(getattr(input, "shape", extents))[:-spatial_dims]
            if planes != tuple(extents[:2]):  # torch takes any numbers there in silence
                raise invalid(function, "output_size", f"must begin with input's {list(planes)}, got {extents}")
            extents = extents[2:]
        unpool = messages.MaxUnpool(
            spatial_dims=spatial_dims,
            kernel_size=sizes(function, "kernel_size", kernel_size),
            stride=step(function, "stride", stride),
            padding=sizes(function, "padding", padding),
            output_size=extents,
        )
        operator = messages.UnpoolOperator(max_unpool=unpool)
        tensors = {"input": input, "indices": indices}
        return self.call(Request("unpool", operator, tensors, ("output",), function, timeout))
