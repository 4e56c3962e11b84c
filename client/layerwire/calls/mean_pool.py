"""Turns calls of the pools that take means into Requests: average, adaptive average, power mean.

It knows their messages; neither channels nor torch.
"""

from __future__ import annotations

from typing import SupportsFloat, SupportsIndex

from layerwire.calls.arguments import OptionalSize, Size, flag, integer, kept_sizes, number, sizes, step
from layerwire.calls.request import Answer_co, Family, Request, TensorLike
from layerwire.v1 import operators_pb2 as messages


class MeanPoolCalls(Family[Answer_co]):
    """avg_pool1d to 3d, adaptive_avg_pool1d to 3d, lp_pool1d to 3d."""

    def avg_pool1d(
        self,
        input: TensorLike,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Mean over windows; `stride` None is `kernel_size`.

        Shape: [N, C, L] or [C, L] -> [N, C, L'] or [C, L'],
        L' = (L + 2 padding - kernel_size) / stride + 1
        """
        return self._avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None, timeout)

    def avg_pool2d(
        self,
        input: TensorLike,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: SupportsIndex | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Mean over windows; `stride` None is `kernel_size`, `divisor_override` None the window's size.

        Shape: [N, C, H, W] or [C, H, W] -> [N, C, H', W'] or [C, H', W']
        """
        return self._avg_pool(
            2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, timeout
        )

    def avg_pool3d(
        self,
        input: TensorLike,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: SupportsIndex | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Mean over windows; `stride` None is `kernel_size`, `divisor_override` None the window's size.

        Shape: [N, C, D, H, W] or [C, D, H, W] -> [N, C, D', H', W'] or [C, D', H', W']
        """
        return self._avg_pool(
            3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, timeout
        )

    def adaptive_avg_pool1d(
        self,
        input: TensorLike,
        output_size: OptionalSize,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Mean over windows chosen for `output_size`; 1 is global pooling, None keeps the input's extent.

        Shape: [N, C, L] or [C, L] -> [N, C, L'] or [C, L']
        """
        return self._adaptive_avg_pool(1, input, output_size, timeout)

    def adaptive_avg_pool2d(
        self,
        input: TensorLike,
        output_size: OptionalSize,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Mean over windows chosen for `output_size`; 1 is global pooling, None keeps the input's extent.

        Shape: [N, C, H, W] or [C, H, W] -> [N, C, H', W'] or [C, H', W']
        """
        return self._adaptive_avg_pool(2, input, output_size, timeout)

    def adaptive_avg_pool3d(
        self,
        input: TensorLike,
        output_size: OptionalSize,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Mean over windows chosen for `output_size`; 1 is global pooling, None keeps the input's extent.

        Shape: [N, C, D, H, W] or [C, D, H, W] -> [N, C, D', H', W'] or [C, D', H', W']
        """
        return self._adaptive_avg_pool(3, input, output_size, timeout)

    def lp_pool1d(
        self,
        input: TensorLike,
        norm_type: SupportsFloat,
        kernel_size: Size,
        stride: Size | None = None,
        ceil_mode: bool = False,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Power mean over windows, (sum x^p)^(1/p) with p = `norm_type`; `stride` None is `kernel_size`.

        Shape: [N, C, L] or [C, L] -> [N, C, L'] or [C, L']
        """
        return self._lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode, timeout)

    def lp_pool2d(
        self,
        input: TensorLike,
        norm_type: SupportsFloat,
        kernel_size: Size,
        stride: Size | None = None,
        ceil_mode: bool = False,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Power mean over windows, (sum x^p)^(1/p) with p = `norm_type`; `stride` None is `kernel_size`.

        Shape: [N, C, H, W] or [C, H, W] -> [N, C, H', W'] or [C, H', W']
        """
        return self._lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode, timeout)

    def lp_pool3d(
        self,
        input: TensorLike,
        norm_type: SupportsFloat,
        kernel_size: Size,
        stride: Size | None = None,
        ceil_mode: bool = False,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Power mean over windows, (sum x^p)^(1/p) with p = `norm_type`; `stride` None is `kernel_size`.

        Shape: [N, C, D, H, W] or [C, D, H, W] -> [N, C, D', H', W'] or [C, D', H', W']
        """
        return self._lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode, timeout)

    def _avg_pool(
        self,
        spatial_dims: int,
        input: TensorLike,
        kernel_size: Size,
        stride: Size | None,
        padding: Size,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: SupportsIndex | None,
        timeout: float | None,
    ) -> Answer_co:
        function = f"avg_pool{spatial_dims}d"
        pool = messages.AvgPool(
            spatial_dims=spatial_dims,
            kernel_size=sizes(function, "kernel_size", kernel_size),
            stride=step(function, "stride", stride),
            padding=sizes(function, "padding", padding),
            ceil_mode=flag(function, "ceil_mode", ceil_mode),
            count_include_pad=flag(function, "count_include_pad", count_include_pad),
        )
        if divisor_override is not None:
            pool.divisor_override = integer(function, "divisor_override", divisor_override)
        operator = messages.PoolOperator(avg_pool=pool)
        return self.call(Request("pool", operator, {"input": input}, ("output",), function, timeout))

    def _adaptive_avg_pool(
        self, spatial_dims: int, input: TensorLike, output_size: OptionalSize, timeout: float | None
    ) -> Answer_co:
        function = f"adaptive_avg_pool{spatial_dims}d"
        extents = kept_sizes(function, "output_size", output_size)
        pool = messages.AdaptiveAvgPool(spatial_dims=spatial_dims, output_size=extents)
        operator = messages.PoolOperator(adaptive_avg_pool=pool)
        return self.call(Request("pool", operator, {"input": input}, ("output",), function, timeout))

    def _lp_pool(
        self,
        spatial_dims: int,
        input: TensorLike,
        norm_type: SupportsFloat,
        kernel_size: Size,
        stride: Size | None,
        ceil_mode: bool,
        timeout: float | None,
    ) -> Answer_co:
        function = f"lp_pool{spatial_dims}d"
        pool = messages.LpPool(
            spatial_dims=spatial_dims,
            norm_type=number(function, "norm_type", norm_type),
            kernel_size=sizes(function, "kernel_size", kernel_size),
            stride=step(function, "stride", stride),
            ceil_mode=flag(function, "ceil_mode", ceil_mode),
        )
        operator = messages.PoolOperator(lp_pool=pool)
        return self.call(Request("pool", operator, {"input": input}, ("output",), function, timeout))
