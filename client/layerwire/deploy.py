"""`Client.deploy`: weights and program to the server, the example on both sides, and the function that is left.

It knows exported modules, and clients as a `Store`; neither channels nor how calls are mapped.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, overload

import numpy.typing as npt

from layerwire.calls.tensor_types import ArrayLike, TensorLike, TorchTensor
from layerwire.client_methods import AwaitableMethods
from layerwire.errors import invalid
from layerwire.export import ExportedModule, export
from layerwire.store import programs, uploads
from layerwire.store.uploads import Progress, UploadReport
from layerwire.transport.engine import Engine
from layerwire.transport.options import Options
from layerwire.transport.sessions import LoopSession, ThreadSession
from layerwire.v1 import store_pb2
from layerwire.wire.safetensors import SafetensorsFile

Outputs_co = TypeVar("Outputs_co", covariant=True)
Assemble: TypeAlias = Callable[[Mapping[str, Any]], Any]  # makes what a call returns of outputs by name
Run: TypeAlias = Callable[[str, int | None, Mapping[str, Any]], Mapping[str, Any]]  # name, version, inputs -> outputs


class Module(Protocol[Outputs_co]):
    """A torch.nn.Module, and what it returns."""

    @property
    def forward(self) -> Callable[..., Outputs_co]:
        """What it computes."""


class Store(Protocol):
    """What deploying needs of a server; errors are layerwire.errors'."""

    def upload(self, file: SafetensorsFile, progress: Progress | None, /) -> UploadReport:
        """Sends what the server hasn't got of a file."""

    def put_program(self, request: store_pb2.PutProgramRequest, /) -> store_pb2.PutProgramResponse:
        """Checks a program and keeps it."""

    def run(self, name: str, version: int | None, inputs: Mapping[str, Any], /) -> Mapping[str, Any]:
        """Runs a stored program; arrays come back as what the inputs are, numpy's or torch's."""


class ClientStore:
    """The Store that a client is, for a thread that waits.

    Args:
        wait: gives what a coroutine on the client's engine returns, once it is there.
        options: the client's.
        run: runs a stored program.
    """

    def __init__(
        self, wait: Callable[[Callable[[Engine], Coroutine[Any, Any, Any]]], Any], options: Options, run: Run
    ) -> None:
        self._wait = wait
        self._timeout = options.timeout
        self._run = run

    def upload(self, file: SafetensorsFile, progress: Progress | None, /) -> UploadReport:
        """See Store."""
        report: UploadReport = self._wait(lambda engine: uploads.upload(engine, file, self._timeout, progress))
        return report

    def put_program(self, request: store_pb2.PutProgramRequest, /) -> store_pb2.PutProgramResponse:
        """See Store."""
        response: store_pb2.PutProgramResponse = self._wait(lambda engine: programs.put(engine, request, self._timeout))
        return response

    def run(self, name: str, version: int | None, inputs: Mapping[str, Any], /) -> Mapping[str, Any]:
        """See Store."""
        return self._run(name, version, inputs)


