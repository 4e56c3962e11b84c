"""A worker without operators: speaks the link over a real unix socket, and answers what a test tells it to.

Its canary passes unless `passes` is set otherwise: False for a wrong answer, None for none. All other
frames wait in `frames` for the test.
"""

from __future__ import annotations

import asyncio
import json

from layerwire_server.link import Flag, Frame, Kind, Link

HELLO = {
    "index": 0,
    "device": "cpu",
    "device_name": "a fake",
    "torch_version": "9.9",
    "operators": ["relu", "conv2d"],
    "numerics": {"tf32": False},
}
ROOM_BYTES = 1 << 28


class FakeWorker:
    """One worker; `start` and `die` as often as wanted."""

    def __init__(self, path):
        self.path = path
        self.frames = asyncio.Queue()
        self.passes = True
        self.canaries = asyncio.Queue()
        self.links = set()
        self._server = None

    async def start(self):
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: Link(self, ROOM_BYTES), self.path)

    async def die(self):
        """As if it were killed: no goodbye, frames unanswered."""
        self._server.close()
        for link in list(self.links):
            link.close()
        await self._server.wait_closed()
        self.frames = asyncio.Queue()

    def on_connect(self, link):
        self.links.add(link)
        link.send(Frame(Kind.HELLO, payload=json.dumps(HELLO).encode()))

    def on_frame(self, link, frame):
        if frame.kind is not Kind.CANARY:
            self.frames.put_nowait(frame)
            return
        if self.passes is not None:
            link.send(Frame(Kind.CANARY_RESULT, frame.frame, b"{}", Flag.NONE if self.passes else Flag.ERROR))
        self.canaries.put_nowait(frame)

    def on_disconnect(self, link, error):
        self.links.discard(link)

    async def next(self, kind):
        """The next frame, which has to be of this kind."""
        frame = await asyncio.wait_for(self.frames.get(), 10)
        assert frame.kind is kind, frame
        return frame

    def send(self, frame):
        (link,) = self.links
        link.send(frame)

    def answer(self, frame, payload, *ordinals, last=True, error=False):
        flags = (Flag.LAST if last else Flag.NONE) | (Flag.ERROR if error else Flag.NONE)
        self.send(Frame(Kind.ANSWERS, frame.frame, payload, flags, ordinals=ordinals))

    def write_garbage(self):
        (link,) = self.links
        link._transport.write(b"\x00" * 200)
