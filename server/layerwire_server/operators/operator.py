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
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import torch

from layerwire.errors import InvalidArgumentError, invalid
from layerwire.wire.dtypes import DTYPE_NAMES, DTYPES, TensorSpec

log = logging.getLogger(__name__)

Specs: TypeAlias = tuple[TensorSpec | None, ...]
Tensors: TypeAlias = tuple[torch.Tensor | None, ...]
Kernel: TypeAlias = Callable[..., tuple[torch.Tensor, ...]]  # takes and gives what `Operator.run` does

EAGER = "eager"  # the name of `Operator.run` among an operator's kernels

TORCH_DTYPES: dict[int, torch.dtype] = {value: getattr(torch, name) for name, value in DTYPES.items()}
WIRE_DTYPES: dict[torch.dtype, int] = {dtype: value for value, dtype in TORCH_DTYPES.items()}

FLOATS = frozenset(DTYPES[name] for name in ("float32", "float64", "float16", "bfloat16"))
INTEGERS = frozenset(DTYPES[name] for name in ("int8", "int16", "int32", "int64", "uint8"))
WIDE_FLOATS = frozenset(DTYPES[name] for name in ("float32", "float64"))
BOOL = frozenset((DTYPES["bool"],))

# Instructions for products of 16-bit floats: a CPU without them computes in float32, or element by element.
_PRODUCTS = {"bfloat16": {"avx512_bf16", "amx_bf16"}, "float16": {"avx512_fp16", "amx_fp16"}}
_CAPABILITIES: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch doesn't tell
EMULATED = (
    INTEGERS
    | BOOL
    | {DTYPES[name] for name, some in _PRODUCTS.items() if not any(_CAPABILITIES.get(each) for each in some)}
)


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
    value_inputs: ClassVar[tuple[str, ...]] = ()  # inputs whose elements `check_values` looks at
    weight: ClassVar[float] = 10.0  # what an operation costs on a CPU beside one of a float32 matrix product
    emulated_weight: ClassVar[float] = 1.0  # the same again for dtypes that this CPU emulates: integers, 16-bit floats
    # Of elementwise ones: dtypes for which torch's vector and scalar code give the same bits, NaN and zeros too.
    exact_dtypes: ClassVar[frozenset[int]] = frozenset()
    tile_rows: ClassVar[int | None] = None  # rows of a fixed tile for `deterministic`; None: same bits in any company
    alone_if_deterministic: ClassVar[bool] = False  # where bits depend on company, and tiles don't help
    kernels_are_exact: ClassVar[bool] = True  # whether each of `kernels` gives the bits of `run`, whatever the data
    is_parallel: ClassVar[bool] = False  # whether torch runs also small ones by all its threads

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

    @property
    def parts(self) -> int:
        """How many operators it consists of, itself and those among its fields: what it costs to keep it."""
        return 1 + sum(part.parts for part in vars(self).values() if isinstance(part, Operator))

    def dtypes_on(self, device_type: str) -> frozenset[int]:
        """Dtypes that the first input may have on a device of this type, "cpu" or "cuda", with these parameters."""
        if device_type == "cuda" and self.cuda_dtypes is not None:
            return self.cuda_dtypes
        return self.dtypes

    def check_inputs(self, specs: Specs, device_type: str) -> None:
        """Checks that required inputs are there, and that the first has a dtype that the device's kernel takes.

        Raises:
            InvalidArgumentError: it isn't so.
        """
        for role, spec in zip(self.inputs, specs, strict=True):
            if role.required and spec is None:
                raise self.invalid(role.name, "is required")
        first = specs[0]
        assert first is not None
        dtypes = self.dtypes_on(device_type)
        if first.dtype not in dtypes:
            rule = f"must have one of the dtypes {dtype_names(dtypes)}, got {DTYPE_NAMES[first.dtype]}"
            raise self.invalid(self.inputs[0].name, rule)

    def infer(self, specs: Specs) -> tuple[TensorSpec, ...]:
        """Specs of the outputs: `run` on the meta device. The specs passed `check`.

        Raises:
            InvalidArgumentError: torch refuses the call all the same.
        """
        tensors = [
            None if spec is None else torch.empty(spec.shape, dtype=TORCH_DTYPES[spec.dtype], device="meta")
            for spec in specs
        ]
        try:
            outputs = self.run(*tensors)
        except InvalidArgumentError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError, ZeroDivisionError) as error:
            log.warning("torch refuses what the checks let pass: %s %s: %s", self, specs, error)
            shapes = ", ".join(str(list(spec.shape)) for spec in specs if spec is not None)
            raise self.invalid(self.inputs[0].name, f"doesn't go with the parameters, got {shapes}") from None
        return tuple(TensorSpec(WIRE_DTYPES[output.dtype], tuple(output.shape)) for output in outputs)

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

    def row_multiple(self, specs: Specs, multiples: Sequence[int]) -> int | None:
        """Within a program whose calls are joined along axis 0: entries of the outputs' axis 0 that are one row's.

        Args:
            specs: of the inputs; they passed `check`.
            multiples: the same for each input: k where entries k i to k i + k - 1 of axis 0 are those of row i, 0 where
                it doesn't depend on any row, as weights.

        Returns:
            The outputs' multiple; None if one row's answer may depend on another row, or that can't be told.
        """
        if not any(multiples):
            return 0
        placement = self.placement(specs)
        if placement.merge is Merge.ELEMENTWISE:
            return multiples[0]
        if placement.merge is Merge.ALONE or placement.axes < 1:
            return None
        roles = [
            (role.shared, multiple)
            for role, spec, multiple in zip(self.inputs, specs, multiples, strict=True)
            if spec is not None
        ]
        ours = {multiple for shared, multiple in roles if not shared}
        if len(ours) > 1 or any(multiple for shared, multiple in roles if shared):
            return None
        return multiples[0]

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

    def footprint_bytes(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """Bytes that a call takes on the device while it runs."""
        return sum(spec.nbytes for spec in (*specs, *outputs) if spec is not None)

    def check_values(self, tensors: Tensors) -> None:
        """Checks what depends on data, before a device sees it; the tensors are on the CPU.

        Raises:
            InvalidArgumentError: naming the first position that is wrong.
        """

    @abstractmethod
    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """The kernel, on the tensors' device; also on meta, for the outputs' shapes."""

    def kernels(self) -> Mapping[str, Kernel]:
        """Other ways to what `run` gives on a CPU, by name: which is fastest depends on the machine and on sizes.

        Where `kernels_are_exact` isn't so they may round otherwise, and then always do.
        """
        return {}

    def run_tile(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """`run` on a tile of exactly `tile_rows` rows: a row's bits depend neither on its place nor on others."""
        return self.run(*tensors)

    def invalid(self, field: str, rule: str) -> InvalidArgumentError:
        """The error of a wrong argument of this operator: `max_pool2d: kernel_size must ...`."""
        return invalid(self.title, field, rule)


def dtype_names(dtypes: frozenset[int]) -> str:
    """Dtypes for an error message, sorted as the wire numbers them."""
    return ", ".join(DTYPE_NAMES[dtype] for dtype in sorted(dtypes))
