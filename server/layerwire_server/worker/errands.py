"""What gateways ask of a worker besides calls: estimates, weights and their names, canary calls.

It knows messages, weights and the device's canary; nothing of lanes.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

from layerwire.errors import InternalError, LayerwireError
from layerwire.v1 import layerwire_pb2
from layerwire_server.link import Family, Flag, Frame, Kind, Link
from layerwire_server.worker import unpack
from layerwire_server.worker.call import CallDecoder
from layerwire_server.worker.canary import Canary
from layerwire_server.worker.device import Device
from layerwire_server.worker.dispatcher import Dispatcher
from layerwire_server.worker.reply import Reply
from layerwire_server.worker.weights import WeightsHolder

log = logging.getLogger(__name__)


class Errands:
    """All that a worker does for its gateways and no lane is needed for.

    Attributes:
        families: what unary frames that bring no call are handled by.
        kinds: the same of frames.
    """

    def __init__(self, device: Device, decoder: CallDecoder, weights: WeightsHolder, dispatcher: Dispatcher) -> None:
        self._decoder = decoder
        self._weights = weights
        self._dispatcher = dispatcher
        self._canary = Canary(device, decoder)
        self._naming = asyncio.Lock()  # names move one after the other, in the order they were told
        self._tasks: set[asyncio.Task[None]] = set()
        self.families: dict[Family, Callable[[Link, Frame], None]] = {
            Family.ESTIMATE: self._on_estimate,
            Family.PUT_WEIGHTS: self._on_put_weights,
        }
        self.kinds: dict[Kind, Callable[[Link, Frame], None]] = {
            Kind.CANARY: self._on_canary,
            Kind.NAME_WEIGHTS: self._on_name_weights,
        }

    @property
    def idle(self) -> bool:
        """Whether nothing is being done."""
        return not self._tasks

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Lets a piece of work run beside the loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_estimate(self, link: Link, frame: Frame) -> None:
        reply = Reply(link, frame, 1)
        try:
            request = unpack.parse(layerwire_pb2.EstimateRequest(), frame.payload)
            reply.give(self._decoder.estimate(request).SerializeToString())
        except LayerwireError as error:
            reply.refuse(error)
        except Exception as error:  # whatever it is, the caller is told and the worker lives on
            reply.refuse(_unforeseen("estimate", error))

    def _on_put_weights(self, link: Link, frame: Frame) -> None:
        async def put() -> bytes:
            request = unpack.parse(layerwire_pb2.PutWeightsRequest(), frame.payload)
            async with self._naming:
                weights = await asyncio.to_thread(self._weights.keep, request)
                self._weights.adopt(request.name, weights)
            return layerwire_pb2.PutWeightsResponse(name=request.name, digest=weights.digest).SerializeToString()

        self.start(self._give(Reply(link, frame, 1), "put_weights", put()))

    def _on_name_weights(self, link: Link, frame: Frame) -> None:
        async def adopt() -> bytes:
            name, _, digest = bytes(frame.payload).decode().partition("\0")
            async with self._naming:
                self._weights.adopt(name, await asyncio.to_thread(self._weights.load, digest))
            return b""

        self.start(self._give(Reply(link, frame, 1), "name_weights", adopt()))

    def _on_canary(self, link: Link, frame: Frame) -> None:
        if not self._naming.locked():
            self._weights.refresh()  # before it counts as live, a worker knows what the store has

        async def sing() -> None:
            # A busy device is taken to be well: if it hangs, the dispatcher's watch ends the process.
            well = self._dispatcher.busy or await self._dispatcher.on_thread(self._canary.sings)
            link.send(Frame(Kind.CANARY_RESULT, frame.frame, b"{}", Flag.NONE if well else Flag.ERROR))

        self.start(sing())

    async def _give(self, reply: Reply, what: str, work: Coroutine[Any, Any, bytes]) -> None:
        try:
            reply.give(await work)
        except LayerwireError as error:
            reply.refuse(error)
        except Exception as error:  # whatever it is, the caller is told and the worker lives on
            reply.refuse(_unforeseen(what, error))


def _unforeseen(what: str, error: Exception) -> InternalError:
    error_id = secrets.token_hex(8)
    log.error("%s failed", what, exc_info=error, extra={"fields": {"error_id": error_id}})
    return InternalError(f"{what}: failed, error id {error_id}", error_id=error_id)
