"""A server that does what a test tells it: answers in any order, never, wrongly, or not at all.

It knows the contract and numpy; nothing of the client's inside. It runs on a thread of its own, for blocking clients
and event loops alike; `python -m tests.transport.fake_server` runs it alone, for benchmarks.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable
from typing import Any, Self

import grpc
import grpc.aio
import numpy as np

from layerwire.errors import LayerwireError, to_status
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire import arrays, dtypes, framing
from tests.transport import groups

SERVICE = "layerwire.v1.LayerwireService"
HEALTH = "grpc.health.v1.Health"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
PATIENCE_SECONDS = 20.0


class FakeStream:
    """One Stream RPC, as the server sees it; all methods are called on the server's loop."""

    def __init__(self, server: FakeServer, context: Any) -> None:
        self.server = server
        self.metadata = dict(context.invocation_metadata())
        self.outgoing: asyncio.Queue[Any] = asyncio.Queue()
        self.group_ids: set[int] = set()  # of calls that came in groups, whose answers go in groups
        self._answers: list[pb.Answer] = []

    def reply(self, call: pb.Call) -> None:
        """The right answer, if the call is an activation: that of relu."""
        if call.id in self.group_ids:
            self.answer(id=call.id, activate=pb.StreamResponse.FromString(relu(call)).answers[0].activate)
        else:
            self.outgoing.put_nowait(relu(call))

    def answer(self, **fields: Any) -> None:
        answer = pb.Answer(**fields)
        if answer.id in self.group_ids:
            if not self._answers:
                asyncio.get_running_loop().call_soon(self._flush)
            self._answers.append(answer)
        else:
            self.outgoing.put_nowait(pb.StreamResponse(answers=[answer]).SerializeToString())

    def answer_group(self, template: bytes, ids: list[int], *data: bytes) -> None:
        packed = struct.pack(f"<{len(ids)}Q", *ids)
        self.send(
            pb.StreamResponse(groups=[pb.AnswerGroup(template=template, ids=packed, data=data)]).SerializeToString()
        )

    def _flush(self) -> None:
        answers, self._answers = self._answers, []
        self.send(pb.StreamResponse(groups=groups.of_answers(answers)).SerializeToString())

    def refuse(self, call: pb.Call, error: LayerwireError) -> None:
        status = pb.Status.FromString(to_status(error).SerializeToString())
        self.answer(id=call.id, status=status)

    def send(self, frame: bytes) -> None:
        self.outgoing.put_nowait(frame)

    def end(self, code: grpc.StatusCode, details: str = "") -> None:
        self.outgoing.put_nowait((code, details))


def relu(call: pb.Call) -> bytes:
    """A StreamResponse with the answer to a call of relu."""
    tensor = call.activate.input
    data = np.maximum(np.frombuffer(tensor.data, arrays.numpy_dtype(tensor.dtype)), 0).tobytes()
    spec = dtypes.TensorSpec(tensor.dtype, tuple(tensor.shape))
    template = _templates.get(spec)
    if template is None:
        number = pb.Answer.DESCRIPTOR.fields_by_name["activate"].number
        template = _templates[spec] = framing.entry(number, b"", [(1, spec)])
    return b"".join(template.parts(call.id, [data]))


_templates: dict[dtypes.TensorSpec, framing.Entry] = {}


