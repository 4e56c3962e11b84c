"""Deploying: weights and program to the server, the example on both sides, and the callable that is left.

It knows exported modules and a `Store`; neither channels nor how calls are mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from layerwire.calls import Calls
from layerwire.errors import invalid
from layerwire.export.exported import Exported, export
from layerwire.export.store import Store
from layerwire.store.uploads import Progress, Uploaded
from layerwire.v1 import store_pb2

Assemble: TypeAlias = Callable[[Mapping[str, Any]], Any]  # makes what a call returns of outputs by name


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
        name: str,
        inputs: Sequence[str],
        *,
        version: int | None = None,
        assemble: Assemble | None = None,
        report: Report | None = None,
    ) -> None:
        """Args as the attributes; `assemble` makes what a call returns of outputs by name, `by_name` if None."""
        self.name = name
        self.version = version
        self.inputs = tuple(inputs)
        self.report = report
        self._assemble = assemble or by_name

    def _given(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Mapping[str, Any]:
        """The inputs by name."""
        given = dict(zip(self.inputs, inputs, strict=False)) | dict(named)
        if len(given) != len(inputs) + len(named) or set(given) != set(self.inputs):
            got = [*(["positional"] * len(inputs)), *named]
            raise invalid(self.name, "inputs", f"must be {', '.join(self.inputs)}, got {', '.join(got) or 'none'}")
        return given

    def __repr__(self) -> str:
        version = "" if self.version is None else f", version={self.version}"
        return f"{type(self).__name__}({self.name!r}{version})"


class RemoteProgram(StoredProgram):
    """A stored program as a function: tensors of numpy or torch in and out.

    Where an input is a torch tensor that requires a gradient, autograd goes back through the call: gradients of the
    inputs come from the server, of the version that gave the outputs. Those of its weights, which stay there, don't:
    `Client.differentiate` has them.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        inputs: Sequence[str],
        *,
        version: int | None = None,
        assemble: Assemble | None = None,
        report: Report | None = None,
    ) -> None:
        """Args: a server's store, and those of StoredProgram."""
        super().__init__(name, inputs, version=version, assemble=assemble, report=report)
        self._store = store

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Runs it; arguments by position or by name.

        Raises:
            InvalidArgumentError: an argument is missing or too many, or the server refuses it.
        """
        return self._assemble(self._store.run(self.name, self.version, self._given(inputs, named)))

    def awaited(self, calls: Calls[Any]) -> AsyncRemoteProgram:
        """The same to be awaited, by an AsyncClient."""
        return AsyncRemoteProgram(
            calls, self.name, self.inputs, version=self.version, assemble=self._assemble, report=self.report
        )


class AsyncRemoteProgram(StoredProgram):
    """A stored program as a function to be awaited; autograd doesn't go through it, as its backward can't wait."""

    def __init__(
        self,
        calls: Calls[Any],
        name: str,
        inputs: Sequence[str],
        *,
        version: int | None = None,
        assemble: Assemble | None = None,
        report: Report | None = None,
    ) -> None:
        """Args: an AsyncClient's operators, and those of StoredProgram."""
        super().__init__(name, inputs, version=version, assemble=assemble, report=report)
        self._calls = calls

    async def __call__(self, *inputs: Any, **named: Any) -> Any:
        """As `RemoteProgram.__call__`."""
        return self._assemble(await self._calls.run(self.name, self._given(inputs, named), version=self.version))


def by_name(outputs: Mapping[str, Any]) -> Any:
    """The only output, or all of them by name."""
    return next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)


def deploy(
    store: Store,
    name: str,
    module: Any,
    *example_inputs: Any,
    fold_batch_norm: bool | None = None,
    progress: Progress | None = None,
    pinned: bool = False,
) -> RemoteProgram:
    """Puts a torch.nn.Module on a server as data, and compares what both give for the example.

    Raises:
        UnsupportedModuleError: the module makes calls that no program can express; it lists every one.
        TypeError: the module is not a torch.nn.Module, or an input is no tensor.
        LayerwireError: the server refuses the program or can't be reached.
    """
    exported = export(module, *example_inputs, name=name, fold_batch_norm=fold_batch_norm)
    uploaded = Uploaded(0, 0) if exported.weights is None else store.upload(exported.weights, progress)
    request = store_pb2.PutProgramRequest(name=name, program=exported.program, pinned=pinned)
    put = store.put_program(request)
    outputs = store.run(name, put.version, exported.example_inputs)
    report = _report(exported, put, uploaded, outputs)
    names = [one.name for one in exported.program.inputs]
    return RemoteProgram(store, name, names, assemble=exported.assemble, report=report)


def _report(
    exported: Exported, put: store_pb2.PutProgramResponse, uploaded: Uploaded, outputs: Mapping[str, Any]
) -> Report:
    compared = {key: _compared(local, outputs[key]) for key, local in exported.example_outputs.items()}
    return Report(
        name=exported.name,
        version=put.version,
        digest=put.digest,
        nodes=len(exported.program.nodes),
        parameters=sum(tensor.numel() for tensor in exported.tensors.values()),
        weights_bytes=uploaded.file_bytes,
        sent_bytes=uploaded.sent_bytes,
        free_batch=exported.free_batch,
        differences={key: difference for key, (difference, _) in compared.items()},
        magnitudes={key: magnitude for key, (_, magnitude) in compared.items()},
        notes=exported.notes,
    )


def _compared(local: Any, remote: Any) -> tuple[float, float]:
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
