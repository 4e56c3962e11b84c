"""Turns calls of the convolutions of torch.nn.functional into Requests.

It knows their messages; neither channels nor torch.
"""

from __future__ import annotations

from typing import SupportsIndex

from layerwire.calls.arguments import Size, integer, sizes
from layerwire.calls.request import Answer_co, Family, Request, TensorLike, tensors_by_field
from layerwire.errors import invalid
from layerwire.v1 import operators_pb2 as messages

_NAMED_PADDINGS = {"valid": messages.NAMED_PADDING_VALID, "same": messages.NAMED_PADDING_SAME}


class ConvolveCalls(Family[Answer_co]):
    """conv1d to conv3d, conv_transpose1d to conv_transpose3d, conv_tbc."""

    def conv1d(
        self,
        input: TensorLike,
        weight: TensorLike,
        bias: TensorLike | None = None,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: SupportsIndex = 1,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Cross-correlation with `weight` [C', C / groups, K]; `padding` in numbers, "valid" or "same".

        Shape: [N, C, L] or [C, L] -> [N, C', L'] or [C', L'], L' = (L + 2 padding - dilation (K - 1) - 1) / stride + 1
        """
        return self._conv(1, input, weight, bias, stride, padding, dilation, groups, timeout)

    def conv2d(
        self,
        input: TensorLike,
        weight: TensorLike,
        bias: TensorLike | None = None,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: SupportsIndex = 1,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Cross-correlation with `weight` [C', C / groups, KH, KW]; depthwise where groups is C.

        Shape: [N, C, H, W] or [C, H, W] -> [N, C', H', W'] or [C', H', W'], extents as for conv1d
        """
        return self._conv(2, input, weight, bias, stride, padding, dilation, groups, timeout)

    def conv3d(
        self,
        input: TensorLike,
        weight: TensorLike,
        bias: TensorLike | None = None,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: SupportsIndex = 1,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Cross-correlation with `weight` [C', C / groups, KD, KH, KW].

        Shape: [N, C, D, H, W] or [C, D, H, W] -> [N, C', D', H', W'] or [C', D', H', W'], extents as for conv1d
        """
        return self._conv(3, input, weight, bias, stride, padding, dilation, groups, timeout)

    def conv_transpose1d(
        self,
        input: TensorLike,
        weight: TensorLike,
        bias: TensorLike | None = None,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: SupportsIndex = 1,
        dilation: Size = 1,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Transposed convolution with `weight` [C, C' / groups, K].

        Shape: [N, C, L] or [C, L] -> [N, C', L'] or [C', L'],
        L' = (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1
        """
        return self._conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation, timeout)

    def conv_transpose2d(
        self,
        input: TensorLike,
        weight: TensorLike,
        bias: TensorLike | None = None,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: SupportsIndex = 1,
        dilation: Size = 1,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Transposed convolution with `weight` [C, C' / groups, KH, KW].

        Shape: [N, C, H, W] or [C, H, W] -> [N, C', H', W'] or [C', H', W'], extents as for conv_transpose1d
        """
        return self._conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation, timeout)

    def conv_transpose3d(
        self,
        input: TensorLike,
        weight: TensorLike,
        bias: TensorLike | None = None,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: SupportsIndex = 1,
        dilation: Size = 1,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Transposed convolution with `weight` [C, C' / groups, KD, KH, KW].

        Shape: [N, C, D, H, W] or [C, D, H, W] -> [N, C', D', H', W'] or [C', D', H', W'], as for conv_transpose1d
        """
        return self._conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation, timeout)

    def conv_tbc(
        self,
        input: TensorLike,
        weight: TensorLike,
        bias: TensorLike,
        pad: SupportsIndex = 0,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Cross-correlation along time with `weight` [K, C, C'] and `bias` [C']; such calls share no batch.

        Shape: [T, N, C] -> [T + 2 pad - K + 1, N, C']
        """
        operator = messages.ConvolveOperator(conv_tbc=messages.ConvTbc(pad=integer("conv_tbc", "pad", pad)))
        tensors = {"input": input, "weight": weight, "bias": bias}
        return self.call(Request("convolve", operator, tensors, ("output",), "conv_tbc", timeout))

    def _conv(
        self,
        spatial_dims: int,
        input: TensorLike,
        weight: TensorLike,
        bias: TensorLike | None,
        stride: Size,
        padding: Size | str,
        dilation: Size,
        groups: SupportsIndex,
        timeout: float | None,
    ) -> Answer_co:
        function = f"conv{spatial_dims}d"
        conv = messages.Conv(
            spatial_dims=spatial_dims,
            stride=sizes(function, "stride", stride),
            dilation=sizes(function, "dilation", dilation),
            groups=integer(function, "groups", groups),
        )
        if isinstance(padding, str):
            if padding not in _NAMED_PADDINGS:
                raise invalid(function, "padding", f'must be numbers, "valid" or "same", got "{padding[:40]}"')
            conv.named_padding = _NAMED_PADDINGS[padding]
        else:
            conv.padding.extend(sizes(function, "padding", padding))
        operator = messages.ConvolveOperator(conv=conv)
        tensors = tensors_by_field(input=input, weight=weight, bias=bias)
        return self.call(Request("convolve", operator, tensors, ("output",), function, timeout))

    def _conv_transpose(
        self,
        spatial_dims: int,
        input: TensorLike,
        weight: TensorLike,
        bias: TensorLike | None,
        stride: Size,
        padding: Size,
        output_padding: Size,
        groups: SupportsIndex,
        dilation: Size,
        timeout: float | None,
    ) -> Answer_co:
        function = f"conv_transpose{spatial_dims}d"
        conv = messages.ConvTranspose(
            spatial_dims=spatial_dims,
            stride=sizes(function, "stride", stride),
            padding=sizes(function, "padding", padding),
            output_padding=sizes(function, "output_padding", output_padding),
            groups=integer(function, "groups", groups),
            dilation=sizes(function, "dilation", dilation),
        )
        operator = messages.ConvolveOperator(conv_transpose=conv)
        tensors = tensors_by_field(input=input, weight=weight, bias=bias)
        return self.call(Request("convolve", operator, tensors, ("output",), function, timeout))
