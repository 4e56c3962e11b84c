"""The clients' methods for the store: weights and programs by name, and what is deployed.

It knows sessions and the store's functions; how they travel is theirs to know.

The methods of AwaitableStoreMethods are those of BlockingStoreMethods, to be awaited.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy.typing as npt

from layerwire.calls import TensorLike
from layerwire.client_methods import AwaitableView, BlockingView
from layerwire.store import programs, uploads, weights
from layerwire.store.programs import Program
from layerwire.store.uploads import LocalFile, Progress
from layerwire.store.weights import Weights
from layerwire.transport.options import Options
from layerwire.transport.sessions import LoopSession, ThreadSession
from layerwire.v1 import program_pb2, store_pb2

if TYPE_CHECKING:
    from layerwire.deploy import AsyncRemoteProgram, Module, RemoteProgram

Outputs = TypeVar("Outputs")


class BlockingStoreMethods(BlockingView):
    """The store's methods, which return the answer."""

    _session: ThreadSession
    _options: Options

    def put_weights(
        self, name: str | Mapping[str, TensorLike], array: TensorLike | None = None, *, pinned: bool = False
    ) -> str:
        """Gives a tensor a name that calls may use in its place; returns the sha256 digest of the file it is in.

        It goes to every address. A name that is there already moves to the new tensor at once. A large one goes in
        pieces, and on where it broke off; `timeout` is then the longest that a piece may take.

        Args:
            name: the name, or a mapping of names to tensors, which go in one file and get their names all at once.
            array: the tensor.
            pinned: whether it stays on devices when room is short.
        """
        timeout = self._options.timeout
        return self._session.run(lambda engine: weights.put(engine, name, array, timeout, pinned=pinned))

    def upload(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> str:
        """Sends what the server hasn't got of a safetensors file; returns its sha256 digest.

        Its tensors have no names yet; a file that nothing names or needs is deleted after an hour.

        Args:
            path: the file.
            progress: called after each piece with the bytes that are there and those of the file, on another thread.
        """
        file, timeout = LocalFile(path), self._options.timeout
        self._session.run(lambda engine: uploads.upload(engine, file, timeout, progress))
        return file.digest

    def import_weights(
        self,
        path: str | os.PathLike[str],
        prefix: str = "",
        *,
        pinned: bool = False,
        progress: Progress | None = None,
    ) -> list[str]:
        """Uploads a safetensors file and names its tensors prefix + key, up to 8192 of them at once; the names."""
        timeout = self._options.timeout
        return self._session.run(
            lambda engine: weights.import_file(engine, path, prefix, timeout, progress, pinned=pinned)
        )

    def weights(self, prefix: str = "") -> list[Weights]:
        """Named weights, those whose names start so, sorted by name."""
        return self._session.run(lambda engine: weights.list_all(engine, prefix, self._options.timeout))

    def get_weights(self, name: str) -> npt.NDArray[Any]:
        """A named tensor; `timeout` is the longest wait for a piece of it."""
        return self._session.run(lambda engine: weights.get(engine, name, self._options.timeout))

    def delete_weights(self, *names: str) -> None:
        """Forgets names of weights, all or none. Calls that run and programs keep their tensors."""
        self._session.run(lambda engine: weights.delete(engine, names, self._options.timeout))

    def put_program(
        self,
        name: str,
        program: program_pb2.Program,
        *,
        version: int | None = None,
        keep_default_version: bool = False,
        pinned: bool = False,
    ) -> store_pb2.PutProgramResponse:
        """Has a program checked and kept as a version of a name; the answer tells which version.

        Args:
            name: the program's name.
            program: the program; `layerwire.export` makes one of a torch.nn.Module.
            version: its number, not there yet; None: one more than the highest.
            keep_default_version: whether calls that give no version stay with the version they get now.
            pinned: whether its weights stay on devices when room is short.
        """
        request = _put_program(name, program, version, keep_default_version, pinned)
        return self._session.run(lambda engine: programs.put(engine, request, self._options.timeout))

    def programs(self, prefix: str = "") -> list[Program]:
        """Stored programs, those whose names start so, sorted by name."""
        return self._session.run(lambda engine: programs.list_all(engine, prefix, self._options.timeout))

    def describe(self, name: str, version: int | None = None) -> store_pb2.GetProgramResponse:
        """A stored program with the shapes, parameters and operations of its nodes; None: its default version."""
        return self._session.run(lambda engine: programs.describe(engine, name, version, self._options.timeout))

    def kernels(self, prefix: str = "") -> list[store_pb2.KernelChoice]:
        """Which kernels the server chose by trial, for operators whose names start so, sorted; "run": programs."""
        return self._session.run(lambda engine: programs.kernels(engine, prefix, self._options.timeout))

    def set_default_version(self, name: str, version: int) -> None:
        """Moves a program's name to another of its versions, at once; calls that run end on the old one."""
        self._session.run(lambda engine: programs.set_default(engine, name, version, self._options.timeout))

    def delete_program(self, name: str, version: int | None = None) -> None:
        """Forgets one version of a program, or all. Calls that run end well."""
        self._session.run(lambda engine: programs.delete(engine, name, version, self._options.timeout))

    def deploy(
        self,
        name: str,
        module: Module[Outputs],
        *example_inputs: Any,
        fold_batch_norm: bool | None = None,
        pinned: bool = False,
        progress: Progress | None = None,
    ) -> RemoteProgram[Outputs]:
        """Puts a torch.nn.Module on the server as data, and returns it as a function; `report` tells how it went.

        Args:
            name: the program's name; one that is there gets a new version, which calls get from now on.
            module: the module, in evaluation.
            example_inputs: what it is called with, once here and once there, to compare the answers.
            fold_batch_norm: whether batch norms are folded into the weights before them; None: as the server does.
            pinned: whether its weights stay on devices when room is short.
            progress: called after each piece of the weights, as in `upload`.

        Raises:
            UnsupportedModuleError: the module makes calls that no program can express; it lists every one.
            LayerwireError: the server refuses it or can't be reached.
        """
        from layerwire import deploy

        return deploy.deploy(
            deploy.store_of_client(self._session, self._options, self), name, module, *example_inputs,
            fold_batch_norm=fold_batch_norm, pinned=pinned, progress=progress,
        )  # fmt: skip

    def program(self, name: str, version: int | None = None) -> RemoteProgram[Any]:
        """A stored program as a function; without a version it calls whichever is the default one then.

        It takes and returns numpy arrays or torch tensors, and torch's autograd can go back through it to its inputs.
        """
        from layerwire import deploy

        store = deploy.store_of_client(self._session, self._options, self)
        inputs = [one.name for one in self.describe(name, version).inputs]
        return deploy.RemoteProgram(store.run, name, inputs, version=version)


class AwaitableStoreMethods(AwaitableView):
    """The store's methods, to be awaited; see BlockingStoreMethods."""

    _session: LoopSession
    _options: Options

    async def put_weights(
        self, name: str | Mapping[str, TensorLike], array: TensorLike | None = None, *, pinned: bool = False
    ) -> str:
        """As `Client.put_weights`."""
        return await weights.put(self._session.engine(), name, array, self._options.timeout, pinned=pinned)

    async def upload(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> str:
        """As `Client.upload`; `progress` is called on the loop."""
        file = LocalFile(path)
        await uploads.upload(self._session.engine(), file, self._options.timeout, progress)
        return file.digest

    async def import_weights(
        self,
        path: str | os.PathLike[str],
        prefix: str = "",
        *,
        pinned: bool = False,
        progress: Progress | None = None,
    ) -> list[str]:
        """As `Client.import_weights`; `progress` is called on the loop."""
        engine, timeout = self._session.engine(), self._options.timeout
        return await weights.import_file(engine, path, prefix, timeout, progress, pinned=pinned)

    async def weights(self, prefix: str = "") -> list[Weights]:
        """As `Client.weights`."""
        return await weights.list_all(self._session.engine(), prefix, self._options.timeout)

    async def get_weights(self, name: str) -> npt.NDArray[Any]:
        """As `Client.get_weights`."""
        return await weights.get(self._session.engine(), name, self._options.timeout)

    async def delete_weights(self, *names: str) -> None:
        """As `Client.delete_weights`."""
        await weights.delete(self._session.engine(), names, self._options.timeout)

    async def put_program(
        self,
        name: str,
        program: program_pb2.Program,
        *,
        version: int | None = None,
        keep_default_version: bool = False,
        pinned: bool = False,
    ) -> store_pb2.PutProgramResponse:
        """As `Client.put_program`."""
        request = _put_program(name, program, version, keep_default_version, pinned)
        return await programs.put(self._session.engine(), request, self._options.timeout)

    async def programs(self, prefix: str = "") -> list[Program]:
        """As `Client.programs`."""
        return await programs.list_all(self._session.engine(), prefix, self._options.timeout)

    async def describe(self, name: str, version: int | None = None) -> store_pb2.GetProgramResponse:
        """As `Client.describe`."""
        return await programs.describe(self._session.engine(), name, version, self._options.timeout)

    async def kernels(self, prefix: str = "") -> list[store_pb2.KernelChoice]:
        """As `Client.kernels`."""
        return await programs.kernels(self._session.engine(), prefix, self._options.timeout)

    async def set_default_version(self, name: str, version: int) -> None:
        """As `Client.set_default_version`."""
        await programs.set_default(self._session.engine(), name, version, self._options.timeout)

    async def delete_program(self, name: str, version: int | None = None) -> None:
        """As `Client.delete_program`."""
        await programs.delete(self._session.engine(), name, version, self._options.timeout)

    async def deploy(
        self,
        name: str,
        module: Module[Outputs],
        *example_inputs: Any,
        fold_batch_norm: bool | None = None,
        pinned: bool = False,
        progress: Progress | None = None,
    ) -> AsyncRemoteProgram[Outputs]:
        """As `Client.deploy`, on a thread beside the loop; what is returned is awaited: `scores = await remote(x)`."""
        from layerwire import deploy

        store = deploy.store_of_async_client(self._session, self._options, self)
        remote = await asyncio.to_thread(
            deploy.deploy, store, name, module, *example_inputs,
            fold_batch_norm=fold_batch_norm, pinned=pinned, progress=progress,
        )  # fmt: skip
        return remote.awaitable(self)

    async def program(self, name: str, version: int | None = None) -> AsyncRemoteProgram[Any]:
        """As `Client.program`; what it returns is awaited, and has no gradients."""
        from layerwire import deploy

        inputs = [one.name for one in (await self.describe(name, version)).inputs]
        return deploy.AsyncRemoteProgram(deploy.run_awaited(self), name, inputs, version=version)


def _put_program(
    name: str, program: program_pb2.Program, version: int | None, keep_default_version: bool, pinned: bool
) -> store_pb2.PutProgramRequest:
    return store_pb2.PutProgramRequest(
        name=name, program=program, version=version, keep_default_version=keep_default_version, pinned=pinned
    )
