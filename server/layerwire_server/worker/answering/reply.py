"""The answers to one frame: gathered as calls finish, sent in pieces of a bearable size.

It knows the link and the answers' messages; neither lanes nor devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layerwire.errors import LayerwireError, ResourceExhaustedError, to_status
from layerwire.v1 import layerwire_pb2
from layerwire.wire import dtypes, framing, protobuf
from layerwire_server.link import Family, Flag, Frame, Kind, Link
from layerwire_server.programs.run import Run
from layerwire_server.worker.answering import inference
from layerwire_server.worker.call import Call, Written
from layerwire_server.worker.running.device import Phases

_FLUSH_BYTES = 1024**2

_RESPONSES: dict[str, Any] = {
    "pool": layerwire_pb2.PoolResponse,
    "unpool": layerwire_pb2.UnpoolResponse,
    "linear": layerwire_pb2.LinearResponse,
    "activate": layerwire_pb2.ActivateResponse,
    "convolve": layerwire_pb2.ConvolveResponse,
    "normalize": layerwire_pb2.NormalizeResponse,
    "run": layerwire_pb2.RunResponse,
    "differentiate": layerwire_pb2.DifferentiateResponse,
}
_ANSWER_NUMBERS: dict[str, int] = {
    family: layerwire_pb2.Answer.DESCRIPTOR.fields_by_name[family].number for family in _RESPONSES
}
_FIELD_NUMBERS: dict[str, dict[str, int]] = {
    family: {field.name: field.number for field in response.DESCRIPTOR.fields}
    for family, response in _RESPONSES.items()
}
# Families that answer with a map of tensors, and its field.
_MAPS = {"run": _FIELD_NUMBERS["run"]["outputs"], "differentiate": _FIELD_NUMBERS["differentiate"]["gradients"]}


class Reply:
    """What a frame is still to be answered with.

    Attributes:
        frame: the frame, without its payload.
        calls: its calls that are not answered, by ordinal.
        unanswered: how many answers are owed; the last makes `flush` say so.
        dropped: whether nobody wants the answers any more.

    Args:
        link: to the gateway that sent the frame.
        frame: the frame.
        unanswered: see above.
        max_message_bytes: most bytes that its answers may have in one message.
    """

    __slots__ = (
        "_form", "_max_message_bytes", "_nbytes", "_ordinals", "_parts",
        "calls", "dropped", "frame", "link", "unanswered",
    )  # fmt: skip

    def __init__(self, link: Link, frame: Frame, unanswered: int, max_message_bytes: int) -> None:
        self.link = link
        self._max_message_bytes = max_message_bytes
        self.frame = frame._replace(payload=b"", ordinals=())
        self.calls: dict[int, Call] = {}
        self.unanswered = unanswered
        self.dropped = False
        self._form = _FORMS.get(frame.family, _as_response)
        self._parts: list[bytes | memoryview] = []
        self._ordinals: list[int] = []
        self._nbytes = 0

    def answer(self, call: Call, outputs: list[memoryview], phases: Phases, batch: Timed) -> None:
        """Adds the answer of a call that ran.

        Raises:
            ResourceExhaustedError: no message may be that large; nothing was added.
        """
        timing = batch.timing(call, phases) if call.options.return_timing else b""
        parts, nbytes = self._form(call, outputs, timing)
        if nbytes > self._max_message_bytes:
            title = call.plan.operator.title
            rule = f"{nbytes} bytes, over the server's --max-message-bytes {self._max_message_bytes}"
            raise ResourceExhaustedError(f"{title}: the answer takes {rule}", operator=title)
        self._add(call.ordinal, parts, nbytes)

    def fail(self, ordinal: int, call_id: int, error: LayerwireError) -> None:
        """Adds the answer of a call that failed."""
        status = to_status(error).SerializeToString()
        if self.frame.kind is Kind.UNARY:
            self.refuse(error)
            return
        answer = layerwire_pb2.Answer(id=call_id, status=layerwire_pb2.Status.FromString(status))
        encoded = layerwire_pb2.StreamResponse(answers=[answer]).SerializeToString()
        self._add(ordinal, [encoded], len(encoded))

    def start(self, ordinal: int | None) -> None:
        """Announces what runs next of an isolated frame: its decoding, or a call."""
        self.link.send(Frame(Kind.STARTED, self.frame.frame, ordinals=() if ordinal is None else (ordinal,)))

    def refuse(self, error: LayerwireError) -> None:
        """Answers the frame as a whole with an error, at once."""
        status = to_status(error).SerializeToString()
        self.calls.clear()
        self.unanswered = 0
        self._send(Flag.LAST | Flag.ERROR, [status], ())

    def give(self, message: bytes) -> None:
        """Answers a unary frame with a message, at once."""
        self.unanswered = 0
        self._send(Flag.LAST, [message], (0,))

    def flush(self) -> None:
        """Sends what has been gathered."""
        if self._ordinals:
            parts, ordinals = self._parts, tuple(self._ordinals)
            self._parts, self._ordinals, self._nbytes = [], [], 0
            self._send(Flag.NONE if self.unanswered else Flag.LAST, parts, ordinals)

    def _add(self, ordinal: int, parts: list[bytes | memoryview], nbytes: int) -> None:
        if self._nbytes + nbytes > self._max_message_bytes:
            self.flush()
        self._nbytes += nbytes
        self.calls.pop(ordinal, None)
        self.unanswered -= 1
        self._parts += parts
        self._ordinals.append(ordinal)
        if self._nbytes > _FLUSH_BYTES and self.unanswered:
            self.flush()

    def _send(self, flags: Flag, parts: list[bytes | memoryview], ordinals: tuple[int, ...]) -> None:
        self.link.send(Frame(Kind.ANSWERS, self.frame.frame, flags=flags, ordinals=ordinals), parts)


class Timed:
    """What all calls of a batch share of their timing.

    Args:
        launched: when it was launched, in seconds of CLOCK_MONOTONIC.
        calls: calls in it.
        rows: rows in it.
        worker: number of the worker.
        device: the device's name.
    """

    __slots__ = ("_calls", "_device", "_rows", "_worker", "launched")

    def __init__(self, launched: float, calls: int, rows: int, worker: int, device: str) -> None:
        self.launched = launched
        self._calls = calls
        self._rows = rows
        self._worker = worker
        self._device = device

    def timing(self, call: Call, phases: Phases) -> bytes:
        """The serialized `timing` field of a call's response."""
        timing = layerwire_pb2.Timing(
            queue_seconds=max(self.launched - call.arrived, 0.0),
            copy_in_seconds=phases.copy_in_seconds,
            kernel_seconds=phases.kernel_seconds,
            copy_out_seconds=phases.copy_out_seconds,
            batch_calls=self._calls,
            batch_rows=self._rows,
            worker=self._worker,
            device=self._device,
        ).SerializeToString()
        return protobuf.prefix(15, len(timing)) + timing


