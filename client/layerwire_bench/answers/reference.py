"""What answers should be, by torch in this process, and how far they may be off; and torch alone, as a target.

It knows requests and torch, which it imports when it is first asked; neither servers nor how calls travel.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from layerwire.calls import Request
from layerwire.v1 import program_pb2
from layerwire.wire.arrays import numpy_dtype
from layerwire.wire.dtypes import DTYPES
from layerwire_bench import operator_table
from layerwire_bench.workload import Arrays, Sample

if TYPE_CHECKING:
    import torch

    from layerwire_bench.answers.torch_calls import TorchCall

Tolerance: TypeAlias = tuple[float, float]  # (rtol, atol)

FIRST = "the first answer"
# Of answers near 1 whose rounding is not known.
_USUAL = {"float32": (1e-4, 1e-4), "float64": (1e-9, 1e-9), "float16": (2e-2, 2e-2), "bfloat16": (1e-1, 1e-1)}
# How often the rounding of torch's own answer another one may be off: sums in another order, Winograd's transforms.
# 16-bit floats are summed in wider ones and rounded once.
_TIMES = {"float32": 32.0, "float64": 32.0, "float16": 4.0, "bfloat16": 4.0}
_TIMES_EPSILON = 8.0
_LONGEST = 200  # characters of torch's sentence


class Expectation(NamedTuple):
    """What an answer should be, None where torch can't tell, and how far it may be off."""

    outputs: Arrays | None
    rtol: float
    atol: float


def available() -> str | None:
    """The torch that is here, "torch 2.13.0"; None where it isn't installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    return f"torch {metadata.version('torch').partition('+')[0]}"


def no_expectation(request: Request, dtype: str) -> Expectation:
    """Nothing but how far an answer may be off the first one, by its operator and dtype."""
    operator: Any = request.operator
    name = "" if request.family == "run" else operator.WhichOneof("operator")
    return Expectation(None, *(0.0, 0.0) if operator_table.operator(name).exact else _USUAL.get(dtype, (0.0, 0.0)))


def expectation(
    request: Request,
    dtype: str,
    weights: Arrays | None = None,
    program: program_pb2.Program | None = None,
    max_bytes: int | None = None,
    tolerance: Tolerance | None = None,
) -> Expectation:
    """What the answer to a request should be.

    Args:
        request: of an operator, or of a program by its name.
        dtype: of the input that counts.
        weights: stored ones that the request names, or a program's constants by their names.
        program: the program that the request names.
        max_bytes: of an operator's outputs; it isn't run if they are more.
        tolerance: as another sample of the same call has it; None: found anew, by another run in float64.

    Raises:
        ValueError: torch refuses the call, or its outputs are too large.
    """
    nothing = no_expectation(request, dtype)
    if available() is None or (request.family == "run" and program is None):
        return nothing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's are for who calls it; the answer is right all the same
            if max_bytes is not None:
                _check_outputs(request, weights or {}, max_bytes)
            call = _torch_call(request, weights or {}, program)
            results = call.function()
    except (KeyError, NotImplementedError):  # drawn by the server, not in hand, or only there on other devices
        return nothing
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(_sentence(request.function, error)) from None
    outputs = dict(zip(call.outputs, _as_tuple(results), strict=True))
    if tolerance is None:
        exact = nothing[1:] == (0.0, 0.0)
        tolerance = nothing[1:] if exact else _tolerance_of(request, weights or {}, program, outputs, dtype)
    return Expectation({name: _to_numpy(tensor) for name, tensor in outputs.items()}, *tolerance)


def local_call(sample: Sample) -> Callable[[], Arrays]:
    """The call of a sample by torch, on tensors made before; its answer becomes numpy's only when it is looked at.

    Raises:
        ValueError: torch isn't installed, or what the call names is not in hand, or the server alone can draw it.
    """
    if available() is None:
        raise ValueError("local: torch must be installed, pip install torch")
    try:
        function, outputs = _torch_call(sample.request, sample.weights, sample.program)
    except KeyError as error:
        what = f"{error.args[0]} is drawn by the server alone, or its weights aren't here"
        raise ValueError(f"{sample.request.function}: local can't run it: {what}") from None
    return lambda: _Outputs(outputs, function())


class _Outputs(Mapping[str, npt.NDArray[Any]]):
    """torch's outputs as numpy arrays, made when they are asked for."""

    def __init__(self, names: tuple[str, ...], results: Any) -> None:
        self._names = names
        self._results = results

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        return _to_numpy(_as_tuple(self._results)[self._names.index(name)])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _torch_call(
    request: Request,
    weights: Arrays,
    program: program_pb2.Program | None,
    change: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
) -> TorchCall:
    """The request's call without arguments, on tensors as they came, or each changed; autograd skips its tensors."""
    import torch

    from layerwire_bench.answers.interpreter import Interpreter
    from layerwire_bench.answers.torch_calls import TorchCall, torch_call

    def tensor(value: Any) -> torch.Tensor:
        return change(_to_torch(weights[value] if isinstance(value, str) else value))

    with torch.inference_mode():
        if request.family == "run":
            if program is None:
                raise KeyError(request.function)
            constants = {name: _to_torch(array) for name, array in weights.items()}
            run = Interpreter(program, constants, change=change)
            return TorchCall(partial(run, [tensor(request.tensors[name]) for name in run.inputs]), run.outputs)
        function, outputs = torch_call(request.operator, list(request.tensors))
        return TorchCall(partial(function, *map(tensor, request.tensors.values())), outputs)


