"""What answers should be, by torch in this process, and how far they may be off; and torch alone, as a target.

It knows requests and torch, which it imports when it is first asked; neither servers nor how calls travel.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from layerwire.calls import Request
from layerwire.v1 import program_pb2
from layerwire_bench.answers.difference import difference
from layerwire_bench.sending.tensors import dtype_of
from layerwire_bench.workload import Arrays, Entry, Sample

if TYPE_CHECKING:
    import torch

__all__ = ["FIRST", "Expected", "available", "difference", "expected", "local_call", "tolerance"]

FIRST = "the first answer"

# Operators that choose among the numbers they are given, or among a few others: right to the bit on every device.
_EXACT = frozenset(
    "max_pool adaptive_max_pool fractional_max_pool max_unpool relu relu6 hardtanh hardshrink threshold unfold".split()  # noqa: SIM905
)
# (rtol, atol) of answers near 1 whose rounding is not known.
_USUAL = {"float32": (1e-4, 1e-4), "float64": (1e-9, 1e-9), "float16": (2e-2, 2e-2), "bfloat16": (1e-1, 1e-1)}
# How often the rounding of torch's own answer another one may be off: sums in another order, Winograd's transforms.
# 16-bit floats are summed in wider ones and rounded once.
_TIMES = {"float32": 32.0, "float64": 32.0, "float16": 4.0, "bfloat16": 4.0}
_TIMES_EPSILON = 8.0
_LONGEST = 200  # characters of torch's sentence


class Expected(NamedTuple):
    """What an answer should be, None where torch can't tell, and how far it may be off."""

    outputs: Arrays | None
    rtol: float
    atol: float


class _Ready(NamedTuple):
    """A call without arguments, and the names of what it returns."""

    call: Callable[[], Any]
    outputs: tuple[str, ...]


def available() -> str | None:
    """The torch that is here, "torch 2.13.0"; None where it isn't installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    return f"torch {metadata.version('torch').partition('+')[0]}"


def tolerance(request: Request, dtype: str) -> tuple[float, float]:
    """(rtol, atol) where nothing is known of an answer but its operator and dtype."""
    name = "" if request.family == "run" else _union(request).WhichOneof("operator")
    return (0.0, 0.0) if name in _EXACT else _USUAL.get(dtype, (0.0, 0.0))


def unknown(request: Request, dtype: str) -> Expected:
    """What there is to be said where nobody wants to know: nothing but how far an answer may be off the first one."""
    return Expected(None, *tolerance(request, dtype))


def expected(
    request: Request,
    dtype: str,
    stored: Arrays | None = None,
    program: program_pb2.Program | None = None,
    allowed_bytes: int | None = None,
    allowed: tuple[float, float] | None = None,
) -> Expected:
    """What the answer to a request should be.

    Args:
        request: of an operator, or of a program by its name.
        dtype: of the input that counts.
        stored: weights that the request names, or a program's constants by their names.
        program: the program that the request names.
        allowed_bytes: of an operator's outputs; it isn't run if they are more.
        allowed: (rtol, atol) as another sample of the same call has them; None: found anew, by another run in float64.

    Raises:
        ValueError: torch refuses the call, or its outputs are too large.
    """
    usual = tolerance(request, dtype)
    if available() is None or (request.family == "run" and program is None):
        return unknown(request, dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's are for who calls it; the answer is right all the same
            if allowed_bytes is not None:
                _check_outputs(request, stored or {}, allowed_bytes)
            ready = _ready(request, stored or {}, program)
            outputs = ready.call()
    except (KeyError, NotImplementedError):  # drawn by the server, not in hand, or only there on other devices
        return unknown(request, dtype)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(_sentence(request.function, error)) from None
    found = dict(zip(ready.outputs, _several(outputs), strict=True))
    if allowed is None:
        allowed = usual if usual == (0.0, 0.0) else _allowed(request, stored or {}, program, found, dtype)
    return Expected({name: _to_numpy(tensor) for name, tensor in found.items()}, *allowed)


def local_call(_entry: Entry, sample: Sample) -> Callable[[], Arrays]:
    """The call of a sample by torch, on tensors made before; its answer becomes numpy's only when it is looked at.

    Raises:
        ValueError: torch isn't installed, or what the call names is not in hand, or the server alone can draw it.
    """
    if available() is None:
        raise ValueError("local: torch must be installed, pip install torch")
    try:
        ready = _ready(sample.request, sample.stored, sample.program)
    except KeyError as error:
        told = f"{sample.request.function}: local can't run it"
        raise ValueError(f"{told}: {error.args[0]} is drawn by the server alone, or its weights aren't here") from None
    call, outputs = ready
    return lambda: _Outputs(outputs, call())


class _Outputs(Mapping[str, npt.NDArray[Any]]):
    """torch's outputs as numpy arrays, made when they are asked for."""

    def __init__(self, names: tuple[str, ...], outputs: Any) -> None:
        self._names = names
        self._outputs = outputs

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        return _to_numpy(_several(self._outputs)[self._names.index(name)])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _ready(
    request: Request,
    stored: Arrays,
    program: program_pb2.Program | None,
    change: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
) -> _Ready:
    """The request's call on tensors as they came, or each changed. Made of inference tensors, which autograd skips."""
    import torch

    from layerwire_bench.answers import interpreter, torch_calls

    def made(value: Any) -> torch.Tensor:
        return change(_to_torch(stored[value] if isinstance(value, str) else value))

    with torch.inference_mode():
        if request.family == "run":
            if program is None:
                raise KeyError(request.function)
            weights = {name: _to_torch(array) for name, array in stored.items()}
            ready = interpreter.Program(program, weights, change=change)
            return _Ready(partial(ready, [made(request.tensors[name]) for name in ready.inputs]), ready.outputs)
        call, outputs = torch_calls.bound(request.operator, list(request.tensors))
        return _Ready(partial(call, *map(made, request.tensors.values())), outputs)