def _as_answer(call: Call, outputs: list[memoryview], timing: bytes) -> Written:
    """One of a StreamResponse's answers."""
    plan = call.plan
    template = plan.answer if not timing else None
    if template is None:
        template = framing.entry(_ANSWER_NUMBERS[plan.operator.family], _head(call), _tensors(call), timing)
        if not timing:
            plan.answer = template
    return template.parts(call.call_id, outputs), template.nbytes


def _as_response(call: Call, outputs: list[memoryview], timing: bytes) -> Written:
    """The response of a unary RPC."""
    gaps, nbytes = framing.literals(_head(call), _tensors(call), timing)
    parts: list[bytes | memoryview] = [gaps[0]]
    for output, gap in zip(outputs, gaps[1:], strict=True):
        parts += (output, gap)
    return parts, nbytes


# How an answer is written, by the family of its frame; as a unary RPC's response if it isn't here.
_FORMS: dict[Family, Callable[[Call, list[memoryview], bytes], Written]] = {
    Family.NONE: _as_answer,
    Family.INFER: inference.written,
}


def _head(call: Call) -> bytes:
    """Fields of the response besides tensors and timing."""
    operator = call.plan.operator
    return layerwire_pb2.RunResponse(version=operator.version).SerializeToString() if isinstance(operator, Run) else b""


def _tensors(call: Call) -> list[tuple[framing.Slot, dtypes.TensorSpec | str]]:
    """The response's tensors: fields of their own, or the entries of its map."""
    plan = call.plan
    numbers = _FIELD_NUMBERS[plan.operator.family]
    named = zip(plan.output_names, plan.outputs, strict=True)
    keyed = _MAPS.get(plan.operator.family)
    if keyed is not None:
        return [(framing.MapEntry(keyed, name), spec) for name, spec in named]
    return [(numbers[name], spec) for name, spec in named]
