"""THE table of operator cases: rows of data that every suite over operators iterates over.

A case is a call as one would write it with torch.nn.functional; torch is the reference. Rows live in tests/cases/, one
file a family; this file knows what a row is and puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class T:
    """A tensor to be made: shape, dtype, and how its values are drawn.

    `values`: "normal", "uniform" (in [0, 1)), "positive" (in [0.1, 1.1)), "special" (normal with nan, inf, -inf and
    zeros of both signs among it), or nested lists of literal values (shape is then theirs).
    """

    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    values: str | list[Any] = "normal"
    seed: int = 0

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype, str(self.values), self.seed))

    def make(self) -> torch.Tensor:
        """The tensor, the same at every call."""
        dtype = getattr(torch, self.dtype)
        if not isinstance(self.values, str):
            return torch.tensor(self.values, dtype=dtype)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + sum(self.shape))
        if not dtype.is_floating_point:
            low, high = (0, 2) if dtype == torch.bool else (0 if dtype == torch.uint8 else -50, 50)
            return torch.randint(low, high, self.shape, generator=generator).to(dtype)
        draw = torch.randn if self.values in ("normal", "special") else torch.rand
        tensor = draw(self.shape, generator=generator, dtype=torch.float64)
        if self.values == "positive":
            tensor += 0.1
        if self.values == "special" and tensor.numel():
            flat = tensor.view(-1)
            for start, value in enumerate((float("nan"), float("inf"), float("-inf"), 0.0, -0.0)):
                flat[start::7] = value
        return tensor.to(dtype)


@dataclass(frozen=True)
class Case:
    """One call. `function` is its name in torch.nn.functional and on the client; T recipes stand for tensors.

    `reference` computes the expected answer from the made arguments where torch.nn.functional can't (default: the
    function of that name there). `expected` is the literal answer of a worked example. `tolerance` is (rtol, atol)
    against the reference; None means bit-equal to torch run alone on the same machine.
    """

    id: str
    function: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    reference: Callable[..., Any] | None = None
    expected: Any = None
    tolerance: tuple[float, float] | None = None

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """args and kwargs with tensors made."""
        return tuple(map(_value_of, self.args)), {name: _value_of(value) for name, value in self.kwargs.items()}

    def answer(self) -> tuple[torch.Tensor, ...]:
        """The reference's answer, always as a tuple."""
        args, kwargs = self.arguments()
        function = self.reference or getattr(torch.nn.functional, self.function)
        answer = function(*args, **kwargs)
        return tuple(answer) if isinstance(answer, tuple | list) else (answer,)


@dataclass(frozen=True)
class Bad:
    """A call that must be refused: INVALID_ARGUMENT (or `code`) naming `field`, before torch sees it."""

    id: str
    function: str
    args: tuple[Any, ...]
    field: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    code: str = "INVALID_ARGUMENT"

    arguments = Case.arguments


def _value_of(value: Any) -> Any:
    return value.make() if isinstance(value, T) else value


def cases() -> list[Case]:
    """Every row that must succeed."""
    from tests.cases import activate, convolve, linear, normalize, pool, unpool

    return [case for family in (pool, unpool, linear, activate, convolve, normalize) for case in family.CASES]


def bad_cases() -> list[Bad]:
    """Every row that must be refused."""
    from tests.cases import activate, convolve, linear, normalize, pool, unpool

    return [case for family in (pool, unpool, linear, activate, convolve, normalize) for case in family.BAD]
