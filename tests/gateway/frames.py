"""Frames and what becomes of them, as tests of the router see it: links and pending frames that are lists."""

from __future__ import annotations

import math

import grpc

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import operators_pb2, tensor_pb2
from layerwire_server.gateway.pending import Pending
from layerwire_server.link import Family, Flag, Frame, Kind


class RecordingLink:
    """Keeps what it is sent."""

    def __init__(self):
        self.frames = []

    def send(self, frame):
        self.frames.append(frame)

    def take(self):
        """The frames since the last time."""
        frames, self.frames = self.frames, []
        return frames


class RecordingPending(Pending):
    """Keeps what it is answered."""

    def __init__(self, kind=Kind.CALLS, payload=b"payload", arrived=0.0, stream=0, family=Family.NONE):
        super().__init__(kind, payload, arrived, math.inf, family, stream)
        self.answers = []
        self.error = None

    def answer(self, payload, last):
        self.answers.append((payload, last))

    def fail(self, error):
        assert self.error is None
        self.error = error


def up(router, now=0.0):
    worker = RecordingLink()
    router.up(worker, now)
    return worker


def ask(router, **kwargs):
    pending = RecordingPending(**kwargs)
    router.submit(pending)
    return pending


def answers(pending, *ordinals, last=False, error=False, payload=b"answer"):
    flags = (Flag.LAST if last else Flag.NONE) | (Flag.ERROR if error else Flag.NONE)
    return Frame(Kind.ANSWERS, pending.number, payload, flags, ordinals=ordinals)


def started_frame(pending, *ordinals):
    return Frame(Kind.STARTED, pending.number, ordinals=ordinals)


def relu(data=b"data", **options):
    return pb.ActivateRequest(
        options=pb.CallOptions(**options) if options else None,
        operator=operators_pb2.ActivateOperator(relu=operators_pb2.Relu()),
        input=tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1], data=data),
    )


def calls(requests):
    """A message of calls: {id: request}."""
    messages = [pb.Call(id=call_id, activate=request) for call_id, request in requests.items()]
    return pb.StreamRequest(calls=pb.Calls(calls=messages)).SerializeToString()


def group(ids, *data, request=None):
    """A group of calls of relu, or of another request: `data` has a piece for each tensor."""
    template = pb.Call(activate=relu(b"") if request is None else request)
    template.activate.input.ClearField("data")
    packed = b"".join(call_id.to_bytes(8, "little") for call_id in ids)
    return pb.CallGroup(template=template.SerializeToString(), ids=packed, data=data)


def group_message(*groups, requests=None):
    """A message of calls by themselves, {id: request}, and of groups."""
    singles = [pb.Call(id=call_id, activate=request) for call_id, request in (requests or {}).items()]
    return pb.StreamRequest(calls=pb.Calls(calls=singles, groups=groups)).SerializeToString()


def cancel(*ids):
    return pb.StreamRequest(cancel=pb.Cancellation(ids=ids)).SerializeToString()


def statuses(pending):
    """The errors that some calls were answered with: {id: name of the code}."""
    codes = {code.value[0]: code.name for code in grpc.StatusCode}
    all_answers = [answer for payload, _ in pending.answers for answer in pb.StreamResponse.FromString(payload).answers]
    return {answer.id: codes[answer.status.code] for answer in all_answers}


def kill_twice(router, ordinal, now=0.0, **kwargs):
    """A frame whose call kills two workers."""
    pending = ask(router, **kwargs)
    router.down(up(router, now), now)
    worker = up(router, now)
    router.deliver(worker, started_frame(pending, ordinal))
    router.down(worker, now)
    return pending
