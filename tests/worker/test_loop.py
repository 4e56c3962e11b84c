"""The worker's loop: batching, isolation of failures, cancellation, expiry, limits, on a device that can be held."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
import torch
import uvloop

from layerwire.v1 import layerwire_pb2 as pb
from layerwire_server.link import QUARANTINED, Flag, Frame, Kind
from layerwire_server.worker import loop
from layerwire_server.worker.call import CallGroup, id_numbers
from layerwire_server.worker.lanes.lanes import Lanes
from tests.worker.conftest import LIMITS, MAX_ANSWER_BYTES, WorkerRig, open_rig, relu

CODES = {code.value[0]: code.name for code in grpc.StatusCode}


def code(rig: WorkerRig, call_id: int) -> str:
    """The status of an answer."""
    answer = rig.gateway.answers[call_id]
    return CODES[answer.status.code] if answer.WhichOneof("result") == "status" else "OK"


async def hold(rig: WorkerRig, call_id: int = 1000) -> int:
    """Occupies the device with a call, and returns its frame."""
    rig.device.gate.clear()
    number = rig.gateway.send([relu(call_id, 1.0)])
    await rig.until_started()
    return number


async def settle(rig: WorkerRig, calls: int) -> None:
    """Returns when so many calls wait."""
    while rig.lanes.calls != calls:
        await asyncio.sleep(0)


async def test_waiting_calls_make_one_batch(rig: WorkerRig) -> None:
    await hold(rig)
    frames = [rig.gateway.send([relu(i, -1.0, float(i)), relu(100 + i, float(i))]) for i in range(1, 5)]
    await settle(rig, 8)
    rig.device.gate.set()
    await rig.gateway.last(frames[-1])
    assert rig.device.batches == [1, 8]
    assert [rig.gateway.values(i) for i in range(1, 5)] == [[0.0, float(i)] for i in range(1, 5)]
    assert [rig.gateway.values(100 + i) for i in range(1, 5)] == [[float(i)] for i in range(1, 5)]


@pytest.mark.parametrize("culprit", range(0, 64, 7))
async def test_only_the_guilty_call_fails(rig: WorkerRig, culprit: int) -> None:
    def fault(calls: Sequence[CallGroup]) -> None:
        if any(culprit in id_numbers(call.ids) for call in calls):
            raise RuntimeError("this one is guilty")

    rig.device.fault = fault
    await hold(rig)
    number = rig.gateway.send([relu(i, float(i)) for i in range(64)])
    await settle(rig, 64)
    rig.device.gate.set()
    await rig.gateway.last(number)
    assert [i for i in range(64) if code(rig, i) != "OK"] == [culprit]
    assert code(rig, culprit) == "INTERNAL"
    assert "guilty" not in rig.gateway.answers[culprit].status.message, "the cause is for the log"
    assert all(rig.gateway.values(i) == [float(i)] for i in range(64) if i != culprit)


async def test_short_of_memory_halves_and_remembers(rig: WorkerRig) -> None:
    def fault(calls: Sequence[CallGroup]) -> None:
        if len(calls) > 10:
            raise torch.OutOfMemoryError("no")

    rig.device.fault = fault
    await hold(rig)
    first = rig.gateway.send([relu(i, float(i)) for i in range(40)])
    await settle(rig, 40)
    rig.device.gate.set()
    await rig.gateway.last(first)
    assert rig.device.batches == [1, 40, 20, 10, 10, 20, 10, 10]
    await hold(rig, 1001)
    second = rig.gateway.send([relu(100 + i, float(i)) for i in range(40)])
    await settle(rig, 40)
    rig.device.gate.set()
    await rig.gateway.last(second)
    assert max(rig.device.batches[9:]) <= 20, "the ceiling is remembered"
    assert all(code(rig, i) == "OK" for i in (*range(40), *range(100, 140)))


async def test_memory_that_one_call_lacks_is_its_own_error(rig: WorkerRig) -> None:
    def fault(calls: Sequence[CallGroup]) -> None:
        raise torch.OutOfMemoryError("no")

    rig.device.fault = fault
    number = rig.gateway.send([relu(1, 1.0)])
    await rig.gateway.last(number)
    assert code(rig, 1) == "RESOURCE_EXHAUSTED"


async def test_cancelled_calls_leave_and_neighbours_are_answered(rig: WorkerRig) -> None:
    await hold(rig)
    number = rig.gateway.send([relu(i, float(i)) for i in range(6)])
    await settle(rig, 6)
    cancel = pb.StreamRequest(cancel=pb.Cancellation(ids=[1, 4, 77])).SerializeToString()
    rig.gateway.link.send(Frame(Kind.CANCEL_CALLS, payload=cancel, stream=1))
    await settle(rig, 4)
    rig.device.gate.set()
    await rig.gateway.last(number)
    assert [code(rig, i) for i in range(6)] == ["OK", "CANCELLED", "OK", "OK", "CANCELLED", "OK"]
    assert rig.device.batches == [1, 4]


async def slow_frame(rig: WorkerRig, monkeypatch: pytest.MonkeyPatch) -> int:
    """A frame of 40 calls of which some are admitted, one a turn of the loop, behind a call that runs."""
    monkeypatch.setattr(loop, "_TURN_SECONDS", -1.0)
    await hold(rig)
    number = rig.gateway.send([relu(i, *[1.0] * (i + 1)) for i in range(40)])
    while not rig.lanes.calls:
        await asyncio.sleep(0)
    return number


async def test_a_frame_of_calls_that_take_long_to_plan_leaves_others_their_turn(
    rig: WorkerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls are admitted a few a turn; what is cancelled before its turn came is answered so."""
    number = await slow_frame(rig, monkeypatch)
    cancel = pb.StreamRequest(cancel=pb.Cancellation(ids=[0, 38, 39])).SerializeToString()
    rig.gateway.link.send(Frame(Kind.CANCEL_CALLS, payload=cancel, stream=1))
    rig.gateway.send([relu(500, 1.0)])
    while not any(500 in id_numbers(call.ids) for call in rig.lanes.waiting_calls()):
        assert rig.lanes.calls < 39
        await asyncio.sleep(0)
    await settle(rig, 38)
    rig.device.gate.set()
    await rig.gateway.last(number)
    assert [i for i in range(40) if code(rig, i) == "CANCELLED"] == [0, 38, 39]
    assert all(rig.gateway.values(i) == [1.0] * (i + 1) for i in range(1, 38))