class FakeServer:
    """Serves Stream as `script` says, and the unary methods in `unary`.

    Attributes:
        script: called with the stream and each call, on the server's loop; default: the right answer at once.
        calls: all calls that came.
        cancelled: ids of all cancellations.
        streams: all streams that were opened.
        unary: method name -> what answers its bytes.
        health: the health service's answer; None: there is no such service.
        credentials: what TLS is spoken with; None: none is.
        takes_groups: whether streams that are opened from now on take groups of calls.
        refuses_streams: whether streams end at once as UNAUTHENTICATED, "not you".
        groups: all groups that came.
    """

    def __init__(
        self,
        script: Callable[[FakeStream, pb.Call], None] = FakeStream.reply,
        health: bytes | None = SERVING,
        credentials: grpc.ServerCredentials | None = None,
        **options: int,
    ) -> None:
        self.script = script
        self.options = [(f"grpc.{name}", value) for name, value in options.items()]
        self.calls: list[pb.Call] = []
        self.frames: list[int] = []
        self.cancelled: list[int] = []
        self.streams: list[FakeStream] = []
        self.unary: dict[str, Callable[[bytes], bytes]] = {}
        self.health = health
        self.credentials = credentials
        self.takes_groups = False
        self.refuses_streams = False
        self.groups: list[pb.CallGroup] = []
        self.port = 0
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: None)  # another loop's wake-ups, grpc/grpc#25364
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> FakeServer:
        if not self._thread.is_alive():
            self._thread.start()
        self.run(self._start())
        return self

    def stop(self) -> None:
        """Stops listening and breaks all connections; `start` listens on the same port again."""
        if self._server is not None:
            self.run(self._server.stop(None))
            self._server = None

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_SECONDS)

    def soon(self, function: Callable[..., Any], *args: Any) -> None:
        """Calls a function on the server's loop."""
        self._loop.call_soon_threadsafe(function, *args)

    def wait_for(self, predicate: Callable[[], bool]) -> None:
        """Waits until something that the server sees is so."""
        with self._changed:
            assert self._changed.wait_for(predicate, PATIENCE_SECONDS)

    async def until(self, predicate: Callable[[], bool]) -> None:
        """As `wait_for`, for tasks."""
        await asyncio.to_thread(self.wait_for, predicate)

    def changed(self) -> None:
        with self._changed:
            self._changed.notify_all()

    async def _start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *self.options])
        stream = grpc.stream_stream_rpc_method_handler(self._stream)
        methods = {"Stream": stream} | {name: self._unary_handler(name) for name in self.unary}
        handlers = [grpc.method_handlers_generic_handler(SERVICE, methods)]
        if self.health is not None:
            check = grpc.unary_unary_rpc_method_handler(self._check)
            watch = grpc.unary_stream_rpc_method_handler(self._watch)
            handlers.append(grpc.method_handlers_generic_handler(HEALTH, {"Check": check, "Watch": watch}))
        self._server.add_generic_rpc_handlers(tuple(handlers))
        if self.credentials is None:
            self.port = self._server.add_insecure_port(self.address)
        else:
            self.port = self._server.add_secure_port(self.address, self.credentials)
        await self._server.start()

    def _unary_handler(self, name: str) -> Any:
        async def handle(request: bytes, context: Any) -> bytes:
            return self.unary[name](request)

        return grpc.unary_unary_rpc_method_handler(handle)

    async def _check(self, request: bytes, context: Any) -> bytes:
        assert self.health is not None
        return self.health

    async def _watch(self, request: bytes, context: Any) -> None:
        last_answer = None
        while True:
            if self.health != last_answer:
                last_answer = self.health
                await context.write(last_answer)
            await asyncio.sleep(0.01)

    async def _stream(self, _: Any, context: Any) -> None:
        if self.refuses_streams:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "not you")
        stream = FakeStream(self, context)
        self.streams.append(stream)
        if self.takes_groups:
            await context.send_initial_metadata([("layerwire-call-groups", "1")])
        reader = asyncio.ensure_future(self._read(stream, context))
        self.changed()
        try:
            while (item := await stream.outgoing.get()) is not None:
                if isinstance(item, tuple):
                    await context.abort(*item)
                parts = [item]
                while not stream.outgoing.empty() and isinstance(stream.outgoing._queue[0], bytes):
                    parts.append(stream.outgoing.get_nowait())
                await context.write(b"".join(parts))
        finally:
            reader.cancel()

    async def _read(self, stream: FakeStream, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            request = pb.StreamRequest.FromString(message)
            self.cancelled += request.cancel.ids
            calls = list(request.calls.calls)
            for group in request.calls.groups:
                self.groups.append(group)
                calls += groups.calls_of(group)
                stream.group_ids.update(groups.ids_of(group))
            self.frames.append(len(calls))
            for call in calls:
                self.calls.append(call)
                self.script(stream, call)
            self.changed()


class Fast(FakeServer):
    """One that keeps nothing, for benchmarks."""

    async def _read(self, stream: FakeStream, context: Any) -> None:
        templates: dict[bytes, bytes] = {}
        while (message := await context.read()) is not grpc.aio.EOF:
            calls = pb.StreamRequest.FromString(message).calls
            for group in calls.groups:
                template = templates.get(group.template)
                if template is None:
                    (answer,) = groups.of_answers(
                        [pb.StreamResponse.FromString(relu(groups.calls_of(group)[0])).answers[0]]
                    )
                    template = templates[group.template] = answer.template
                data = np.maximum(np.frombuffer(group.data[0], np.float32), 0).tobytes()
                response = pb.AnswerGroup(template=template, ids=group.ids, data=[data])
                stream.send(pb.StreamResponse(groups=[response]).SerializeToString())
            if calls.calls:
                stream.send(b"".join([relu(call) for call in calls.calls]))


def main() -> None:
    server = Fast()
    server.takes_groups = True
    with server:
        print(server.address, flush=True)
        input()


if __name__ == "__main__":
    main()
