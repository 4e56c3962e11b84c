"""A call is admitted, or, beyond what a gateway may hold, refused at once; a stream is read later instead.

It doesn't know what it counts; time is an argument.
"""

from __future__ import annotations

import asyncio
import math
import zlib
from collections.abc import Callable

from layerwire.errors import DeadlineExceededError, ResourceExhaustedError
from layerwire_server.config import Settings, flag
from layerwire_server.metrics import Metrics

_MEMORY_SECONDS = 1.0  # what happened longer ago hardly counts for the drain rate
_LEAST_RETRY_SECONDS = 0.01
_MOST_RETRY_SECONDS = 5.0
_MOST_MESSAGE_BYTES = 2**31 - 1  # gRPC's option is an int


def max_received_bytes(max_message_bytes: int) -> int:
    """The largest message that gRPC is to take in.

    A quarter above the limit, so that most of what is too large is refused and counted here, in words that name the
    flag. Beyond that grpcio refuses before it reads the message, in its own words, uncounted.
    """
    return min(max_message_bytes + max_message_bytes // 4, _MOST_MESSAGE_BYTES)


class DrainRate:
    """How fast something drains, as an average that forgets exponentially."""

    def __init__(self) -> None:
        self._amount = 0.0
        self._since = 0.0

    def add(self, amount: float, now: float) -> None:
        """So much drained now."""
        self._amount = self._amount_at(now) + amount
        self._since = now

    def seconds_for(self, amount: float, now: float) -> float:
        """How long `amount` will take, within what is sensible as advice to a client."""
        rate = self._amount_at(now) / _MEMORY_SECONDS
        seconds = amount / rate if rate > 0 else _MOST_RETRY_SECONDS
        return min(max(seconds, _LEAST_RETRY_SECONDS), _MOST_RETRY_SECONDS)

    def _amount_at(self, now: float) -> float:
        return self._amount * math.exp2((self._since - now) / _MEMORY_SECONDS)


class Account:
    """What a gateway holds of one connection's unary requests.

    Attributes:
        number: the connection's, the same while it lasts; workers share their device by it.
        requests: how many.
        nbytes: their bytes.
    """

    __slots__ = ("nbytes", "number", "peer", "requests")

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.number = zlib.crc32(peer.encode())
        self.requests = 0
        self.nbytes = 0


class Admission:
    """Counts what one gateway holds.

    Attributes:
        nbytes: bytes of requests and answers held, streams' included.
        requests: unary requests held.
        max_message_bytes: of one message.
        answer_bytes: bytes of unary answers that wait for their clients to read them.
        rejections: counters by reason.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.nbytes = 0
        self.requests = 0
        self.answer_bytes = 0
        self._max_bytes = int(settings.max_bytes_in_flight)
        self._max_requests = settings.max_requests_in_flight
        self._drained_bytes = DrainRate()
        self._drained_requests = DrainRate()
        self._accounts: dict[str, Account] = {}  # of connections that have requests here
        self._readers: list[Callable[[], None]] = []  # that wait for room
        self.max_message_bytes = int(settings.max_message_bytes)
        self.rejections = metrics.rejections("gateway")

    def check(self, nbytes: int) -> None:
        """Looks at a message's size; `max_received_bytes` says which come so far.

        Raises:
            ResourceExhaustedError: it is over the limit; it always will be, so retry_after_seconds is None.
        """
        if nbytes > self.max_message_bytes:
            self.rejections["message_bytes"].add()
            # The words up to the bracket's end are grpcio's own: clients find the limit by them.
            raise ResourceExhaustedError(
                f"the message is larger than max ({nbytes} vs. {self.max_message_bytes}), "
                f"the server's {flag('max_message_bytes')}"
            )

    def account(self, peer: str) -> Account:
        """The account of a connection."""
        return self._accounts.get(peer) or Account(peer)

    def check_deadline(self, seconds_left: float, wait_seconds: float, delay_seconds: float) -> None:
        """Looks whether a request can be answered in time.

        No more than half of its time may pass in queues before a worker reads it: there it waits for its turn, and the
        answer has a way to go too. One that is late would only make others late.

        Args:
            seconds_left: until its deadline.
            wait_seconds: that it would wait to be read by a worker.
            delay_seconds: that it has waited here.

        Raises:
            DeadlineExceededError: its time is up.
            ResourceExhaustedError: it will be.
        """
        if seconds_left <= 0.0:
            raise DeadlineExceededError("the deadline passed before the request was read")
        if wait_seconds + delay_seconds > (seconds_left + delay_seconds) / 2:
            self.rejections["queue_seconds"].add()
            raise ResourceExhaustedError(
                f"the server is {wait_seconds + delay_seconds:.3f} s behind, too much with {seconds_left:.3f} s left",
                retry_after_seconds=min(max(wait_seconds, _LEAST_RETRY_SECONDS), _MOST_RETRY_SECONDS),
            )

    def admit(self, nbytes: int, now: float, account: Account | None = None) -> None:
        """Takes a unary request in.

        A connection that has requests here gets no more than half of what others leave, so that it can't shut them out.

        Raises:
            ResourceExhaustedError: it is too large, as in `check`; or there is no room, then retry_after_seconds
                is when there should be.
        """
        self.check(nbytes)
        if self.requests >= self._max_requests:
            seconds = self._drained_requests.seconds_for(1, now)
            raise self._refusal("requests_in_flight", "requests", self._max_requests, seconds)
        if self.nbytes + nbytes > self._max_bytes:
            excess = self.nbytes + nbytes - self._max_bytes
            seconds = self._drained_bytes.seconds_for(excess, now)
            raise self._refusal("bytes_in_flight", "bytes", self._max_bytes, seconds)
        if account is not None:
            self._charge(account, nbytes, now)
        self.requests += 1
        self.nbytes += nbytes

    def leave(self, nbytes: int, now: float, account: Account | None = None) -> None:
        """A unary request is done with."""
        if account is not None:
            account.requests -= 1
            account.nbytes -= nbytes
            if not account.requests:
                del self._accounts[account.peer]
        self.requests -= 1
        self._drained_requests.add(1, now)
        self.release(nbytes, now)

    def hold_answer(self, nbytes: int, now: float) -> None:
        """A unary answer goes to its client.

        gRPC can't take an answer back from a client that doesn't read it. So all of them have half of the room, and
        the other half keeps streams going.

        Raises:
            ResourceExhaustedError: too many others wait to be read.
        """
        if self.answer_bytes and self.answer_bytes + nbytes > self._max_bytes // 2:
            self.rejections["unread_answers"].add()
            raise ResourceExhaustedError(
                f"answers not read yet fill half of the server's {flag('max_bytes_in_flight')} of {self._max_bytes}",
                retry_after_seconds=self._drained_bytes.seconds_for(nbytes, now),
            )
        self.answer_bytes += nbytes
        self.hold(nbytes)

    def release_answer(self, nbytes: int, now: float) -> None:
        """A client has read a unary answer, or is gone."""
        self.answer_bytes -= nbytes
        self.release(nbytes, now)

    def hold(self, nbytes: int) -> None:
        """A stream holds so much more. It may go over the limit by the message that is being read."""
        self.nbytes += nbytes

    def release(self, nbytes: int, now: float) -> None:
        """So much is no longer held."""
        self.nbytes -= nbytes
        self._drained_bytes.add(nbytes, now)
        if self._readers and not self.full:
            readers, self._readers = self._readers, []
            for read_on in readers:
                read_on()

    @property
    def full(self) -> bool:
        """Whether streams have to wait."""
        return self.nbytes >= self._max_bytes

    def on_room(self, read_on: Callable[[], None]) -> None:
        """Calls back when streams may be read again; by then another may have filled the room."""
        self._readers.append(read_on)

    async def room(self) -> None:
        """Waits until streams may be read again."""
        while self.full:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.on_room(lambda future=future: None if future.done() else future.set_result(None))  # type: ignore[misc]
            await future

    def _charge(self, account: Account, nbytes: int, now: float) -> None:
        if not account.requests:
            self._accounts[account.peer] = account
        elif account.requests >= self._max_requests - self.requests:
            seconds = self._drained_requests.seconds_for(1, now)
            raise self._refusal("requests_in_flight", "requests", self._max_requests, seconds, "of this connection ")
        elif account.nbytes + nbytes > self._max_bytes - self.nbytes:
            seconds = self._drained_bytes.seconds_for(nbytes, now)
            raise self._refusal("bytes_in_flight", "bytes", self._max_bytes, seconds, "of this connection ")
        account.requests += 1
        account.nbytes += nbytes

    def _refusal(self, reason: str, unit: str, limit: int, seconds: float, whose: str = "") -> ResourceExhaustedError:
        self.rejections[reason].add()
        knob = flag("max_" + reason)
        return ResourceExhaustedError(
            f"the server holds as many {unit} {whose}as its {knob} of {limit} allows", retry_after_seconds=seconds
        )
