"""Connections to one server, as many as calls in flight need.

It knows gRPC's channels; nothing of what is called over them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import grpc
import grpc.aio

# Servers bound the calls on one connection, Layerwire to 1,000 unless --max-concurrent-streams says otherwise; what is
# beyond would wait in this client without a word, so the next connection comes well before.
CALLS_OF_A_CHANNEL = 500
MAX_CHANNELS = 64
CONNECT_SECONDS = 5.0

_STATES = grpc.ChannelConnectivity
_FINAL = (_STATES.READY, _STATES.TRANSIENT_FAILURE, _STATES.SHUTDOWN)


async def connect(channel: grpc.aio.Channel) -> None:
    """Waits until it is known whether there is a connection. That there is none the first call will tell."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CONNECT_SECONDS):
            while (state := channel.get_state(try_to_connect=True)) not in _FINAL:
                await channel.wait_for_state_change(state)


class Channels:
    """Channels to one server, taken in turn; the first is there from the beginning.

    Args:
        make: makes one. Each must have a connection of its own (grpc.use_local_subchannel_pool).
    """

    def __init__(self, make: Callable[[], grpc.aio.Channel]) -> None:
        self._make = make
        self.all = [make()]

    def count(self, in_flight: int) -> int:
        """How many there are, after adding what so many calls in flight need."""
        while in_flight > CALLS_OF_A_CHANNEL * len(self.all) and len(self.all) < MAX_CHANNELS:
            self.all.append(self._make())
        return len(self.all)

    async def close(self) -> None:
        """Ends all connections; calls on them end with CANCELLED."""
        for channel in self.all:
            await channel.close()
