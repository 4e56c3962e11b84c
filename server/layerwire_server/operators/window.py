"""A sliding window over spatial axes: how many places it takes, and where torch would refuse, crash or read outside.

It knows integers; nothing of tensors, messages or what is computed in a window.
"""

from __future__ import annotations

from typing import NamedTuple

from layerwire_server.operators.spatial import MAX_STRIDE, Reader, Sizes, SpatialOperator

MAX_PADDING = 1024  # a kernel steps over padding element by element, without counting it as work


class Window(NamedTuple):
    """A pooling window, one value an axis."""

    kernel_size: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    ceil_mode: bool

    @classmethod
    def read(cls, reader: Reader) -> Window:
        """The window in a message that has kernel_size, stride and ceil_mode, and perhaps padding and dilation.

        Raises:
            InvalidArgumentError: a size is out of range, whatever the input.
        """
        fields = reader.message.DESCRIPTOR.fields_by_name
        kernel_size = reader.sizes("kernel_size", least=1)
        stride = reader.sizes("stride", least=1, most=MAX_STRIDE, default=kernel_size)
        padding = read_padding(reader, kernel_size) if "padding" in fields else (0,) * reader.dims
        dilation = reader.sizes("dilation", least=1, default=1) if "dilation" in fields else (1,) * reader.dims
        # A window of one element has no gaps: equal meaning is to be an equal value.
        dilation = tuple(1 if kernel == 1 else gap for kernel, gap in zip(kernel_size, dilation, strict=True))
        return cls(kernel_size, stride, padding, dilation, reader.message.ceil_mode)

    def places(self, extents: Sizes) -> Sizes:
        """How many places it takes along each axis: the output's extents.

        Source: pooling_output_shape in ATen/native/Pool.h; in ceil_mode a last window must start within the input or
        the padding before it.
        """
        places = []
        for extent, kernel, stride, padding, dilation in self._axes(extents):
            room = extent + 2 * padding - dilation * (kernel - 1) - 1
            count = (room + (stride - 1 if self.ceil_mode else 0)) // stride + 1
            if self.ceil_mode and (count - 1) * stride >= extent + padding:
                count -= 1
            places.append(count)
        return tuple(places)

    def elements(self, extents: Sizes) -> int:
        """Elements of a plane that its windows hold, all together, padding left out; within 3 times of the truth."""
        total = 1
        for axis, count in zip(self._axes(extents), self.places(extents), strict=True):
            extent, kernel, stride, _, dilation = axis
            total *= min(count * min(kernel, -(-extent // dilation)), extent * -(-kernel // stride))
        return total

    def check(self, operator: SpatialOperator, extents: Sizes) -> None:
        """Checks that it fits in the padded input and nowhere lies wholly in padding.

        Raises:
            InvalidArgumentError: naming `kernel_size`, `dilation` or `padding`.
        """
        for axis, count in zip(self._axes(extents), self.places(extents), strict=True):
            extent, kernel, stride, padding, dilation = axis
            padded, span = extent + 2 * padding, dilation * (kernel - 1) + 1
            most = padded + (stride - 1 if self.ceil_mode else 0)
            if kernel > most:
                raise operator.invalid("kernel_size", f"must be at most {most} for {padded} elements, got {kernel}")
            if span > most:
                rule = f"must leave the window within {padded} elements, got {dilation} for kernel_size {kernel}"
                raise operator.invalid("dilation", rule)
            if _holds_nothing(extent, stride, padding, dilation, count):
                rule = f"must leave no window without elements of the input, got {padding} for dilation {dilation}"
                raise operator.invalid("padding", rule)

    def _axes(self, extents: Sizes) -> list[tuple[int, int, int, int, int]]:
        return list(zip(extents, self.kernel_size, self.stride, self.padding, self.dilation, strict=True))


def read_padding(reader: Reader, kernel_size: Sizes) -> Sizes:
    """A pooling's padding.

    Raises:
        InvalidArgumentError: it is out of range, or more than half the window, which torch refuses.
    """
    padding = reader.sizes("padding", least=0, most=MAX_PADDING, default=0)
    halves = [kernel // 2 for kernel in kernel_size]
    reader.check_each("padding", padding, halves, "half of kernel_size")
    return padding


def _holds_nothing(extent: int, stride: int, padding: int, dilation: int, count: int) -> bool:
    """Whether a window has no element of the input: torch answers -inf and an index outside the plane.

    With padding at most kernel_size / 2 and the last window starting within the input, only a window that starts in the
    padding before the input can be so, and only where one dilation leaps over the whole input.
    """
    if dilation <= extent:
        return False
    starts = range(-padding, min(0, count * stride - padding), stride)
    return any(start % dilation >= extent for start in starts)