def _check_outputs(request: Request, weights: Arrays, max_bytes: int) -> None:
    """Has torch infer the outputs' shapes without making them, where it can."""
    import torch

    if request.family == "run":
        return
    try:
        outputs = _as_tuple(_torch_call(request, weights, None, lambda tensor: tensor.to("meta")).function())
    except Exception:  # the call itself tells what is wrong
        return
    size_bytes = sum(one.numel() * one.element_size() for one in outputs if isinstance(one, torch.Tensor))
    if size_bytes > max_bytes:
        raise ValueError(f"its answer would be {size_bytes:,} bytes, more than the {max_bytes:,} of a message")


def _tolerance_of(
    request: Request,
    weights: Arrays,
    program: program_pb2.Program | None,
    outputs: Mapping[str, torch.Tensor],
    dtype: str,
) -> Tolerance:
    """Of an answer: what torch's own loses by rounding, some times over.

    What it loses is seen beside an answer in float64; that of float64 itself by how much float32 loses.
    """
    import torch

    other, share = (torch.float32, 2.0**-29) if dtype == "float64" else (torch.float64, 1.0)
    epsilon = torch.finfo(getattr(torch, dtype)).eps
    try:
        call = _torch_call(request, weights, program, lambda x: x.to(other) if x.is_floating_point() else x)
        wide = dict(zip(outputs, _as_tuple(call.function()), strict=True))
    except (RuntimeError, TypeError):  # an operator of the program wants the dtype that it is written for
        wide = {}
    loss, largest = 0.0, 0.0
    for name, tensor in outputs.items():
        if tensor.is_floating_point() and tensor.numel():
            largest = max(largest, _largest(tensor.double()))
            if name in wide:
                loss = max(loss, share * _largest(tensor.double() - wide[name].double()))
    if not wide:
        rtol, atol = _USUAL[dtype]
        return rtol, atol * max(1.0, largest)
    return _TIMES_EPSILON * epsilon, _TIMES[dtype] * loss + epsilon * largest


def _largest(tensor: torch.Tensor) -> float:
    """Of its finite elements."""
    return float(tensor.abs().nan_to_num(nan=0.0, posinf=0.0).max())


def _as_tuple(outputs: Any) -> tuple[Any, ...]:
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
        return whole.view(torch.int16).numpy().view(numpy_dtype(DTYPES["bfloat16"]))
    array: npt.NDArray[Any] = whole.numpy()
    return array


def _sentence(function: str, error: Exception) -> str:
    """What torch says: its first line, shortened."""
    words = str(error).partition("\n")[0].strip() or type(error).__name__
    return f"{function}: {words if len(words) <= _LONGEST else words[: _LONGEST - 3] + '...'}"
