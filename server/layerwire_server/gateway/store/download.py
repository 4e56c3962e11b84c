"""GetWeights: a tensor's bytes from its file, in pieces. Which bytes they are, a worker tells.

It knows the store's files and gRPC's writing; nothing of tensors.
"""

from __future__ import annotations

import asyncio
import os

from layerwire.errors import UnavailableError
from layerwire.v1 import store_pb2
from layerwire_server.gateway.rpc import Context, FileMethod, Services, parse
from layerwire_server.link import SPAN, Family
from layerwire_server.storage import DamagedError, Store

PIECE_BYTES = 1 << 20
STALL_SECONDS = 30.0  # with a piece that the client doesn't read


class Downloading:
    """The RPC GetWeights.

    Args:
        services: what it shares with others.
        store: where the files are.
    """

    def __init__(self, services: Services, store: Store) -> None:
        self._services = services
        self._store = store
        self._method = FileMethod("GetWeights", "get_weights", services)

    async def give(self, payload: bytes, context: Context) -> None:
        """gRPC: GetWeights."""
        await self._method.serve(self._give(payload, context), context)

    async def _give(self, payload: bytes, context: Context) -> None:
        found = parse(store_pb2.GetWeightsResponse(), await self._services.ask(Family.FIND_WEIGHTS, payload, context))
        begin, end = SPAN.unpack(found.data)
        with await asyncio.to_thread(self._store.open_weights, found.info.tensor.digest) as file:
            await self._write(context, store_pb2.GetWeightsResponse(info=found.info))
            while begin < end:
                piece = await asyncio.to_thread(os.pread, file.fileno(), min(PIECE_BYTES, end - begin), begin)
                if not piece:
                    raise DamagedError(f"the store's file with digest {found.info.tensor.digest} has become shorter")
                await self._write(context, store_pb2.GetWeightsResponse(data=piece))
                begin += len(piece)

    async def _write(self, context: Context, response: store_pb2.GetWeightsResponse) -> None:
        message = response.SerializeToString()
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await context.write(message)
        except TimeoutError:
            raise UnavailableError(f"get_weights: nothing was read for {STALL_SECONDS:g} s") from None
        self._method.sent.add(len(message))
