"""Turns calls of the max pools of torch.nn.functional into Requests: plain, adaptive, fractional.

It knows their messages; neither channels nor torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsFloat

from layerwire.calls.arguments import OptionalSize, Size, flag, kept_sizes, ratios, sizes, step
from layerwire.calls.request import Answer_co, Family, Request, TensorLike, tensors_by_field
from layerwire.v1 import operators_pb2 as messages

_WITH_INDICES = {False: ("output",), True: ("output", "indices")}


class MaxPoolCalls(Family[Answer_co]):
    """max_pool1d to 3d, adaptive_max_pool1d to 3d, fractional_max_pool2d and 3d.

    With `return_indices` the answer is a tuple of values and int64 positions of the maxima in their input plane.
    """

    def max_pool1d(
        self,
        input: TensorLike,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Maximum over windows; `stride` None is `kernel_size`.

        Shape: [N, C, L] or [C, L] -> [N, C, L'] or [C, L'],
        L' = (L + 2 padding - dilation (kernel_size - 1) - 1) / stride + 1
        """
        return self._max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, timeout)

    def max_pool2d(
        self,
        input: TensorLike,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Maximum over windows; `stride` None is `kernel_size`.

        Shape: [N, C, H, W] or [C, H, W] -> [N, C, H', W'] or [C, H', W']
        """
        return self._max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, timeout)

    def max_pool3d(
        self,
        input: TensorLike,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Maximum over windows; `stride` None is `kernel_size`.

        Shape: [N, C, D, H, W] or [C, D, H, W] -> [N, C, D', H', W'] or [C, D', H', W']
        """
        return self._max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, timeout)

    def adaptive_max_pool1d(
        self,
        input: TensorLike,
        output_size: OptionalSize,
        return_indices: bool = False,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Maximum over windows chosen for `output_size`; 1 is global pooling, None keeps the input's extent.

        Shape: [N, C, L] or [C, L] -> [N, C, L'] or [C, L']
        """
        return self._adaptive_max_pool(1, input, output_size, return_indices, timeout)

    def adaptive_max_pool2d(
        self,
        input: TensorLike,
        output_size: OptionalSize,
        return_indices: bool = False,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Maximum over windows chosen for `output_size`; 1 is global pooling, None keeps the input's extent.

        Shape: [N, C, H, W] or [C, H, W] -> [N, C, H', W'] or [C, H', W']
        """
        return self._adaptive_max_pool(2, input, output_size, return_indices, timeout)

    def adaptive_max_pool3d(
        self,
        input: TensorLike,
        output_size: OptionalSize,
        return_indices: bool = False,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Maximum over windows chosen for `output_size`; 1 is global pooling, None keeps the input's extent.

        Shape: [N, C, D, H, W] or [C, D, H, W] -> [N, C, D', H', W'] or [C, D', H', W']
        """
        return self._adaptive_max_pool(3, input, output_size, return_indices, timeout)

    def fractional_max_pool2d(
        self,
        input: TensorLike,
        kernel_size: Size,
        output_size: Size | None = None,
        output_ratio: SupportsFloat | Sequence[SupportsFloat] | None = None,
        return_indices: bool = False,
        _random_samples: TensorLike | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Maximum over windows of uneven steps, which `_random_samples` [N, C, 2] in [0, 1) decide; required here.

        Exactly one of `output_size` and `output_ratio` is required.

        Shape: [N, C, H, W] or [C, H, W] -> [N, C, H', W'] or [C, H', W']
        """
        return self._fractional_max_pool(
            2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples, timeout
        )

    def fractional_max_pool3d(
        self,
        input: TensorLike,
        kernel_size: Size,
        output_size: Size | None = None,
        output_ratio: SupportsFloat | Sequence[SupportsFloat] | None = None,
        return_indices: bool = False,
        _random_samples: TensorLike | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Maximum over windows of uneven steps, which `_random_samples` [N, C, 3] in [0, 1) decide; required here.

        Exactly one of `output_size` and `output_ratio` is required.

        Shape: [N, C, D, H, W] or [C, D, H, W] -> [N, C, D', H', W'] or [C, D', H', W']
        """
        return self._fractional_max_pool(
            3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples, timeout
        )

    def _max_pool(
        self,
        spatial_dims: int,
        input: TensorLike,
        kernel_size: Size,
        stride: Size | None,
        padding: Size,
        dilation: Size,
        ceil_mode: bool,
        return_indices: bool,
        timeout: float | None,
    ) -> Answer_co:
        function = f"max_pool{spatial_dims}d"
        pool = messages.MaxPool(
            spatial_dims=spatial_dims,
            kernel_size=sizes(function, "kernel_size", kernel_size),
            stride=step(function, "stride", stride),
            padding=sizes(function, "padding", padding),
            dilation=sizes(function, "dilation", dilation),
            ceil_mode=flag(function, "ceil_mode", ceil_mode),
            return_indices=flag(function, "return_indices", return_indices),
        )
        outputs = _WITH_INDICES[pool.return_indices]
        operator = messages.PoolOperator(max_pool=pool)
        return self.call(Request("pool", operator, {"input": input}, outputs, function, timeout))

    def _adaptive_max_pool(
        self,
        spatial_dims: int,
        input: TensorLike,
        output_size: OptionalSize,
        return_indices: bool,
        timeout: float | None,
    ) -> Answer_co:
        function = f"adaptive_max_pool{spatial_dims}d"
        pool = messages.AdaptiveMaxPool(
            spatial_dims=spatial_dims,
            output_size=kept_sizes(function, "output_size", output_size),
            return_indices=flag(function, "return_indices", return_indices),
        )
        outputs = _WITH_INDICES[pool.return_indices]
        operator = messages.PoolOperator(adaptive_max_pool=pool)
        return self.call(Request("pool", operator, {"input": input}, outputs, function, timeout))

    def _fractional_max_pool(
        self,
        spatial_dims: int,
        input: TensorLike,
        kernel_size: Size,
        output_size: Size | None,
        output_ratio: SupportsFloat | Sequence[SupportsFloat] | None,
        return_indices: bool,
        samples: TensorLike | None,
        timeout: float | None,
    ) -> Answer_co:
        function = f"fractional_max_pool{spatial_dims}d"
        pool = messages.FractionalMaxPool(
            spatial_dims=spatial_dims,
            kernel_size=sizes(function, "kernel_size", kernel_size),
            output_size=[] if output_size is None else sizes(function, "output_size", output_size),
            output_ratio=ratios(function, "output_ratio", output_ratio),
            return_indices=flag(function, "return_indices", return_indices),
        )
        outputs = _WITH_INDICES[pool.return_indices]
        operator = messages.PoolOperator(fractional_max_pool=pool)
        tensors = tensors_by_field(input=input, samples=samples)
        return self.call(Request("pool", operator, tensors, outputs, function, timeout))
