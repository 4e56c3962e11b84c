"""Copies of stored tensors on this worker's device: one each, shared by all lanes, the least recently used out first.

It knows originals and programs; nothing of names, calls or lanes.

What a call holds stays alive until the call is answered, whatever happens here. What isn't here raises Absent, which
knows how to bring it, so that the loop goes on while the disk is read.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch

from layerwire.errors import InternalError, LayerwireError, ResourceExhaustedError
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.errors import caller_error
from layerwire_server.programs.bind import bind
from layerwire_server.programs.graph import Stored
from layerwire_server.programs.variant import Variant
from layerwire_server.storage.errors import StoreError
from layerwire_server.worker.tensors import spec_of_tensor
from layerwire_server.worker.weights.single_flight import Once
from layerwire_server.worker.weights.stored_tensors import Originals

log = logging.getLogger(__name__)

Value = TypeVar("Value")

_HOLDINGS = 16384  # programs that come with calls and have no weights take none of the bytes


@dataclass(frozen=True, slots=True)
class Weights:
    """A stored tensor: `host` on the CPU, where values are checked, `device` where batches run."""

    digest: Stored
    spec: TensorSpec
    host: torch.Tensor
    device: torch.Tensor


@dataclass(frozen=True, slots=True)
class Bound:
    """The weights of a program on the device, in the order of its graph's constants."""

    digest: str
    device: tuple[torch.Tensor, ...]


Held: TypeAlias = Weights | Bound


