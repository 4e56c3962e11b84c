"""Groups of calls from clients that spell them by hand: each id is answered once, rightly, and nobody else notices."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import grpc
import numpy as np
import pytest

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import tensor_pb2
from tests.attacks.conftest import MIB
from tests.attacks.http2 import path_of
from tests.served import PATIENCE_SECONDS

ELEMENTS = 16
# Of calls with little time, that were given up, or that find no room.
REFUSALS = {code.value[0] for code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)} | {
    grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
}


def values(call_id: int) -> np.ndarray:
    """A call's input, by which its answer is known."""
    return np.arange(ELEMENTS, dtype=np.float32) - call_id % 31


def group(ids: Sequence[int], **options: float) -> pb.CallGroup:
    """A group of relu."""
    template = pb.Call(activate=pb.ActivateRequest(operator={"relu": {}}, options=pb.CallOptions(**options)))
    template.activate.input.dtype = tensor_pb2.DATA_TYPE_FLOAT32
    template.activate.input.shape.extend([1, ELEMENTS])
    data = b"".join(values(each).tobytes() for each in ids)
    return pb.CallGroup(template=template.SerializeToString(), ids=struct.pack(f"<{len(ids)}Q", *ids), data=[data])


def frame(*groups: pb.CallGroup) -> bytes:
    return pb.StreamRequest(calls=pb.Calls(groups=groups)).SerializeToString()


def cancellation(ids: Iterable[int]) -> bytes:
    return pb.StreamRequest(cancel=pb.Cancellation(ids=ids)).SerializeToString()


def answers(messages: Iterable[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Id, code and data of each answer."""
    for message in messages:
        response = pb.StreamResponse.FromString(message)
        for answer in response.answers:
            yield answer.id, answer.status.code, answer.activate.output.data
        for each in response.groups:
            ids, answer = struct.unpack(f"<{len(each.ids) // 8}Q", each.ids), pb.Answer.FromString(each.template)
            column = each.data[0] if each.data else b""
            size = len(column) // len(ids)
            for index, call_id in enumerate(ids):
                yield call_id, answer.status.code, column[index * size : (index + 1) * size]


def check(messages: Iterable[bytes], ids: Iterable[int], refusals: set[int]) -> Counter[int]:
    """How often which code came; each id has as many answers as calls, and those that succeeded are right."""
    codes, owed = Counter(), Counter(ids)
    for call_id, code, data in answers(messages):
        owed[call_id] -= 1
        codes[code] += 1
        if code:
            assert code in refusals
        else:
            assert data == np.maximum(values(call_id), 0).tobytes()
    assert not any(owed.values())
    return codes


@pytest.fixture
def stream(target):
    with grpc.insecure_channel(target.address) as channel:
        yield channel.stream_stream(path_of("Stream"))


def test_ids_that_are_repeated_inside_and_across_groups(target, stream, unharmed):
    ids = [7] * 50 + [1, 2, 3] * 5 + [3, 2, 1, 2**64 - 1, 0]
    body = frame(group(ids[:50]), group(ids[50:60], priority=1), group(ids[60:], deterministic=True))
    with unharmed(target, 50 * MIB):
        codes = check(stream(iter([body]), timeout=PATIENCE_SECONDS), ids, set())
    assert codes == {0: len(ids)}


@pytest.mark.parametrize("count", [4096, 4097])
def test_as_many_as_a_message_may_have_and_one_more(target, stream, unharmed, count):
    body = frame(group(range(2000)), group(range(2000, count)))
    with unharmed(target, 100 * MIB):
        call = stream(iter([body]), timeout=PATIENCE_SECONDS)
        if count == 4096:
            assert check(call, range(count), set()) == {0: count}
        else:
            with pytest.raises(grpc.RpcError) as caught:
                list(call)
            assert caught.value.details() == "stream: calls must be at most 4096 a message, got 4097"


def test_groups_of_every_kind_are_given_up_at_any_time(target, stream, unharmed):
    """Deadlines of milliseconds, priorities, tiles and timing mixed, and cancelled wherever they are by then."""
    rng = np.random.default_rng(0)
    messages, count = [], 0
    for _ in range(30):
        groups = []
        for _ in range(10):
            size = int(rng.integers(1, 60))
            options = {"priority": int(rng.integers(-3, 4)), "deterministic": bool(rng.random() < 0.3)}
            if rng.random() < 0.5:
                options["timeout_seconds"] = float(rng.uniform(0.001, 0.005))
            groups.append(group(range(count, count + size), return_timing=bool(rng.random() < 0.3), **options))
            count += size
        messages += [frame(*groups), cancellation(map(int, rng.integers(0, count, 40)))]
    with unharmed(target, 200 * MIB):
        codes = check(stream(iter(messages), timeout=PATIENCE_SECONDS), range(count), REFUSALS)
    assert codes[0]


def test_groups_with_bytes_that_are_changed_end_their_stream_alone(target, stream, unharmed):
    rng = random.Random(0)
    shared = group([99])
    shared.shared.memory = bytes(32)
    shared.shared.ranges.add(start=4096, nbytes=64)
    whole = frame(group(range(50)), group(range(50, 60), return_timing=True), shared)
    codes: Counter[grpc.StatusCode] = Counter()
    with unharmed(target, 100 * MIB):
        for _ in range(300):
            body = bytearray(whole)
            for _ in range(rng.choice((1, 1, 2, 5, 20))):
                at = rng.randrange(len(body) if rng.random() < 0.3 else 120)
                body[at : at + rng.choice((0, 1, 1, 1, 4))] = rng.randbytes(rng.choice((0, 1, 1, 1, 4)))
            call = stream(iter([bytes(body)]), timeout=PATIENCE_SECONDS)
            try:
                list(call)
            except grpc.RpcError as error:
                codes[error.code()] += 1
            else:
                codes[grpc.StatusCode.OK] += 1
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
