"""Writes the answers to one frame as its calls finish, and sends them in pieces of a bearable size.

It knows the link and the answers' messages; neither lanes nor devices.
"""

from __future__ import annotations

from layerwire.errors import LayerwireError, ResourceExhaustedError, to_status
from layerwire.v1 import layerwire_pb2
from layerwire.wire import protobuf
from layerwire_server.link import Flag, Frame, Kind, Link
from layerwire_server.worker.call import Call
from layerwire_server.worker.request_kinds import KINDS_BY_RPC, NATIVE_KINDS
from layerwire_server.worker.request_kinds.kind import Pieces
from layerwire_server.worker.running.device import Phases

_FLUSH_BYTES = 1024**2


class Reply:
    """What a frame is still to be answered with.

    Attributes:
        frame: the frame, without its payload.
        calls: its calls that are not answered, by ordinal.
        unanswered_count: how many answers are owed; the last makes `flush` say so.
        is_dropped: whether nobody wants the answers any more.

    Args:
        link: to the gateway that sent the frame.
        frame: the frame.
        unanswered_count: see above.
        max_message_bytes: most bytes that its answers may have in one message.
    """

    __slots__ = (
        "_max_message_bytes", "_nbytes", "_ordinals", "_pieces", "_write",
        "calls", "frame", "is_dropped", "link", "unanswered_count",
    )  # fmt: skip

    def __init__(self, link: Link, frame: Frame, unanswered_count: int, max_message_bytes: int) -> None:
        self.link = link
        self._max_message_bytes = max_message_bytes
        self.frame = frame._replace(payload=b"", ordinals=())
        self.calls: dict[int, Call] = {}
        self.unanswered_count = unanswered_count
        self.is_dropped = False
        kind = KINDS_BY_RPC.get(frame.family)
        self._write = _write_answer if kind is None else kind.write_response
        self._pieces: list[bytes | memoryview] = []
        self._ordinals: list[int] = []
        self._nbytes = 0

    def answer(self, call: Call, outputs: list[memoryview], phases: Phases, batch: BatchTiming) -> None:
        """Adds the answer of a call that ran.

        Raises:
            ResourceExhaustedError: no message may be that large; nothing was added.
        """
        timing = batch.of_call(call, phases) if call.options.return_timing else b""
        pieces, nbytes = self._write(call, outputs, timing)
        if nbytes > self._max_message_bytes:
            title = call.plan.operator.title
            rule = f"{nbytes} bytes, over the server's --max-message-bytes {self._max_message_bytes}"
            raise ResourceExhaustedError(f"{title}: the answer takes {rule}", operator=title)
        self._add(call.ordinal, pieces, nbytes)

    def fail(self, ordinal: int, call_id: int, error: LayerwireError) -> None:
        """Adds the answer of a call that failed."""
        status = to_status(error).SerializeToString()
        if self.frame.kind is Kind.UNARY:
            self.refuse(error)
            return
        answer = layerwire_pb2.Answer(id=call_id, status=layerwire_pb2.Status.FromString(status))
        response = layerwire_pb2.StreamResponse(answers=[answer]).SerializeToString()
        self._add(ordinal, [response], len(response))

    def announce(self, ordinal: int | None) -> None:
        """Announces what runs next of an isolated frame: its decoding, or a call."""
        self.link.send(Frame(Kind.STARTED, self.frame.frame, ordinals=() if ordinal is None else (ordinal,)))

    def refuse(self, error: LayerwireError) -> None:
        """Answers the frame as a whole with an error, at once."""
        status = to_status(error).SerializeToString()
        self.calls.clear()
        self.unanswered_count = 0
        self._send(Flag.LAST | Flag.ERROR, [status], ())

    def send_message(self, message: bytes) -> None:
        """Answers a unary frame with a message, at once."""
        self.unanswered_count = 0
        self._send(Flag.LAST, [message], (0,))

    def flush(self) -> None:
        """Sends what has been gathered."""
        if self._ordinals:
            pieces, ordinals = self._pieces, tuple(self._ordinals)
            self._pieces, self._ordinals, self._nbytes = [], [], 0
            self._send(Flag.NONE if self.unanswered_count else Flag.LAST, pieces, ordinals)

    def _add(self, ordinal: int, pieces: list[bytes | memoryview], nbytes: int) -> None:
        if self._nbytes + nbytes > self._max_message_bytes:
            self.flush()
        self._nbytes += nbytes
        self.calls.pop(ordinal, None)
        self.unanswered_count -= 1
        self._pieces += pieces
        self._ordinals.append(ordinal)
        if self._nbytes > _FLUSH_BYTES and self.unanswered_count:
            self.flush()

    def _send(self, flags: Flag, pieces: list[bytes | memoryview], ordinals: tuple[int, ...]) -> None:
        self.link.send(Frame(Kind.ANSWERS, self.frame.frame, flags=flags, ordinals=ordinals), pieces)


class BatchTiming:
    """What all calls of a batch share of their timing.

    Args:
        launch_time: when it was launched, in seconds of CLOCK_MONOTONIC.
        calls: calls in it.
        rows: rows in it.
        worker: number of the worker.
        device: the device's name.
    """

    __slots__ = ("_calls", "_device", "_launch_time", "_rows", "_worker")

    def __init__(self, launch_time: float, calls: int, rows: int, worker: int, device: str) -> None:
        self._launch_time = launch_time
        self._calls = calls
        self._rows = rows
        self._worker = worker
        self._device = device

    def of_call(self, call: Call, phases: Phases) -> bytes:
        """The serialized `timing` field of a call's response."""
        timing = layerwire_pb2.Timing(
            queue_seconds=max(self._launch_time - call.arrival_time, 0.0),
            copy_in_seconds=phases.copy_in_seconds,
            kernel_seconds=phases.kernel_seconds,
            copy_out_seconds=phases.copy_out_seconds,
            batch_calls=self._calls,
            batch_rows=self._rows,
            worker=self._worker,
            device=self._device,
        ).SerializeToString()
        return protobuf.prefix(15, len(timing)) + timing


def _write_answer(call: Call, outputs: list[memoryview], timing: bytes) -> Pieces:
    """One of a StreamResponse's answers."""
    plan = call.plan
    template = plan.answer_template if not timing else None
    if template is None:
        template = NATIVE_KINDS[plan.operator.family].answer_template(plan, timing)
        if not timing:
            plan.answer_template = template
    return template.parts(call.call_id, outputs), template.nbytes
