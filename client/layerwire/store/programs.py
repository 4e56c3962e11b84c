"""Programs of the store as functions of an engine: put, list, describe, move the default version, delete.

It knows channels and the contract; neither threads nor torch.
"""

from __future__ import annotations

from typing import NamedTuple

from layerwire.errors import FailedPreconditionError
from layerwire.store import replicas
from layerwire.transport import rpc
from layerwire.transport.engine import Engine
from layerwire.v1 import store_pb2


class ProgramVersion(NamedTuple):
    """A version of a program: its number, its sha256, when it was put in seconds since 1970, whether it is pinned."""

    version: int
    digest: str
    put_seconds: float
    pinned: bool


class Program(NamedTuple):
    """A stored program: its name, the version that calls get which give none, and all versions."""

    name: str
    default_version: int
    versions: tuple[ProgramVersion, ...]


async def list_all(engine: Engine, prefix: str, timeout_seconds: float | None) -> list[Program]:
    """All programs whose names start so, sorted."""
    request, method = store_pb2.ListProgramsRequest(prefix=prefix), "StoreService/ListPrograms"
    pages = await replicas.pages(engine, method, request, store_pb2.ListProgramsResponse, timeout_seconds)
    return [
        Program(
            info.name,
            info.default_version,
            tuple(ProgramVersion(one.version, one.digest, one.put_seconds, one.pinned) for one in info.versions),
        )
        for page in pages
        for info in page.programs
    ]


async def describe(
    engine: Engine, name: str, version: int | None, timeout_seconds: float | None
) -> store_pb2.GetProgramResponse:
    """A program with what is known of it."""
    request, answer = store_pb2.GetProgramRequest(name=name, version=version), store_pb2.GetProgramResponse
    response: store_pb2.GetProgramResponse = await rpc.ask_any(
        engine, "StoreService/GetProgram", request, answer, timeout_seconds
    )
    return response


async def kernels(engine: Engine, prefix: str, timeout_seconds: float | None) -> list[store_pb2.KernelChoice]:
    """Kernels that were chosen by trial for operators whose names start so, sorted."""
    request, method = store_pb2.ListKernelsRequest(prefix=prefix), "StoreService/ListKernels"
    pages = await replicas.pages(engine, method, request, store_pb2.ListKernelsResponse, timeout_seconds)
    return [choice for page in pages for choice in page.kernels]


async def put(
    engine: Engine, request: store_pb2.PutProgramRequest, timeout_seconds: float | None
) -> store_pb2.PutProgramResponse:
    """Keeps a program as a version of a name, the same at every address: the first one's where none is given."""
    method, answer = "StoreService/PutProgram", store_pb2.PutProgramResponse
    first, *others = engine.connections
    put: store_pb2.PutProgramResponse = await rpc.ask(engine, first, method, request, answer, timeout_seconds)
    again = store_pb2.PutProgramRequest()
    again.CopyFrom(request)
    again.version = put.version
    for connection in others:
        try:
            await rpc.ask(engine, connection, method, again, answer, timeout_seconds)
        except FailedPreconditionError:  # where servers share a directory, it is there already
            question = store_pb2.GetProgramRequest(name=request.name, version=put.version)
            response = await rpc.ask(
                engine, connection, "StoreService/GetProgram", question, store_pb2.GetProgramResponse, timeout_seconds
            )
            if response.digest != put.digest:
                raise
    return put


async def set_default(engine: Engine, name: str, version: int, timeout_seconds: float | None) -> None:
    """Moves a program's name to another of its versions."""
    request = store_pb2.SetDefaultVersionRequest(name=name, version=version)
    method, answer = "StoreService/SetDefaultVersion", store_pb2.SetDefaultVersionResponse
    await replicas.ask_all(engine, method, request, answer, timeout_seconds)


async def delete(engine: Engine, name: str, version: int | None, timeout_seconds: float | None) -> None:
    """Forgets one version of a program, or all."""
    request = store_pb2.DeleteProgramRequest(name=name, version=version)
    await replicas.delete(
        engine, "StoreService/DeleteProgram", request, store_pb2.DeleteProgramResponse, timeout_seconds
    )