def _check_outputs(request: Request, stored: Arrays, allowed_bytes: int) -> None:
    """Has torch infer the outputs' shapes without making them, where it can."""
    import torch

    if request.family == "run":
        return
    try:
        outputs = _several(_ready(request, stored, None, lambda tensor: tensor.to("meta")).call())
    except Exception:  # the call itself tells what is wrong
        return
    size_bytes = sum(one.numel() * one.element_size() for one in outputs if isinstance(one, torch.Tensor))
    if size_bytes > allowed_bytes:
        raise ValueError(f"its answer would be {size_bytes:,} bytes, more than the {allowed_bytes:,} of a message")


def _allowed(
    request: Request,
    stored: Arrays,
    program: program_pb2.Program | None,
    outputs: Mapping[str, torch.Tensor],
    dtype: str,
) -> tuple[float, float]:
    """(rtol, atol) of an answer: what torch's own loses by rounding, some times over.

    What it loses is seen beside an answer in float64; that of float64 itself by how much float32 loses.
    """
    import torch

    other, scale = (torch.float32, 2.0**-29) if dtype == "float64" else (torch.float64, 1.0)
    epsilon = torch.finfo(getattr(torch, dtype)).eps
    try:
        call = _ready(request, stored, program, lambda x: x.to(other) if x.is_floating_point() else x).call
        wide = dict(zip(outputs, _several(call()), strict=True))
    except (RuntimeError, TypeError):  # an operator of the program wants the dtype that it is written for
        wide = {}
    lost, largest = 0.0, 0.0
    for name, tensor in outputs.items():
        if tensor.is_floating_point() and tensor.numel():
            largest = max(largest, _largest(tensor.double()))
            if name in wide:
                lost = max(lost, scale * _largest(tensor.double() - wide[name].double()))
    if not wide:
        rtol, atol = _USUAL[dtype]
        return rtol, atol * max(1.0, largest)
    return _TIMES_EPSILON * epsilon, _TIMES[dtype] * lost + epsilon * largest


def _largest(tensor: torch.Tensor) -> float:
    """Of its finite elements."""
    return float(tensor.abs().nan_to_num(nan=0.0, posinf=0.0).max())


def _union(request: Request) -> Any:
    return request.operator


def _several(outputs: Any) -> tuple[Any, ...]:
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)


def _to_torch(array: npt.NDArray[Any]) -> torch.Tensor:
    import torch

    native = np.require(array.astype(array.dtype.newbyteorder("="), copy=False), requirements=["C", "W"])
    if native.dtype.name == "bfloat16":
        return torch.from_numpy(native.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(native)


def _to_numpy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    import torch

    whole = tensor.detach().contiguous()
    if whole.dtype == torch.bfloat16:
        return whole.view(torch.int16).numpy().view(dtype_of("bfloat16"))
    array: npt.NDArray[Any] = whole.numpy()
    return array


def _sentence(function: str, error: Exception) -> str:
    """What torch says: its first line, shortened."""
    words = str(error).partition("\n")[0].strip() or type(error).__name__
    return f"{function}: {words if len(words) <= _LONGEST else words[: _LONGEST - 3] + '...'}"
