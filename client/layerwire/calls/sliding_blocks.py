"""Turns calls of unfold and fold of torch.nn.functional into Requests.

It knows their messages; neither channels nor torch.
"""

from __future__ import annotations

from layerwire.calls.arguments import Size, sizes
from layerwire.calls.request import Answer_co, Family, Request, TensorLike
from layerwire.v1 import operators_pb2 as messages


class SlidingBlockCalls(Family[Answer_co]):
    """unfold, fold."""

    def unfold(
        self,
        input: TensorLike,
        kernel_size: Size,
        dilation: Size = 1,
        padding: Size = 0,
        stride: Size = 1,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Sliding blocks of planes as columns (im2col).

        Shape: [N, C, H, W] or [C, H, W] -> [N, C KH KW, L] or [C KH KW, L], L the number of blocks, over both axes the
        product of (extent + 2 padding - dilation (kernel_size - 1) - 1) / stride + 1
        """
        unfold = messages.Unfold(
            kernel_size=sizes("unfold", "kernel_size", kernel_size),
            dilation=sizes("unfold", "dilation", dilation),
            padding=sizes("unfold", "padding", padding),
            stride=sizes("unfold", "stride", stride),
        )
        operator = messages.ConvolveOperator(unfold=unfold)
        return self.call(Request("convolve", operator, {"input": input}, ("output",), "unfold", timeout))

    def fold(
        self,
        input: TensorLike,
        output_size: Size,
        kernel_size: Size,
        dilation: Size = 1,
        padding: Size = 0,
        stride: Size = 1,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Puts sliding blocks back where unfold takes them, and adds what meets (col2im).

        Shape: [N, C KH KW, L] or [C KH KW, L] -> [N, C, H, W] or [C, H, W] with H, W = output_size
        """
        fold = messages.Fold(
            output_size=sizes("fold", "output_size", output_size),
            kernel_size=sizes("fold", "kernel_size", kernel_size),
            dilation=sizes("fold", "dilation", dilation),
            padding=sizes("fold", "padding", padding),
            stride=sizes("fold", "stride", stride),
        )
        operator = messages.ConvolveOperator(fold=fold)
        return self.call(Request("convolve", operator, {"input": input}, ("output",), "fold", timeout))
