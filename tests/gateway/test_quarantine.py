"""Calls that killed workers are known again, and others are not taken for them."""

from __future__ import annotations

import pytest

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire.shared_memory import PAGE_BYTES, Memory
from layerwire_server.link import QUARANTINED, Family, Flag, Kind
from tests.gateway.frames import (
    ask,
    calls,
    group,
    group_message,
    kill_twice,
    relu,
    up,
)

# fmt: off
SAME = {  # what a call that killed may look like when it comes again
    "alone": (calls({9: relu(b"kill")}), Family.NONE, [0]),
    "among others": (calls({1: relu(b"good"), 2: relu(b"kill"), 3: relu(b"longer")}), Family.NONE, [1]),
    "with options": (calls({5: relu(b"kill", timeout_seconds=9.0, priority=-3)}), Family.NONE, [0]),
    "in a group": (group_message(group([7, 8, 9], b"goodkillmore")), Family.NONE, [1]),
    "in a group with options": (
        group_message(group([1], b"kill", request=relu(priority=2)), requests={5: relu()}), Family.NONE, [1],
    ),
    "in groups and by itself": (
        group_message(group([1], b"long calls"), group([2, 3], b"killkill"), requests={5: relu(b"kill")}),
        Family.NONE, [0, 2, 3],
    ),
    "unary": (relu(b"kill").SerializeToString(), Family.ACTIVATE, [0]),
    "unary, with options": (relu(b"kill", return_timing=True).SerializeToString(), Family.ACTIVATE, [0]),
}
# fmt: on

OTHERS = {
    "other data": (calls({9: relu(b"fine")}), Family.NONE),
    "other length": (calls({9: relu(b"killer")}), Family.NONE),
    "other operator": (calls({9: relu(b"kill")}).replace(b"\x1a", b"\x22", 1), Family.NONE),
    "other method": (relu(b"kill").SerializeToString(), Family.LINEAR),
    "estimate": (relu(b"kill").SerializeToString(), Family.ESTIMATE),
    "other data in a group": (group_message(group([1, 2], b"finekilt")), Family.NONE),
    "data of the wrong length in a group": (group_message(group([1, 2], b"killkil")), Family.NONE),
    "data of more tensors in a group": (group_message(group([1], b"ki", b"ll")), Family.NONE),
    "a group without calls": (group_message(group([], b"kill")), Family.NONE),
    "no message": (b"\x0a\xff" + bytes(30), Family.NONE),
}


@pytest.mark.parametrize("learnt", ["stream", "group", "unary"])
@pytest.mark.parametrize(("payload", "family", "ordinals"), SAME.values(), ids=SAME)
def test_a_call_that_killed_is_not_run_when_it_comes_again(router, learnt, payload, family, ordinals):
    if learnt == "stream":
        router.abandon(kill_twice(router, 1, payload=calls({1: relu(), 2: relu(b"kill", priority=1)})))
    elif learnt == "group":
        killer = group_message(group([4, 5], b"calmkill", request=relu(timeout_seconds=3.0)), requests={1: relu()})
        router.abandon(kill_twice(router, 2, payload=killer))
    else:
        kill_twice(router, 0, kind=Kind.UNARY, payload=relu(b"kill").SerializeToString(), family=Family.ACTIVATE)
    worker = up(router)
    ask(router, kind=Kind.CALLS if family is Family.NONE else Kind.UNARY, payload=payload, family=family)
    (frame,) = worker.take()
    assert frame.flags is Flag.NONE
    assert frame.ordinals == tuple(ordinal | QUARANTINED for ordinal in ordinals)


@pytest.mark.parametrize(("payload", "family"), OTHERS.values(), ids=OTHERS)
def test_other_calls_run_though_one_killed(router, payload, family):
    router.abandon(kill_twice(router, 0, payload=calls({1: relu(b"kill")})))
    worker = up(router)
    ask(router, kind=Kind.CALLS if family is Family.NONE else Kind.UNARY, payload=payload, family=family)
    assert worker.take()[0].ordinals == ()


def test_quarantine_ends(router):
    router.abandon(kill_twice(router, 0, now=100.0, payload=calls({1: relu(b"kill")})))
    worker = up(router)
    ask(router, payload=calls({1: relu(b"kill")}), arrived=699.0)
    ask(router, payload=calls({1: relu(b"kill")}), arrived=700.0)
    assert [frame.ordinals for frame in worker.take()] == [(QUARANTINED,), ()]


def test_quarantine_is_bounded(router):
    for number in range(300):
        router.abandon(kill_twice(router, 0, payload=calls({1: relu(b"%3d" % number)})))
    worker = up(router)
    for number in range(300):
        ask(router, payload=calls({1: relu(b"%3d" % number)}))
    assert [bool(frame.ordinals) for frame in worker.take()] == [False] * 44 + [True] * 256


@pytest.fixture
def memory():
    return Memory.create("layerwire-client", 4 * PAGE_BYTES)


def shared(memory, *pieces, ids=(7,), request=None):
    """A message of a group whose data lie in shared memory, each piece in a page of its own."""
    places = []
    for page, piece in enumerate(pieces, 1):
        memory.write(page * PAGE_BYTES, [piece])
        places.append({"start": page * PAGE_BYTES, "nbytes": len(piece)})
    one = group(ids, request=request)
    one.shared.CopyFrom(pb.SharedData(memory=memory.offer, ranges=places, room={"start": 3 * PAGE_BYTES, "nbytes": 64}))
    return group_message(one)


KILL, FINE = b"kill" * 250, b"fine" * 250  # more than the message has beside them


@pytest.mark.parametrize("learnt", ["shared", "stream"])
@pytest.mark.parametrize(
    ("pieces", "ids", "ordinals"),
    [([KILL], [1], [0]), ([FINE + KILL], [1, 2], [1]), ([FINE], [1], []), ([KILL, KILL], [1], []), ([], [1], [])],
    ids=["the same", "among others", "other data", "data of more tensors", "none"],
)
def test_data_in_shared_memory_are_those_of_the_call(router, memory, learnt, pieces, ids, ordinals):
    killer = shared(memory, KILL, request=relu(priority=1)) if learnt == "shared" else calls({2: relu(KILL)})
    router.abandon(kill_twice(router, 0, payload=killer))
    worker = up(router)
    ask(router, payload=shared(memory, *pieces, ids=ids))
    ask(router, payload=calls({1: relu(FINE), 5: relu(KILL)}))
    first, second = worker.take()
    assert first.ordinals == tuple(ordinal | QUARANTINED for ordinal in ordinals)
    assert second.ordinals == (1 | QUARANTINED,)


@pytest.mark.parametrize("wrong", ["gone", "outside", "no memory"])
def test_shared_data_that_cannot_be_had_are_a_workers_business(router, memory, wrong):
    router.abandon(kill_twice(router, 0, payload=calls({1: relu(KILL)})))
    worker = up(router)
    payload = shared(memory, KILL)
    if wrong == "gone":
        memory._close()
    elif wrong == "outside":
        payload = payload.replace(PAGE_BYTES.to_bytes(8, "little"), (2**64 - 1).to_bytes(8, "little"), 1)
    else:
        payload = payload.replace(memory.offer, bytes(32))
    ask(router, payload=payload)
    (frame,) = worker.take()
    assert frame.ordinals == ()


def test_a_killer_whose_memory_is_gone_is_forgotten(router, memory):
    payload = shared(memory, KILL)
    memory._close()
    router.abandon(kill_twice(router, 0, payload=payload))
    worker = up(router)
    ask(router, payload=calls({5: relu(KILL)}))
    assert worker.take()[0].ordinals == ()
