"""GetWeights: a tensor's bytes from its file, in pieces. Which bytes they are, a worker tells.

It knows the store's files and gRPC's writing; nothing of tensors.
"""

from __future__ import annotations

import asyncio
import os

from layerwire.errors import UnavailableError
from layerwire.v1 import store_pb2
from layerwire_server.gateway.rpc import Context, Rpc, Services, parse
from layerwire_server.link import SPAN, Family
from layerwire_server.storage import DamagedError, Store

PIECE_BYTES = 1 << 20
STALL_SECONDS = 30.0  # with a piece that the client doesn't read


class DownloadRpc:
    """The RPC GetWeights.

    Args:
        services: what it shares with others.
        store: where the files are.
    """

    def __init__(self, services: Services, store: Store) -> None:
        self._services = services
        self._store = store
        self._rpc = Rpc("GetWeights", services, "get_weights", exhausted="store_bytes")

    async def get_weights(self, payload: bytes, context: Context) -> None:
        """gRPC: GetWeights."""
        await self._rpc.serve(self._write_tensor(payload, context), context)

    async def _write_tensor(self, payload: bytes, context: Context) -> None:
        answer = await self._services.ask(Family.FIND_WEIGHTS, payload, context)
        place = parse(store_pb2.GetWeightsResponse(), answer)
        begin, end = SPAN.unpack(place.data)
        with await asyncio.to_thread(self._store.open_weights, place.info.tensor.digest) as file:
            await self._write(context, store_pb2.GetWeightsResponse(info=place.info))
            while begin < end:
                piece = await asyncio.to_thread(os.pread, file.fileno(), min(PIECE_BYTES, end - begin), begin)
                if not piece:
                    raise DamagedError(f"the store's file with digest {place.info.tensor.digest} has become shorter")
                await self._write(context, store_pb2.GetWeightsResponse(data=piece))
                begin += len(piece)

    async def _write(self, context: Context, response: store_pb2.GetWeightsResponse) -> None:
        message = response.SerializeToString()
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await context.write(message)
        except TimeoutError:
            raise UnavailableError(f"get_weights: nothing was read for {STALL_SECONDS:g} s") from None
        self._rpc.sent_bytes.add(len(message))