async def test_a_frame_that_is_dropped_while_it_is_admitted_is_admitted_no_further(
    rig: WorkerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await slow_frame(rig, monkeypatch)
    rig.gateway.link.send(Frame(Kind.CANCEL_FRAME, number, stream=1))
    await settle(rig, 0)
    rig.device.gate.set()
    await rig.loop.idle()
    assert rig.device.batches == [1] and not rig.loop._unread


async def test_cancel_of_another_stream_does_nothing(rig: WorkerRig) -> None:
    await hold(rig)
    number = rig.gateway.send([relu(1, 1.0)])
    await settle(rig, 1)
    cancel = pb.StreamRequest(cancel=pb.Cancellation(ids=[1])).SerializeToString()
    rig.gateway.link.send(Frame(Kind.CANCEL_CALLS, payload=cancel, stream=2))
    rig.device.gate.set()
    await rig.gateway.last(number)
    assert code(rig, 1) == "OK"


async def test_cancelled_frame_is_not_answered_and_others_are(rig: WorkerRig) -> None:
    first = await hold(rig)
    second = rig.gateway.send([relu(1, 1.0), relu(2, 1.0)])
    third = rig.gateway.send([relu(3, 3.0)])
    await settle(rig, 3)
    for number in (first, second):
        rig.gateway.link.send(Frame(Kind.CANCEL_FRAME, number))
    await settle(rig, 1)
    rig.device.gate.set()
    await rig.gateway.last(third)
    assert set(rig.gateway.answers) == {3}


async def test_expired_calls_never_run(rig: WorkerRig) -> None:
    await hold(rig)
    number = rig.gateway.send([relu(1, 1.0, timeout_seconds=0.02), relu(2, 2.0), relu(3, 3.0, timeout_seconds=0.03)])
    frame = await rig.gateway.kind(Kind.ANSWERS)
    assert frame.frame == number and not frame.flags & Flag.LAST, "answered while the device is busy"
    await settle(rig, 1)
    rig.device.gate.set()
    await rig.gateway.last(number)
    assert [code(rig, i) for i in (1, 2, 3)] == ["DEADLINE_EXCEEDED", "OK", "DEADLINE_EXCEEDED"]
    assert rig.device.batches == [1, 1]


async def test_past_deadline_is_refused_on_arrival(rig: WorkerRig) -> None:
    now = asyncio.get_running_loop().time()
    number = rig.gateway.send([relu(1, 1.0)], deadline=now - 1)
    await rig.gateway.last(number)
    assert code(rig, 1) == "DEADLINE_EXCEEDED"
    assert rig.device.batches == []


async def test_full_queue_refuses_with_a_hint(rig: WorkerRig) -> None:
    await hold(rig)
    rig.gateway.send([relu(i, 1.0) for i in range(LIMITS.queue_calls)])
    await settle(rig, LIMITS.queue_calls)
    number = rig.gateway.send([relu(200, 1.0)])
    await rig.gateway.last(number)
    status = rig.gateway.answers[200].status
    assert CODES[status.code] == "RESOURCE_EXHAUSTED"
    assert "--max-queue-calls" in status.message
    assert any(detail.type_url.endswith("RetryInfo") for detail in status.details)
    rig.device.gate.set()


async def test_bad_calls_fail_at_once_beside_good_ones(rig: WorkerRig) -> None:
    bad = relu(2, 1.0)
    bad.activate.input.data = b"123"
    nothing = pb.Call(id=3)
    number = rig.gateway.send([relu(1, -1.0), bad, nothing, relu(4, 4.0, priority=99)])
    await rig.gateway.last(number)
    assert [code(rig, i) for i in (1, 2, 3, 4)] == ["OK"] + ["INVALID_ARGUMENT"] * 3


@pytest.mark.parametrize("payload", [b"", b"\x0a\xff", b"\x0a\x02\x0a\x05", b"\xff" * 40])
async def test_frame_that_is_no_message_is_answered(rig: WorkerRig, payload: bytes) -> None:
    rig.gateway.link.send(Frame(Kind.CALLS, 7, payload))
    frame = await rig.gateway.last(7)
    if payload:
        assert frame.flags & Flag.ERROR
        assert pb.Status.FromString(frame.payload).code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_too_many_calls_of_a_frame_are_refused(rig: WorkerRig) -> None:
    number = rig.gateway.send([pb.Call(id=i) for i in range(4097)])
    frame = await rig.gateway.last(number)
    assert frame.flags & Flag.ERROR


async def test_isolated_frame_runs_alone_and_announced(rig: WorkerRig) -> None:
    number = rig.gateway.send([relu(i, float(i)) for i in range(5)], flags=Flag.ISOLATE, ordinals=(1, 3 | QUARANTINED))
    await rig.gateway.last(number)
    assert rig.device.batches == [1, 1, 1]
    assert rig.gateway.started == [(), (0,), (2,), (4,)]
    assert set(rig.gateway.answers) == {0, 2, 3, 4}
    assert code(rig, 3) == "INTERNAL"


async def test_calls_that_killed_before_or_are_answered_do_not_run(rig: WorkerRig) -> None:
    number = rig.gateway.send([relu(i, float(i)) for i in range(4)], ordinals=(2, 1 | QUARANTINED))
    await rig.gateway.last(number)
    assert set(rig.gateway.answers) == {0, 1, 3}
    assert [code(rig, i) for i in (0, 1, 3)] == ["OK", "INTERNAL", "OK"]
    assert "workers died of this call twice when it was sent before" in rig.gateway.answers[1].status.message
    assert rig.device.batches == [2]


async def test_canary_sings(rig: WorkerRig) -> None:
    rig.gateway.link.send(Frame(Kind.CANARY, 9))
    frame = await rig.gateway.kind(Kind.CANARY_RESULT)
    assert frame.frame == 9 and not frame.flags & Flag.ERROR


async def test_canary_tells_of_wrong_answers(rig: WorkerRig) -> None:
    def fault(calls: Sequence[CallGroup]) -> None:
        raise RuntimeError("broken")

    rig.device.fault = fault
    rig.gateway.link.send(Frame(Kind.CANARY, 9))
    assert (await rig.gateway.kind(Kind.CANARY_RESULT)).flags & Flag.ERROR


async def test_timing_is_told_when_asked(rig: WorkerRig) -> None:
    number = rig.gateway.send([relu(1, 1.0, return_timing=True), relu(2, 2.0)])
    await rig.gateway.last(number)
    timing = rig.gateway.answers[1].activate.timing
    assert timing.batch_calls == 2 and timing.device == "cpu" and timing.kernel_seconds > 0
    assert not rig.gateway.answers[2].activate.HasField("timing")


async def test_counts_agree_with_answers(rig: WorkerRig) -> None:
    number = rig.gateway.send([relu(1, 1.0), relu(2, 1.0), pb.Call(id=3)])
    await rig.gateway.last(number)
    counts = {tuple(labels): count for labels, count in rig.metrics.snapshot()["layerwire_calls_total"]}
    assert counts == {("relu", "OK"): 2, ("unknown", "INVALID_ARGUMENT"): 1}


def test_a_deadline_nearer_than_uvloop_can_time_ends_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_twice() -> None:
        async with open_rig(tmp_path) as rig:
            await hold(rig)
            failures: list[object] = []
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
            with monkeypatch.context() as patch:
                patch.setattr(Lanes, "wake_at", lambda lanes, now: now + 0.0003)
                for _ in range(2):  # what two frames do that come while the timer runs
                    rig.loop._dispatcher._set_timer(time.monotonic())
                number = rig.gateway.send([relu(1, 1.0)])
                await settle(rig, 1)
            rig.device.gate.set()
            await rig.gateway.last(number)
            assert code(rig, 1) == "OK"
            assert not failures

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(look_twice())


async def test_an_answer_over_a_message_is_its_own_error(rig: WorkerRig) -> None:
    numbers = [0.0] * (MAX_ANSWER_BYTES // 4)  # as many bytes as a message, and what stands around them
    frame = rig.gateway.send([relu(1, 1.0), relu(2, *numbers), relu(3, 3.0)])
    await rig.gateway.last(frame)
    assert [code(rig, i) for i in (1, 2, 3)] == ["OK", "RESOURCE_EXHAUSTED", "OK"]
    assert "over the server's --max-message-bytes" in rig.gateway.answers[2].status.message
    assert rig.metrics.counter("layerwire_calls_total", operator="relu", code="OK").value == 2
    assert rig.metrics.counter("layerwire_calls_total", operator="relu", code="RESOURCE_EXHAUSTED").value == 1


async def test_answers_that_are_a_message_too_large_together_go_in_several(rig: WorkerRig) -> None:
    numbers = [1.0] * (MAX_ANSWER_BYTES // 4 // 2)
    frame = rig.gateway.send([relu(i, *numbers) for i in range(5)])
    assert max(await rig.gateway.answer_sizes(frame)) <= MAX_ANSWER_BYTES
    assert [code(rig, i) for i in range(5)] == ["OK"] * 5
