"""What an operator is: an immutable value with its parameters, its rules, and its kernel.

It knows torch and the wire messages of parameters; nothing of lanes, devices or connections.

Equal operators may share a batch, an uploaded weight, a cached plan. The path of a call through one:

    from_message   parameters, each checked in Python integers before torch sees it
    check          what depends on the inputs' dtypes and shapes; after it, `run` on the meta device is safe and small
    placement      how calls of it may share a batch, and the operator that runs the joined batch
    check_values   what depends on the data, such as unpooling indices
    run            the kernel
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import torch

from layerwire.codec import DTYPE_NAMES, DTYPES, TensorSpec
from layerwire.errors import InvalidArgumentError, invalid

Specs: TypeAlias = tuple[TensorSpec | None, ...]
Tensors: TypeAlias = tuple[torch.Tensor | None, ...]

TORCH_DTYPES: dict[int, torch.dtype] = {value: getattr(torch, name) for name, value in DTYPES.items()}
WIRE_DTYPES: dict[torch.dtype, int] = {dtype: value for value, dtype in TORCH_DTYPES.items()}

FLOATS = frozenset(DTYPES[name] for name in ("float32", "float64", "float16", "bfloat16"))
INTEGERS = frozenset(DTYPES[name] for name in ("int8", "int16", "int32", "int64", "uint8"))
BOOL = frozenset((DTYPES["bool"],))
EMULATED = INTEGERS | BOOL | frozenset(DTYPES[name] for name in ("float16", "bfloat16"))


class Input(NamedTuple):
    """A tensor that an operator takes: the request's field name, and how it behaves in a batch."""

    name: str
    required: bool = True
    shared: bool = False  # one for the whole batch, such as weights; else each call brings its own rows


class Merge(enum.Enum):
    """How calls of one lane share a kernel."""

    ROWS = "rows"  # leading axes of the row inputs are joined along axis 0, the outputs split likewise
    ELEMENTWISE = "elementwise"  # any shapes: flattened and joined
    ALONE = "alone"  # never together with another call


class Placement(NamedTuple):
    """How a call goes into a batch.

    With ROWS the first `axes` axes of every row input are folded into one, so that a batch's input is
    [sum of rows, *rest]; 0 means an unbatched input, which counts as one row and gets an axis. `operator` runs on that,
    and its outputs have the rows as axis 0 too. With ELEMENTWISE it runs on one flat axis. With ALONE it runs on the
    call's own tensors.
    """

    merge: Merge
    operator: Operator
    axes: int = 0


@dataclass(frozen=True)
class Operator(ABC):
    """An operator with its parameters. Subclasses are frozen dataclasses of hashable fields."""

    name: ClassVar[str]  # its field in the family's message: "max_pool"
    family: ClassVar[str]  # its request's field in Call: "pool"
    inputs: ClassVar[tuple[Input, ...]] = (Input("input"),)
    dtypes: ClassVar[frozenset[int]] = FLOATS  # of the first input, where torch has the kernel on CPU
    cuda_dtypes: ClassVar[frozenset[int] | None] = None  # the same on CUDA; None where it doesn't differ
    checks_values: ClassVar[bool] = False  # whether check_values does anything
    weight: ClassVar[float] = 10.0  # what an operation costs on a CPU beside one of a float32 matrix product
    emulated_weight: ClassVar[float] = 1.0  # the same again for dtypes that CPUs emulate: 16-bit floats, integers
    tile_rows: ClassVar[int | None] = None  # rows of a fixed tile for `deterministic`; None: same bits in any company

    @classmethod
    @abstractmethod
    def from_message(cls, message: Any) -> Self:
        """The operator of a parameter message.

        Raises:
            InvalidArgumentError: a parameter is out of range, in the words of the message's comments.
        """

    @property
    def title(self) -> str:
        """Its name in torch.nn.functional, for people: "max_pool2d"."""
        return self.name

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its outputs, fields of the family's response, in the order `run` returns them."""
        return ("output",)

    def dtypes_on(self, device_type: str) -> frozenset[int]:
        """Dtypes that the first input may have on a device of this type, "cpu" or "cuda", with these parameters."""
        if device_type == "cuda" and self.cuda_dtypes is not None:
            return self.cuda_dtypes
        return self.dtypes

    @abstractmethod
    def check(self, specs: Specs) -> None:
        """Checks parameters against the inputs' dtypes and shapes, in Python integers.

        Args:
            specs: one an entry of `inputs`; required ones are there, and dtypes of the first fit the device.

        Raises:
            InvalidArgumentError: torch would refuse, crash, hang, or read past an end.
        """

    @abstractmethod
    def placement(self, specs: Specs) -> Placement:
        """How a call with these inputs goes into a batch; the specs passed `check`."""

    @abstractmethod
    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """Floating-point operations of a call, a multiply and an add counted as two; within 3 times of the truth."""

    def work(self, specs: Specs, operations: int) -> float:
        """Operations by what they cost, which limits and lanes go by: in those of a float32 matrix product on a CPU."""
        assert specs[0] is not None
        return operations * self.weight * (self.emulated_weight if specs[0].dtype in EMULATED else 1.0)

    def output_bytes_bound(self, specs: Specs) -> int:
        """Bytes that no correct output exceeds, in Python integers, from the specs that passed `check`.

        Called before the meta device is. Operators whose output is not larger than their inputs need not override it.
        """
        return sum(spec.nbytes for spec in specs if spec is not None)

    def check_values(self, tensors: Tensors) -> None:
        """Checks what depends on data, before a device sees it; the tensors are on the CPU.

        Raises:
            InvalidArgumentError: naming the first position that is wrong.
        """

    @abstractmethod
    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """The kernel, on the tensors' device; also on meta, for the outputs' shapes."""

    def run_tile(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """`run` on a tile of exactly `tile_rows` rows: a row's bits depend neither on its place nor on others."""
        return self.run(*tensors)

    def invalid(self, field: str, rule: str) -> InvalidArgumentError:
        """The error of a wrong argument of this operator: `max_pool2d: kernel_size must ...`."""
        return invalid(self.title, field, rule)


def dtype_names(dtypes: frozenset[int]) -> str:
    """Dtypes for an error message, sorted as the wire numbers them."""
    return ", ".join(DTYPE_NAMES[dtype] for dtype in sorted(dtypes))