def store_of_client(session: ThreadSession, options: Options, client: Any) -> ClientStore:
    """A Client, or a view of one, as a Store; autograd goes through `run` where an input requires a gradient."""

    def run(name: str, version: int | None, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        calls = client
        if _records(inputs):
            from layerwire.autograd import Functional  # needs torch

            calls = Functional(client)
        outputs: Mapping[str, Any] = calls.run(name, inputs, version=version)
        return outputs

    return ClientStore(session.run, options, run)


def store_of_async_client(session: LoopSession, options: Options, calls: AwaitableMethods) -> ClientStore:
    """An AsyncClient as a Store, for a thread beside its loop: deploying computes for long."""
    engine, run = session.engine(), run_awaited(calls)

    def wait(work: Callable[[Engine], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(work(engine), engine.loop).result()

    return ClientStore(wait, options, lambda name, version, inputs: wait(lambda _: run(name, version, inputs)))


def run_awaited(
    calls: AwaitableMethods,
) -> Callable[[str, int | None, Mapping[str, Any]], Coroutine[Any, Any, Any]]:
    """What runs a stored program by an AsyncClient's operators."""
    return lambda name, version, inputs: calls.run(name, inputs, version=version)


def _records(inputs: Mapping[str, Any]) -> bool:
    """Whether torch records what is done with one of them."""
    torch = sys.modules.get("torch")  # who has a tensor has imported torch
    return (
        torch is not None
        and torch.is_grad_enabled()
        and any(isinstance(value, torch.Tensor) and value.requires_grad for value in inputs.values())
    )


@dataclass(frozen=True)
class Report:
    """How a deployment went.

    Attributes:
        name: the program's name.
        version: the version it became.
        digest: sha256 of the program as it is kept.
        nodes: operators of the program.
        parameters: elements of its stored tensors.
        weights_bytes: bytes of the file with its weights.
        sent_bytes: those of them that the server hadn't got.
        free_batch: whether calls may bring any number of rows.
        differences: for each output the largest difference between what the module and the server gave for the example.
        magnitudes: for each output the largest size of an element that the module gave.
        notes: what else to know, a sentence each.
    """

    name: str
    version: int
    digest: str
    nodes: int
    parameters: int
    weights_bytes: int
    sent_bytes: int
    free_batch: bool
    differences: Mapping[str, float]
    magnitudes: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def largest_difference(self) -> float:
        """Over all outputs."""
        return max(self.differences.values(), default=0.0)

    def __str__(self) -> str:
        rows = "any number of rows" if self.free_batch else "rows as in the example"
        lines = [
            f"{self.name} version {self.version}: {self.nodes} operators, {self.parameters:,} parameters, {rows}",
            f"weights: {self.weights_bytes:,} bytes, {self.sent_bytes:,} sent",
            f"largest difference from the module: {self.largest_difference:.3g}",
            *self.notes,
        ]
        return "\n".join(lines)


class StoredProgram:
    """What is known of a stored program that is called as a function.

    Attributes:
        name: the program's name.
        version: the version it calls; None for whichever is the default then.
        inputs: names of its inputs, in the order of arguments.
        report: how it was deployed; None for one that was there.
    """

    def __init__(
        self,
        run: Callable[[str, int | None, Mapping[str, Any]], Any],
        name: str,
        inputs: Sequence[str],
        *,
        version: int | None = None,
        assemble: Assemble | None = None,
        report: Report | None = None,
    ) -> None:
        """Args as the attributes; `run` runs a stored program, `assemble` is `by_name` if None."""
        self.name = name
        self.version = version
        self.inputs = tuple(inputs)
        self.report = report
        self._run = run
        self._assemble = assemble or by_name

    def _call(self, inputs: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """What `run` gives for arguments by position and by name."""
        by_name = dict(zip(self.inputs, inputs, strict=False)) | dict(keywords)
        if len(by_name) != len(inputs) + len(keywords) or set(by_name) != set(self.inputs):
            names = [*(["positional"] * len(inputs)), *keywords]
            raise invalid(self.name, "inputs", f"must be {', '.join(self.inputs)}, got {', '.join(names) or 'none'}")
        return self._run(self.name, self.version, by_name)

    def __repr__(self) -> str:
        version = "" if self.version is None else f", version={self.version}"
        return f"{type(self).__name__}({self.name!r}{version})"


class RemoteProgram(StoredProgram, Generic[Outputs_co]):
    """A stored program as a function: tensors of numpy or torch in and out.

    Where an input is a torch tensor that requires a gradient, autograd goes back through the call: gradients of the
    inputs come from the server, of the version that gave the outputs. Those of its weights, which stay there, don't:
    `Client.differentiate` has them.
    """

    @overload
    def __call__(
        self: RemoteProgram[TorchTensor[Any]], *inputs: ArrayLike, **keywords: ArrayLike
    ) -> npt.NDArray[Any]: ...
    @overload
    def __call__(self, *inputs: ArrayLike, **keywords: ArrayLike) -> Any: ...
    @overload
    def __call__(self, *inputs: TensorLike, **keywords: TensorLike) -> Outputs_co: ...
    def __call__(self, *inputs: TensorLike, **keywords: TensorLike) -> Any:
        """Runs it; arguments by position or by name.

        Raises:
            InvalidArgumentError: an argument is missing or too many, or the server refuses it.
        """
        return self._assemble(self._call(inputs, keywords))

    def awaitable(self, calls: AwaitableMethods) -> AsyncRemoteProgram[Outputs_co]:
        """The same to be awaited, by an AsyncClient's operators."""
        return AsyncRemoteProgram(
            run_awaited(calls), self.name, self.inputs,
            version=self.version, assemble=self._assemble, report=self.report,
        )  # fmt: skip


class AsyncRemoteProgram(StoredProgram, Generic[Outputs_co]):
    """A stored program as a function to be awaited; autograd doesn't go through it, as its backward can't wait."""

    @overload
    async def __call__(
        self: AsyncRemoteProgram[TorchTensor[Any]], *inputs: ArrayLike, **keywords: ArrayLike
    ) -> npt.NDArray[Any]: ...
    @overload
    async def __call__(self, *inputs: ArrayLike, **keywords: ArrayLike) -> Any: ...
    @overload
    async def __call__(self, *inputs: TensorLike, **keywords: TensorLike) -> Outputs_co: ...
    async def __call__(self, *inputs: TensorLike, **keywords: TensorLike) -> Any:
        """As `RemoteProgram.__call__`."""
        return self._assemble(await self._call(inputs, keywords))


def by_name(outputs: Mapping[str, Any]) -> Any:
    """The only output, or all of them by name."""
    return next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)


def deploy(
    store: Store,
    name: str,
    module: Module[Outputs_co],
    *example_inputs: Any,
    fold_batch_norm: bool | None = None,
    progress: Progress | None = None,
    pinned: bool = False,
) -> RemoteProgram[Outputs_co]:
    """Puts a torch.nn.Module on a server as data, and compares what both give for the example.

    Raises:
        UnsupportedModuleError: the module makes calls that no program can express; it lists every one.
        TypeError: the module is not a torch.nn.Module, or an input is no tensor.
        LayerwireError: the server refuses the program or can't be reached.
    """
    network = export(module, *example_inputs, name=name, fold_batch_norm=fold_batch_norm)
    upload = UploadReport(0, 0) if network.weights is None else store.upload(network.weights, progress)
    request = store_pb2.PutProgramRequest(name=name, program=network.program, pinned=pinned)
    version = store.put_program(request)
    outputs = store.run(name, version.version, network.example_inputs)
    report = _report(network, version, upload, outputs)
    inputs = [one.name for one in network.program.inputs]
    return RemoteProgram(store.run, name, inputs, assemble=network.assemble, report=report)


def _report(
    network: ExportedModule, version: store_pb2.PutProgramResponse, upload: UploadReport, outputs: Mapping[str, Any]
) -> Report:
    differences = {key: _difference(local, outputs[key]) for key, local in network.example_outputs.items()}
    return Report(
        name=network.name,
        version=version.version,
        digest=version.digest,
        nodes=len(network.program.nodes),
        parameters=sum(tensor.numel() for tensor in network.tensors.values()),
        weights_bytes=upload.file_bytes,
        sent_bytes=upload.sent_bytes,
        free_batch=network.free_batch,
        differences={key: difference for key, (difference, _) in differences.items()},
        magnitudes={key: magnitude for key, (_, magnitude) in differences.items()},
        notes=network.notes,
    )


def _difference(local: Any, remote: Any) -> tuple[float, float]:
    """The largest difference, infinite where shapes differ or one is NaN, and the largest size."""
    import torch

    ours, theirs = (torch.as_tensor(one).detach().cpu().double() for one in (local, remote))
    if ours.shape != theirs.shape:
        return float("inf"), 0.0
    if not ours.numel():
        return 0.0, 0.0
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    difference = torch.where(same, 0.0, (ours - theirs).abs()).nan_to_num(nan=float("inf"), posinf=float("inf"))
    return float(difference.max()), float(ours.nan_to_num().abs().max())
