"""What gateways ask of a worker besides calls: estimates, the store's RPCs, canary calls, news of names.

It knows frames, the canary and who does the work; nothing of lanes.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

from layerwire.errors import InternalError, LayerwireError, ResourceExhaustedError
from layerwire.v1 import layerwire_pb2
from layerwire_server.errors import caller_error
from layerwire_server.link import QUARANTINED, Family, Flag, Frame, Kind, Link
from layerwire_server.storage import InvalidNameError, StoreError
from layerwire_server.worker.answering.reply import Reply
from layerwire_server.worker.canary import Canary
from layerwire_server.worker.dispatcher import Dispatcher
from layerwire_server.worker.other_requests.models import Models
from layerwire_server.worker.other_requests.store import Keeping, Method
from layerwire_server.worker.reading import frame as reading
from layerwire_server.worker.reading.call import CallDecoder
from layerwire_server.worker.running.device import Device
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.weights_cache import here

log = logging.getLogger(__name__)

_SWEEP_SECONDS = 3600.0


class Errands:
    """All that a worker does for its gateways and no lane is needed for.

    Attributes:
        families: what unary frames that bring no call are handled by.
        kinds: the same of frames.
    """

    def __init__(
        self,
        device: Device,
        decoder: CallDecoder,
        catalog: Catalog,
        models: Models,
        dispatcher: Dispatcher,
        max_answer_bytes: int,
    ) -> None:
        self._decoder = decoder
        self._keeping = Keeping(catalog, device.kind)
        self._methods = {**self._keeping.methods, **models.methods}
        self._dispatcher = dispatcher
        self._max_answer_bytes = max_answer_bytes
        self._canary = Canary(device, decoder)
        self._told: weakref.WeakSet[Link] = weakref.WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()
        self.families: dict[Family, Callable[[Link, Frame], None]] = {
            Family.ESTIMATE: self._on_estimate,
            **dict.fromkeys(self._methods, self._on_method),
        }
        self.kinds: dict[Kind, Callable[[Link, Frame], None]] = {
            Kind.CANARY: self._on_canary,
            Kind.NAMES_CHANGED: self._on_names_changed,
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

    async def keep_swept(self) -> None:
        """Sweeps the store now and then, until cancelled; one worker does it for all."""
        while True:
            try:
                await self._keeping.sweep()
            except (StoreError, OSError) as error:  # the next sweep may do better
                log.warning("the store can't be swept: %s", error)
            await asyncio.sleep(_SWEEP_SECONDS)

    def _on_estimate(self, link: Link, frame: Frame) -> None:
        async def estimate() -> bytes:
            request = reading.parse(layerwire_pb2.EstimateRequest(), frame.payload)
            answer = await here(lambda: self._decoder.estimate(request))
            return answer.SerializeToString()

        self._give(link, frame, "estimate", estimate())

    def _on_method(self, link: Link, frame: Frame) -> None:
        method = self._methods[frame.family]
        self._give(link, frame, method.name, self._done(method, frame))

    async def _done(self, method: Method, frame: Frame) -> bytes:
        request = reading.parse(method.request(), frame.payload, method.most_bytes)
        try:
            answer: bytes = (await method.do(request)).SerializeToString()
        except StoreError as error:
            # Its words begin with what breaks the rule: "name must be ...".
            field = str(error).split(maxsplit=1)[0] if isinstance(error, InvalidNameError) else ""
            if caller_error(error, method.name).code.name == "INTERNAL":
                log.exception("%s failed", method.name)
            raise caller_error(error, method.name, field) from None
        if len(answer) > self._max_answer_bytes:
            rule = f"{len(answer)} bytes, over the server's --max-message-bytes {self._max_answer_bytes}"
            raise ResourceExhaustedError(f"{method.name}: the answer takes {rule}", operator=method.name)
        return answer

    def _on_names_changed(self, link: Link, frame: Frame) -> None:
        async def refresh() -> bytes:
            await self._keeping.refresh()
            return b""

        self._give(link, frame, "names", refresh())

    def _on_canary(self, link: Link, frame: Frame) -> None:
        async def sing() -> None:
            if link in self._told and not self._keeping.refreshing:
                # It has been told of every change since then. What it wasn't, as when another gateway died before it
                # could, is adopted beside the canary, which would else be late where a large program comes in.
                self.start(self._refresh())
            elif link not in self._told:
                await self._refresh()  # before it counts as live, a worker knows what the store has
                self._told.add(link)
            # A busy device is taken to be well: if it hangs, the dispatcher's watch ends the process.
            well = self._dispatcher.busy or await self._dispatcher.on_thread(self._canary.sings)
            link.send(Frame(Kind.CANARY_RESULT, frame.frame, b"{}", Flag.NONE if well else Flag.ERROR))

        self.start(sing())

    async def _refresh(self) -> None:
        try:
            await self._keeping.refresh()
        except (StoreError, OSError):
            log.exception("the store's names can't be read; the old ones stay")

    def _give(self, link: Link, frame: Frame, what: str, work: Coroutine[Any, Any, bytes]) -> None:
        """Answers a frame with what the work gives, or with its error."""
        reply = Reply(link, frame, 1, self._max_answer_bytes)
        if any(ordinal & QUARANTINED for ordinal in frame.ordinals):
            work.close()
            reply.refuse(InternalError(f"{what}: workers died of this request", operator=what))
            return
        if frame.flags & Flag.ISOLATE:
            reply.start(0)  # if this worker dies too, the gateway knows of what

        async def give() -> None:
            try:
                reply.give(await work)
            except LayerwireError as error:
                reply.refuse(error)
            except Exception as error:  # whatever it is, the caller is told and the worker lives on
                reply.refuse(_unforeseen(what, error))

        self.start(give())


def _unforeseen(what: str, error: Exception) -> InternalError:
    error_id = secrets.token_hex(8)
    log.error("%s failed", what, exc_info=error, extra={"fields": {"error_id": error_id}})
    return InternalError(f"{what}: failed, error id {error_id}", error_id=error_id)
