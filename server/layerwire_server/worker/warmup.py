"""Warm-up: the most frequent batches are remembered in the store, and run once before the worker serves.

It knows batches, the store's directory and devices; nothing of frames. The first call of a shape costs torch its choice
of kernels, buffers and threads, and a program its load; here that costs nobody.

    DIRECTORY/hot/worker-<index>.json      what this worker ran, most often first; counts are halved at each start
    DIRECTORY/hot/worker-<index>.*.warming   held while it warms up: else it died of that, and starts without

What counts is a batch: operator or program, dtypes, shapes, and how many calls it had, rounded up to a power of 2.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from google.protobuf.message import DecodeError

from layerwire.errors import LayerwireError
from layerwire.wire.dtypes import ITEMSIZES
from layerwire_server.storage import durable
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.death_mark import DeathMark
from layerwire_server.worker.lanes.lane import Batch
from layerwire_server.worker.reading.decoder import CallDecoder
from layerwire_server.worker.request_kinds import KINDS
from layerwire_server.worker.request_kinds.kind import RequestKind
from layerwire_server.worker.running.device import Device
from layerwire_server.worker.running.execution import execute
from layerwire_server.worker.weights.weights_cache import CacheMiss, load_error

log = logging.getLogger(__name__)

_MAX_WRITTEN = 64
_MAX_COUNTED = 4096  # kinds of batches: what comes after so many is assumed to be like them
_MOST_BYTES = 64 * 1024**2  # of a batch: larger ones would take long, and take longest in their kernels anyway
_BUDGET_SECONDS = 3.0
_MAX_LOADS = 4
_FORMAT = 1


class FrequentBatch(NamedTuple):
    """A kind of batch.

    Attributes:
        family: its calls' field in Call.
        request: a call's request without options and data, serialized.
        calls: how many calls, a power of 2.
    """

    family: str
    request: bytes
    calls: int

    def to_json(self) -> Any:
        """As it stands in the file."""
        return [self.family, base64.b64encode(self.request).decode(), self.calls]

    @classmethod
    def from_json(cls, entry: Any) -> Self:
        """The reverse; raises ValueError, TypeError or LookupError if it is none."""
        family, request, calls = entry
        return cls(str(family), base64.b64decode(request, validate=True), max(1, int(calls)))


class History:
    """How often which batches ran, and the file in which the most frequent stand.

    Args:
        directory: the store's.
        index: the worker's number.
        read_only: whether nothing may be written there.
    """

    def __init__(self, directory: Path, index: int, *, read_only: bool) -> None:
        self._folder = directory / "hot"
        self._path = self._folder / f"worker-{index}.json"
        self._mark = DeathMark(self._folder, f"worker-{index}", ".warming")
        self._read_only = read_only
        self._counts: Counter[FrequentBatch] = Counter()
        self._earlier_counts: Counter[FrequentBatch] = Counter()
        self._written_total = 0  # batches counted when it was written down last

    def count(self, batch: Batch[CallGroup]) -> None:
        """A batch ran."""
        plan = batch.calls[0].plan
        calls = batch.call_count
        if not plan.recipe or plan.footprint * calls > _MOST_BYTES:
            return
        key: Any = (plan.operator.family, plan.recipe, 1 << (calls - 1).bit_length())  # equal to a FrequentBatch
        count = self._counts.get(key)
        if count is not None:
            self._counts[key] = count + 1
        elif len(self._counts) < _MAX_COUNTED:
            self._counts[FrequentBatch(*key)] = 1

    def read(self) -> list[FrequentBatch]:
        """The batches of earlier lives of all workers, most frequent first; call `end_warmup` when they ran."""
        if self._died_of_it():
            return []
        counts: Counter[FrequentBatch] = Counter()
        for path in sorted(self._folder.glob("worker-*.json")):
            counts.update(_read(path))
        self._earlier_counts = Counter({batch: count // 2 for batch, count in counts.items() if count > 1})
        return [batch for batch, _ in counts.most_common(_MAX_WRITTEN)]

    def end_warmup(self) -> None:
        """The worker lived through its warm-up."""
        self._mark.remove()

    def _died_of_it(self) -> bool:
        if self._read_only or not self._folder.is_dir():
            return False
        if self._mark.take_dead():
            log.error("an earlier worker died of its warm-up: this one starts without")
            self._path.unlink(missing_ok=True)
            return True
        try:
            self._mark.put()
        except OSError as error:  # a full disk: served all the same
            log.warning("a warm-up that kills this worker won't be known again: %s", error)
        return False

    def unwritten(self) -> bytes | None:
        """What is to be written down now; None if nothing ran since it was last. On the loop's thread."""
        total = self._counts.total()
        if self._read_only or total == self._written_total:
            return None
        self._written_total = total
        counts = self._earlier_counts + self._counts
        entries = [[count, batch.to_json()] for batch, count in counts.most_common(_MAX_WRITTEN)]
        return json.dumps({"format": _FORMAT, "hot": entries}).encode()

    def write(self, content: bytes) -> None:
        """Writes it down; for any thread. If it can't be written, the next start is slower, no more."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            durable.write_file(self._path, content)
        except OSError as error:
            log.warning("what is hot can't be written down: %s", error)


def _read(path: Path) -> Counter[FrequentBatch]:
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != _FORMAT:
            return Counter()
        return Counter({FrequentBatch.from_json(entry): int(count) for count, entry in content["hot"][:_MAX_WRITTEN]})
    except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        log.warning("%s is passed over: %s", path.name, error)
        return Counter()


async def warm_up(device: Device, decoder: CallDecoder, batches: Sequence[FrequentBatch]) -> int:
    """Runs batches, for a few seconds at most; how many of them ran.

    Raises:
        DeviceLostError: the device didn't survive it.
    """
    end_time = time.monotonic() + _BUDGET_SECONDS
    runs = 0
    for batch in batches:
        if time.monotonic() > end_time:
            break
        call = await _call(decoder, batch)
        if call is None:
            continue
        count = max(1, min(batch.calls, _MOST_BYTES // max(call.footprint, 1)))
        # Deterministic tiles and what runs alone take one call at a time.
        await asyncio.to_thread(execute, device, call.key, [call] * (count if call.key.max_rows > 1 else 1))
        runs += 1
    return runs


async def _call(decoder: CallDecoder, batch: FrequentBatch) -> CallGroup | None:
    """The call, its data zeros; None where it can't be any more, as after its program was deleted."""
    try:
        kind = KINDS[batch.family]
        request = _zero_request(kind, batch.request)
        for _ in range(_MAX_LOADS):
            try:
                return decoder.decode(kind, request, time.monotonic(), float("inf"))
            except CacheMiss as miss:
                error = await load_error(miss)
                if error is not None:
                    raise error from None
    except (LayerwireError, DecodeError, ValueError, LookupError) as error:
        log.info("not warmed up: %s", error)
    return None


def _zero_request(kind: RequestKind, recipe: bytes) -> Any:
    """The request of a recipe, with zeros for data.

    Raises:
        DecodeError, ValueError, LookupError: it is none, or too large.
    """
    request = kind.request_type()
    request.ParseFromString(recipe)
    for tensor in kind.recipe_tensors(request):
        nbytes = ITEMSIZES.get(tensor.dtype, 0)
        for size in tensor.shape:
            nbytes *= size
        if not 0 <= nbytes <= _MOST_BYTES:
            raise ValueError(f"{nbytes} bytes are more than are warmed up")
        tensor.data = bytes(nbytes)
    return request
