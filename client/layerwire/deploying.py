"""Clients of both faces as what deploying needs: files sent, programs put and run.

It knows clients and deploying's `Store`; neither channels nor torch, but that tensors may require gradients.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from layerwire.calls import Calls
from layerwire.store import programs, uploads
from layerwire.store.uploads import Progress, Uploaded
from layerwire.transport.options import Options
from layerwire.transport.sessions import LoopSession, ThreadSession
from layerwire.v1 import store_pb2
from layerwire.wire.safetensors import SafetensorsFile

Value = TypeVar("Value")


class ClientStore:
    """The Store of layerwire.export that a blocking client is.

    Args:
        session: the client's.
        options: its options.
        calls: its operators.
    """

    def __init__(self, session: ThreadSession, options: Options, calls: Calls[Any]) -> None:
        self._session = session
        self._timeout = options.timeout
        self._calls = calls

    def upload(self, file: SafetensorsFile, progress: Progress | None, /) -> Uploaded:
        """See Store."""
        return self._session.run(lambda engine: uploads.upload(engine, file, self._timeout, progress))

    def put_program(self, request: store_pb2.PutProgramRequest, /) -> store_pb2.PutProgramResponse:
        """See Store."""
        return self._session.run(lambda engine: programs.put(engine, request, self._timeout))

    def run(self, name: str, version: int | None, inputs: Mapping[str, Any], /) -> Mapping[str, Any]:
        """See Store; autograd goes back through it where an input requires a gradient."""
        calls: Any = self._calls
        if _recorded(inputs):
            from layerwire.autograd import Functional

            calls = Functional(calls)
        outputs: Mapping[str, Any] = calls.run(name, inputs, version=version)
        return outputs


class AsyncClientStore:
    """The same of an AsyncClient, for a thread beside its loop: deploying computes for long.

    Args: those of ClientStore.
    """

    def __init__(self, session: LoopSession, options: Options, calls: Calls[Coroutine[Any, Any, Any]]) -> None:
        self._engine = session.engine()
        self._timeout = options.timeout
        self._calls = calls

    def upload(self, file: SafetensorsFile, progress: Progress | None, /) -> Uploaded:
        """See Store."""
        return self._awaited(uploads.upload(self._engine, file, self._timeout, progress))

    def put_program(self, request: store_pb2.PutProgramRequest, /) -> store_pb2.PutProgramResponse:
        """See Store."""
        return self._awaited(programs.put(self._engine, request, self._timeout))

    def run(self, name: str, version: int | None, inputs: Mapping[str, Any], /) -> Mapping[str, Any]:
        """See Store."""
        outputs: Mapping[str, Any] = self._awaited(self._calls.run(name, inputs, version=version))
        return outputs

    def _awaited(self, work: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(work, self._engine.loop).result()


def _recorded(inputs: Mapping[str, Any]) -> bool:
    """Whether torch records what is done with one of them."""
    torch = sys.modules.get("torch")  # who has a tensor has imported torch
    return (
        torch is not None
        and torch.is_grad_enabled()
        and any(isinstance(value, torch.Tensor) and value.requires_grad for value in inputs.values())
    )
