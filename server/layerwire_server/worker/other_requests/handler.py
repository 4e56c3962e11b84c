"""Handles frames that bring no calls: estimates, the store's RPCs, models, canary calls, news of names.

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
from layerwire_server.worker.other_requests.store import Method, StoreRequests
from layerwire_server.worker.reading.decoder import CallDecoder
from layerwire_server.worker.reading.requests import parse
from layerwire_server.worker.running.device import Device
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.weights_cache import await_loaded

log = logging.getLogger(__name__)

_SWEEP_SECONDS = 3600.0


class OtherRequests:
    """All that a worker does for its gateways and no lane is needed for.

    Attributes:
        handlers: by the kind of frame.
        unary_handlers: by the RPC of unary frames.
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
        choices = None if device.tuner is None else device.tuner.choices
        self._store_requests = StoreRequests(catalog, device.kind, choices)
        self._methods = {**self._store_requests.methods, **models.methods}
        self._dispatcher = dispatcher
        self._max_answer_bytes = max_answer_bytes
        self._canary = Canary(device, decoder)
        self._links_with_names: weakref.WeakSet[Link] = weakref.WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()
        self.unary_handlers: dict[Family, Callable[[Link, Frame], None]] = {
            Family.ESTIMATE: self._on_estimate,
            **dict.fromkeys(self._methods, self._on_method),
        }
        self.handlers: dict[Kind, Callable[[Link, Frame], None]] = {
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
                await self._store_requests.sweep()
            except (StoreError, OSError) as error:  # the next sweep may do better
                log.warning("the store can't be swept: %s", error)
            await asyncio.sleep(_SWEEP_SECONDS)

    def _on_estimate(self, link: Link, frame: Frame) -> None:
        async def estimate() -> bytes:
            request = parse(layerwire_pb2.EstimateRequest(), frame.payload)
            answer = await await_loaded(lambda: self._decoder.estimate(request))
            return answer.SerializeToString()

        self._answer(link, frame, "estimate", estimate())

    def _on_method(self, link: Link, frame: Frame) -> None:
        method = self._methods[frame.family]
        self._answer(link, frame, method.name, self._response(method, frame))

    async def _response(self, method: Method, frame: Frame) -> bytes:
        request = parse(method.request(), frame.payload, method.most_bytes)
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
            await self._store_requests.refresh()
            return b""

        self._answer(link, frame, "names", refresh())

    def _on_canary(self, link: Link, frame: Frame) -> None:
        async def answer() -> None:
            if link in self._links_with_names and not self._store_requests.is_refreshing:
                # It was sent every change since then. What it wasn't, as when another gateway died before it could, is
                # adopted beside the canary, which would else be late where a large program comes in.
                self.start(self._refresh())
            elif link not in self._links_with_names:
                await self._refresh()  # before it counts as live, a worker knows what the store has
                self._links_with_names.add(link)
            # A busy device counts as well: if it hangs, the dispatcher's watch ends the process.
            is_well = self._dispatcher.busy or await self._dispatcher.on_thread(self._canary.passes)
            link.send(Frame(Kind.CANARY_RESULT, frame.frame, b"{}", Flag.NONE if is_well else Flag.ERROR))

        self.start(answer())

    async def _refresh(self) -> None:
        try:
            await self._store_requests.refresh()
        except (StoreError, OSError):
            log.exception("the store's names can't be read; the old ones stay")

    def _answer(self, link: Link, frame: Frame, subject: str, work: Coroutine[Any, Any, bytes]) -> None:
        """Answers a frame with what the work gives, or with its error."""
        reply = Reply(link, frame, 1, self._max_answer_bytes)
        if any(ordinal & QUARANTINED for ordinal in frame.ordinals):
            work.close()
            reply.refuse(InternalError(f"{subject}: workers died of this request", operator=subject))
            return
        if frame.flags & Flag.ISOLATE:
            reply.announce(0)  # if this worker dies too, the gateway knows of what

        async def answer() -> None:
            try:
                reply.send_message(await work)
            except LayerwireError as error:
                reply.refuse(error)
            except Exception as error:  # whatever it is, the caller gets an answer and the worker lives on
                reply.refuse(_internal_error(subject, error))

        self.start(answer())


def _internal_error(subject: str, error: Exception) -> InternalError:
    error_id = secrets.token_hex(8)
    log.error("%s failed", subject, exc_info=error, extra={"fields": {"error_id": error_id}})
    return InternalError(f"{subject}: failed, error id {error_id}", error_id=error_id)