class Absent(Exception):
    """What a call needs isn't in memory; `bring` gets it there, once for all who wait."""

    def __init__(self, bring: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.bring = bring


async def brought(absent: Absent) -> LayerwireError | None:
    """Brings what is absent; the error if it can't be."""
    try:
        await absent.bring()
    except LayerwireError as error:
        return error
    except StoreError as error:
        return caller_error(error, "store")
    except (OSError, RuntimeError) as error:
        error_id = secrets.token_hex(8)
        log.exception("weights or a program can't be brought", extra={"fields": {"error_id": error_id}})
        if isinstance(error, torch.OutOfMemoryError):
            return ResourceExhaustedError("the device has no memory for these weights")
        return InternalError(f"weights or a program can't be brought, error id {error_id}", error_id=error_id)
    return None


async def here(find: Callable[[], Value]) -> Value:
    """What `find` gives, once all that it needs is in memory.

    Raises:
        LayerwireError: something can't be brought, or `find` raises it.
    """
    while True:
        try:
            return find()
        except Absent as absent:
            error = await brought(absent)
            if error is not None:
                raise error from None


class _Holding(NamedTuple):
    """What is held for a tensor's or a program's sake: tensors that others may hold too, and bytes of its own."""

    held: Any  # Weights of a tensor, Bound of a program; each call looks it up, so that it isn't told apart again
    shared: Mapping[Stored, Weights]
    own_bytes: int


class Copies:
    """All copies of a worker. Its methods belong to the loop's thread; files are read on others.

    Attributes:
        nbytes: bytes of all copies.
        evicted: how often something was let go for want of room.

    Args:
        originals: the store's tensors.
        upload: takes a CPU tensor to the device.
        max_bytes: most bytes of all copies together.
    """

    def __init__(self, originals: Originals, upload: Callable[[torch.Tensor], torch.Tensor], max_bytes: int) -> None:
        self.nbytes = 0
        self.evicted = 0
        self._originals = originals
        self._upload = upload
        self._max_bytes = max_bytes
        self._holdings: OrderedDict[tuple[str, str], _Holding] = OrderedDict()
        self._pinned: frozenset[tuple[str, str]] = frozenset()
        self._tensors: dict[Stored, Weights] = {}
        self._holders: dict[Stored, int] = {}
        self._coming = Once()

    def pin(self, keys: frozenset[tuple[str, str]]) -> None:
        """From now on these stay, and no others: (digest, key) of tensors, (digest, "") of programs."""
        self._pinned = keys

    def weights(self, stored: Stored) -> Weights:
        """A tensor.

        Raises:
            Absent: it isn't in memory.
        """
        holding = self._holdings.get(stored)
        if holding is None:
            raise Absent(lambda: self._bring(stored, lambda: self._read_tensor(stored)))
        self._holdings.move_to_end(stored)
        weights: Weights = holding.held
        return weights

    def bound(self, digest: str, variant: Variant) -> Bound:
        """A program's weights.

        Raises:
            Absent: they aren't in memory.
        """
        key = digest, "folded" if variant.folded else "plain"
        holding = self._holdings.get(key)
        if holding is None:
            raise Absent(lambda: self._bring(key, lambda: self._read_program(digest, variant)))
        self._holdings.move_to_end(key)
        assert isinstance(holding.held, Bound)
        return holding.held

    async def _bring(self, key: tuple[str, str], read: Callable[[], _Holding]) -> None:
        if key in self._holdings:  # it came between Absent and now: held twice it would never be let go
            return

        async def bring() -> None:
            self._hold(key, await asyncio.to_thread(read))

        await self._coming.do(key, bring)

    def _read_tensor(self, stored: Stored) -> _Holding:
        known = self._tensors.get(stored)
        if known is None:
            (host,) = self._originals.read([stored])
            known = Weights(stored, spec_of_tensor(host), host, self._upload(host))
        return _Holding(known, {stored: known}, 0)

    def _read_program(self, digest: str, variant: Variant) -> _Holding:
        wanted = variant.stored
        # Looked up once: the loop may let go of any of them while the others are read.
        known = {stored: found for stored in wanted if (found := self._tensors.get(stored)) is not None}
        missing = [stored for stored in wanted if stored not in known]
        hosts = dict(zip(missing, self._originals.read(missing), strict=True))
        hosts |= {stored: weights.host for stored, weights in known.items()}
        made = bind(variant, hosts)
        shared: dict[Stored, Weights] = {}
        device: list[torch.Tensor] = []
        own_bytes = 0
        for (_, recipe), host in zip(variant.graph.constants, made, strict=True):
            if isinstance(recipe, Stored):
                shared[recipe] = (
                    known.get(recipe)
                    or shared.get(recipe)
                    or Weights(recipe, spec_of_tensor(host), host, self._upload(host))
                )
                device.append(shared[recipe].device)
            else:
                own_bytes += host.nbytes
                device.append(self._upload(host))
        return _Holding(Bound(digest, tuple(device)), shared, own_bytes)

    def _hold(self, key: tuple[str, str], holding: _Holding) -> None:
        """Keeps what was brought, and lets go what then is too much.

        Raises:
            ResourceExhaustedError: it doesn't fit, even if all goes that isn't pinned.
        """
        self._holdings[key] = holding
        self.nbytes += holding.own_bytes
        for stored, weights in holding.shared.items():
            if stored not in self._tensors:
                self._tensors[stored] = weights
                self.nbytes += weights.spec.nbytes
            self._holders[stored] = self._holders.get(stored, 0) + 1
        for other in list(self._holdings):
            if self.nbytes <= self._max_bytes and len(self._holdings) <= _HOLDINGS:
                return
            if other != key and other not in self._pinned and (other[0], "") not in self._pinned:
                self._let_go(other)
                self.evicted += 1
        if self.nbytes > self._max_bytes:
            needed = self.nbytes
            self._let_go(key)
            rule = f"with what is pinned they take {needed} bytes, over the server's --max-weights-bytes"
            raise ResourceExhaustedError(f"weights don't fit: {rule} {self._max_bytes}")

    def _let_go(self, key: tuple[str, str]) -> None:
        holding = self._holdings.pop(key)
        self.nbytes -= holding.own_bytes
        for stored in holding.shared:
            self._holders[stored] -= 1
            if not self._holders[stored]:
                del self._holders[stored]
                self.nbytes -= self._tensors.pop(stored).spec.nbytes
