"""Single calls of a frame that are alike: they run as one, and are answered as they would be alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from layerwire.errors import ResourceExhaustedError
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire import arrays
from layerwire_server.link import QUARANTINED, Frame, Kind
from layerwire_server.worker.answering.reply import Reply
from layerwire_server.worker.call import CallGroup
from tests.operator_cases import Case
from tests.operators.local import Local, message_of, request_of
from tests.programs.local import REQUESTS
from tests.worker.reading.test_groups import CASES, assert_alike, responses, run, with_other_seeds
from tests.worker.request_kinds.test_run import X


class Sent:
    """Keeps each message that is sent."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def send(self, frame: Frame, pieces: Sequence[bytes | memoryview]) -> None:
        self.messages.append(b"".join(pieces))


@pytest.fixture(scope="module")
def local() -> Local:
    return Local()


@pytest.fixture(scope="module")
def exact() -> Local:
    return Local(deterministic=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_single_calls_that_run_as_one_are_answered_as_alone(local: Local, exact: Local, case: Case) -> None:
    singles = [message_of(request_of(with_other_seeds(case, seed))) for seed in (1, 2, 3)]
    side = exact if local.decode(case).key.operator.tile_rows is not None else local
    expected: dict[int, pb.Answer] = {}
    for call_id, single in enumerate(singles, start=1):
        single.id = call_id
        expected |= responses(side.decoder, side.device, pb.Calls(calls=[single]))
    answers = responses(side.decoder, side.device, pb.Calls(calls=singles))
    assert sorted(answers) == [1, 2, 3]
    for call_id in expected:
        assert_alike(answers[call_id], expected[call_id])


def test_neighbours_that_are_alike_are_one_request(local: Local) -> None:
    calls = [message_of(REQUESTS.relu(x)) for x in (X, X, X, X[:1], X, X, X, X)]
    for call_id, call in enumerate(calls, start=1):
        call.id = call_id
    payload = pb.StreamRequest(calls=pb.Calls(calls=calls)).SerializeToString()
    frame = Frame(Kind.CALLS, 1, payload, ordinals=(1, 6 | QUARANTINED))
    for request, _ in 2 * local.decoder.requests(frame):
        local.decoder.calls(request, frame)
    found = [
        (request.ordinal, request.count, is_quarantined) for request, is_quarantined in local.decoder.requests(frame)
    ]
    assert found == [(0, 1, False), (2, 1, False), (3, 1, False), (4, 2, False), (6, 1, True), (7, 1, False)]


def test_answers_too_large_for_one_message_are_several(local: Local) -> None:
    calls = [message_of(REQUESTS.relu(np.full((300,), scale, np.float32))) for scale in range(5)]
    for call_id, call in enumerate(calls, start=1):
        call.id = call_id
    frame = Frame(Kind.CALLS, 1, pb.StreamRequest(calls=pb.Calls(calls=calls)).SerializeToString())
    for request, _ in 2 * local.decoder.requests(frame):
        local.decoder.calls(request, frame)
    ((request, _),) = local.decoder.requests(frame)
    (group,) = local.decoder.calls(request, frame)
    assert isinstance(group, CallGroup) and group.count == 5
    for most_bytes, messages in ((1 << 20, 1), (3000, 3), (1300, 5)):
        link: Any = Sent()
        reply = Reply(link, frame, 5, most_bytes)
        run(local.device, reply, group)
        reply.flush()
        assert len(link.messages) == messages and max(map(len, link.messages)) <= most_bytes
        answers = [answer for message in link.messages for answer in pb.StreamResponse.FromString(message).answers]
        assert [(answer.id, arrays.to_numpy(answer.activate.output)[0]) for answer in answers] == [
            (call_id, float(call_id - 1)) for call_id in range(1, 6)
        ]
    with pytest.raises(ResourceExhaustedError, match="max-message-bytes"):
        run(local.device, Reply(link, frame, 5, 1000), group)
