"""Groups in the worker's loop: each call of one fails, is cancelled, expires and is answered as if it came alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import numpy as np
import pytest
import torch

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import operators_pb2, tensor_pb2
from layerwire.wire import arrays
from layerwire_server.link import QUARANTINED, Flag, Frame, Kind
from layerwire_server.worker.call import CallGroup, id_numbers
from tests.worker.conftest import LIMITS, MAX_ANSWER_BYTES, WorkerRig, relu
from tests.worker.groups import group_of
from tests.worker.test_loop import code, hold, settle


def relus(count: int, first: int = 0, **options: float) -> pb.CallGroup:
    """A group of relu: id i has the values -i and i."""
    return group_of([relu(i, float(-i), float(i), **options) for i in range(first, first + count)])


def unpool(call_id: int, index: int) -> pb.Call:
    """A call that puts two values into a plane of four."""
    request = pb.UnpoolRequest(
        operator=operators_pb2.UnpoolOperator(
            max_unpool=operators_pb2.MaxUnpool(spatial_dims=1, kernel_size=[2], stride=[2])
        ),
        input=arrays.from_numpy(np.array([[[1.0, call_id]]], np.float32)),
        indices=arrays.from_numpy(np.array([[[0, index]]], np.int64)),
    )
    return pb.Call(id=call_id, unpool=request)


def sigmoid(call_id: int, byte: int) -> pb.Call:
    """A call whose input is bool."""
    tensor = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_BOOL, shape=[2], data=bytes([1, byte]))
    operator = operators_pb2.ActivateOperator(sigmoid=operators_pb2.Sigmoid())
    return pb.Call(id=call_id, activate=pb.ActivateRequest(operator=operator, input=tensor))


def codes(rig: WorkerRig, ids: Sequence[int]) -> list[str]:
    return [code(rig, i) for i in ids]


def ran_right(rig: WorkerRig, ids: Sequence[int]) -> bool:
    return all(rig.gateway.values(i) == [0.0, float(i)] for i in ids)


async def test_a_group_is_one_batch_and_one_answer(rig: WorkerRig) -> None:
    frame = await rig.gateway.last(rig.gateway.send([], relus(5)))
    assert rig.device.batches == [5]
    assert len(rig.gateway.groups) == 1
    assert not frame.ordinals, "the last message answers all that were left"
    assert ran_right(rig, range(5))


async def test_groups_and_single_calls_of_a_frame_run_together(rig: WorkerRig) -> None:
    await hold(rig)
    number = rig.gateway.send([relu(50, -50.0, 50.0)], relus(3), relus(2, 10), relus(1, 20))
    await settle(rig, 7)
    rig.device.gate.set()
    await rig.gateway.last(number)
    assert rig.device.batches == [1, 7]
    assert ran_right(rig, [50, 0, 1, 2, 10, 11, 20])
    response_to_single = [group for group in rig.gateway.groups if 50 in id_numbers(group.ids)]
    assert not response_to_single, "answers to singles are singles"


@pytest.mark.parametrize("culprit", [0, 7, 30, 63])
async def test_a_failing_batch_is_halved_through_groups(rig: WorkerRig, culprit: int) -> None:
    def fault(calls: Sequence[CallGroup]) -> None:
        if any(culprit in id_numbers(call.ids) for call in calls):
            raise RuntimeError("this one is bad")

    rig.device.fault = fault
    await hold(rig, 1000)
    number = rig.gateway.send([], relus(40), relus(24, 40))
    await settle(rig, 64)
    rig.device.gate.set()
    await rig.gateway.last(number)
    assert [i for i in range(64) if code(rig, i) != "OK"] == [culprit]
    assert code(rig, culprit) == "INTERNAL"
    assert ran_right(rig, [i for i in range(64) if i != culprit])
    assert rig.metrics.counter("layerwire_calls_total", operator="relu", code="OK").value == 64
    assert rig.metrics.counter("layerwire_calls_total", operator="relu", code="INTERNAL").value == 1


async def test_short_of_memory_cuts_groups_and_remembers(rig: WorkerRig) -> None:
    def fault(calls: Sequence[CallGroup]) -> None:
        if sum(call.count for call in calls) > 10:
            raise torch.OutOfMemoryError("no")

    rig.device.fault = fault
    await rig.gateway.last(rig.gateway.send([], relus(40)))
    assert rig.device.batches == [40, 20, 10, 10, 20, 10, 10]
    await rig.gateway.last(rig.gateway.send([], relus(40, 100)))
    assert max(rig.device.batches[7:]) <= 20, "the ceiling is remembered, and cuts the group"
    assert ran_right(rig, [*range(40), *range(100, 140)])


@pytest.mark.parametrize("wrong", [[0], [2], [4], [1, 2], [0, 2, 4], [0, 1, 2, 3, 4]])
async def test_wrong_indices_are_their_calls_alone(rig: WorkerRig, wrong: list[int]) -> None:
    group = group_of([unpool(i, 9 if i in wrong else 2) for i in range(5)])
    await rig.gateway.last(rig.gateway.send([unpool(90, 9)], group))
    assert [i for i in range(5) if code(rig, i) == "INVALID_ARGUMENT"] == wrong
    message = rig.gateway.answers[90].status.message
    assert all(rig.gateway.answers[i].status.message == message for i in wrong), "in the words a single call gets"
    for i in set(range(5)) - set(wrong):
        output = arrays.to_numpy(rig.gateway.answers[i].unpool.output)
        assert output.tolist() == [[[1.0, 0.0, float(i), 0.0]]]


async def test_cancelled_calls_leave_their_group(rig: WorkerRig) -> None:
    await hold(rig)
    number = rig.gateway.send([], relus(6))
    await settle(rig, 6)
    cancel = pb.StreamRequest(cancel=pb.Cancellation(ids=[1, 4, 5, 77])).SerializeToString()
    rig.gateway.link.send(Frame(Kind.CANCEL_CALLS, payload=cancel, stream=1))
    frame = await rig.gateway.kind(Kind.ANSWERS)
    assert sorted(frame.ordinals) == [1, 4, 5] and frame.frame == number, "answered at once"
    assert rig.lanes.calls == 3
    rig.device.gate.set()
    await rig.gateway.last(number)
    assert codes(rig, range(6)) == ["OK", "CANCELLED", "OK", "OK", "CANCELLED", "CANCELLED"]
    assert ran_right(rig, [0, 2, 3])
    assert rig.device.batches == [1, 3]


async def test_a_group_whose_calls_are_all_cancelled_leaves_its_lane(rig: WorkerRig) -> None:
    first = await hold(rig)
    number = rig.gateway.send([], relus(3, timeout_seconds=60.0))
    await settle(rig, 3)
    for ids in ([2], [0, 1]):
        cancel = pb.StreamRequest(cancel=pb.Cancellation(ids=ids)).SerializeToString()
        rig.gateway.link.send(Frame(Kind.CANCEL_CALLS, payload=cancel, stream=1))
    await rig.gateway.last(number)
    assert codes(rig, range(3)) == ["CANCELLED"] * 3
    assert rig.lanes.calls == 0 and len(rig.lanes) == 0
    rig.device.gate.set()
    await rig.gateway.last(first)
    assert rig.device.batches == [1]


async def test_a_call_that_runs_is_not_cancelled(rig: WorkerRig) -> None:
    rig.device.gate.clear()
    number = rig.gateway.send([], relus(3))
    await rig.until_started()
    cancel = pb.StreamRequest(cancel=pb.Cancellation(ids=[1])).SerializeToString()
    rig.gateway.link.send(Frame(Kind.CANCEL_CALLS, payload=cancel, stream=1))
    rig.gateway.link.send(Frame(Kind.CANARY, 9))
    while not rig.loop._other_requests._tasks:
        await asyncio.sleep(0)
    rig.device.gate.set()
    await rig.gateway.last(number)
    assert ran_right(rig, range(3))


async def test_a_part_of_a_group_that_waits_on_can_be_cancelled(rig: WorkerRig) -> None:
    """A group larger than a batch: what waits while the first part runs."""
    rig.device.gate.clear()
    calls = [relu(i, *[float(i)] * 8192) for i in range(8)]  # 128 blocks each: a batch holds 64 of 512 at most
    number = rig.gateway.send([], group_of(calls))
    await rig.until_started()
    waiting = rig.lanes.calls
    assert 0 < waiting < 8, "the limit cut the group"
    cancel = pb.StreamRequest(cancel=pb.Cancellation(ids=[0, 7])).SerializeToString()
    rig.gateway.link.send(Frame(Kind.CANCEL_CALLS, payload=cancel, stream=1))
    await settle(rig, waiting - 1)
    rig.device.gate.set()
    await rig.gateway.last(number)
    assert codes(rig, range(8)) == ["OK"] * 7 + ["CANCELLED"]
    assert all(rig.gateway.values(i) == [float(i)] * 8192 for i in range(7))


async def test_a_cancelled_frame_takes_its_groups_along(rig: WorkerRig) -> None:
    first = await hold(rig)
    second, third = rig.gateway.send([], relus(4)), rig.gateway.send([], relus(2, 10))
    await settle(rig, 6)
    for number in (first, second):
        rig.gateway.link.send(Frame(Kind.CANCEL_FRAME, number))
    await settle(rig, 2)
    rig.device.gate.set()
    await rig.gateway.last(third)
    assert set(rig.gateway.answers) == {10, 11}
    assert rig.metrics.counter("layerwire_calls_total", operator="relu", code="CANCELLED").value == 4


async def test_a_group_expires_as_a_whole(rig: WorkerRig) -> None:
    await hold(rig)
    number = rig.gateway.send([], relus(3, timeout_seconds=0.02), relus(2, 10))
    frame = await rig.gateway.kind(Kind.ANSWERS)
    assert frame.frame == number and frame.ordinals == (0, 1, 2), "answered while the device is busy"
    rig.device.gate.set()
    await rig.gateway.last(number)
    assert codes(rig, [0, 1, 2, 10, 11]) == ["DEADLINE_EXCEEDED"] * 3 + ["OK"] * 2
    assert rig.device.batches == [1, 2]
    assert rig.metrics.counter("layerwire_calls_total", operator="relu", code="DEADLINE_EXCEEDED").value == 3


async def test_a_group_past_its_deadline_is_refused_on_arrival(rig: WorkerRig) -> None:
    now = asyncio.get_running_loop().time()
    await rig.gateway.last(rig.gateway.send([], relus(2), deadline=now - 1))
    assert codes(rig, range(2)) == ["DEADLINE_EXCEEDED"] * 2
    assert rig.device.batches == []


async def test_a_queue_that_is_nearly_full_takes_a_part(rig: WorkerRig) -> None:
    await hold(rig)
    number = rig.gateway.send([], relus(LIMITS.queue_calls - 4), relus(10, 100))
    await settle(rig, LIMITS.queue_calls)
    rig.device.gate.set()
    await rig.gateway.last(number)
    assert codes(rig, range(100, 110)) == ["OK"] * 4 + ["RESOURCE_EXHAUSTED"] * 6
    status = rig.gateway.answers[109].status
    assert "--max-queue-calls" in status.message
    assert any(detail.type_url.endswith("RetryInfo") for detail in status.details)
    assert rig.metrics.counter("layerwire_rejected_total", reason="queue_calls").value == 6


async def test_isolated_groups_run_call_by_call_and_announced(rig: WorkerRig) -> None:
    ordinals = (1, 3 | QUARANTINED, 5)
    number = rig.gateway.send([relu(90, 1.0)], relus(3), relus(2, 10), flags=Flag.ISOLATE, ordinals=ordinals)
    await rig.gateway.last(number)
    assert rig.device.batches == [1, 1, 1]
    assert rig.gateway.started == [(), (0,), (2,), (4,)]
    assert set(rig.gateway.answers) == {90, 1, 2, 10}
    assert codes(rig, [90, 1, 2, 10]) == ["OK", "OK", "INTERNAL", "OK"]
    assert ran_right(rig, [1, 10])


async def test_quarantined_and_answered_calls_of_a_group_do_not_run(rig: WorkerRig) -> None:
    number = rig.gateway.send([], relus(6), ordinals=(2, 1 | QUARANTINED, 5 | QUARANTINED))
    await rig.gateway.last(number)
    assert set(rig.gateway.answers) == {0, 1, 3, 4, 5}
    assert codes(rig, [0, 1, 3, 4, 5]) == ["OK", "INTERNAL", "OK", "OK", "INTERNAL"]
    messages = {rig.gateway.answers[i].status.message for i in (1, 5)}
    assert len(messages) == 2, "each has an error id of its own"
    assert rig.device.batches == [3]
    assert ran_right(rig, [0, 3, 4])


async def test_answers_larger_than_a_message_go_in_parts(rig: WorkerRig) -> None:
    values = [1.0] * (MAX_ANSWER_BYTES // 4 // 2)
    number = rig.gateway.send([], group_of([relu(i, *values) for i in range(5)]))
    assert max(await rig.gateway.answer_sizes(number)) <= MAX_ANSWER_BYTES
    assert codes(rig, range(5)) == ["OK"] * 5


async def test_an_answer_over_a_message_is_every_calls_error(rig: WorkerRig) -> None:
    values = [0.0] * (MAX_ANSWER_BYTES // 4)
    frame = rig.gateway.send([relu(90, *values)], group_of([relu(i, *values) for i in range(3)]))
    await rig.gateway.last(frame)
    assert codes(rig, range(3)) == ["RESOURCE_EXHAUSTED"] * 3
    assert len({rig.gateway.answers[i].status.message for i in (90, 0, 1, 2)}) == 1
    assert rig.metrics.counter("layerwire_calls_total", operator="relu", code="RESOURCE_EXHAUSTED").value == 4


async def test_the_largest_answer_of_a_single_call_fits_for_one_of_a_group(rig: WorkerRig) -> None:
    await rig.gateway.last(rig.gateway.send([relu(1, 1.0)]))
    beside = rig.gateway.answers[1].ByteSize() - 4
    for excess in range(-16, 40, 4):
        count = (MAX_ANSWER_BYTES - beside - excess) // 4
        one, two = relu(100 + excess, *[1.0] * count), relu(300 + excess, *[1.0] * count)
        await rig.gateway.last(rig.gateway.send([one], group_of([two])))
        assert code(rig, one.id) == code(rig, two.id)


async def test_timing_is_shared_by_a_group(rig: WorkerRig) -> None:
    await rig.gateway.last(rig.gateway.send([relu(90, 1.0, 1.0)], relus(3, return_timing=True)))
    for i in range(3):
        timing = rig.gateway.answers[i].activate.timing
        assert timing.batch_calls == 4 and timing.batch_rows == 4 and timing.device == "cpu"
    assert ran_right(rig, range(3))


async def test_counts_are_calls(rig: WorkerRig) -> None:
    await rig.gateway.last(rig.gateway.send([], relus(7)))
    snapshot = rig.metrics.snapshot()
    assert {tuple(labels): count for labels, count in snapshot["layerwire_calls_total"]} == {("relu", "OK"): 7}
    for name, total, count in (("layerwire_batch_calls", 7, 1), ("layerwire_batch_rows", 7, 1)):
        ((_, (counts, sum_of_values)),) = snapshot[name]
        assert (sum_of_values, sum(counts)) == (total, count)
    for name in ("layerwire_call_seconds", "layerwire_queue_seconds"):
        ((_, (counts, _)),) = snapshot[name]
        assert sum(counts) == 7


GOOD = relus(2)
WRONG = {
    "a template that is none": pb.CallGroup(template=b"\xff", ids=GOOD.ids, data=GOOD.data),
    "no template": pb.CallGroup(ids=GOOD.ids, data=GOOD.data),
    "a template with an id": pb.CallGroup(
        template=pb.Call(id=7, activate=pb.Call.FromString(GOOD.template).activate).SerializeToString(),
        ids=GOOD.ids, data=GOOD.data,
    ),
    "a template with data": pb.CallGroup(template=relu(0, 1.0, 2.0).SerializeToString(), ids=GOOD.ids, data=GOOD.data),
    "data for one call": pb.CallGroup(template=GOOD.template, ids=GOOD.ids, data=[GOOD.data[0][:8]]),
    "data that can't be shared out": pb.CallGroup(template=GOOD.template, ids=GOOD.ids, data=[GOOD.data[0][:9]]),
    "no data": pb.CallGroup(template=GOOD.template, ids=GOOD.ids),
    "data for two tensors": pb.CallGroup(template=GOOD.template, ids=GOOD.ids, data=[*GOOD.data, *GOOD.data]),
    "half an id": pb.CallGroup(template=GOOD.template, ids=GOOD.ids + b"1234", data=GOOD.data),
    "an argument that no call may have": group_of([relu(i, 1.0, priority=99) for i in range(2)]),
}  # fmt: skip


@pytest.mark.parametrize("group", WRONG.values(), ids=WRONG)
async def test_what_is_wrong_with_a_group_is_every_calls_error(rig: WorkerRig, group: pb.CallGroup) -> None:
    await rig.gateway.last(rig.gateway.send([relu(90, -90.0, 90.0)], group, relus(2, 10)))
    assert codes(rig, range(2)) == ["INVALID_ARGUMENT"] * 2
    assert rig.gateway.answers[0].status == rig.gateway.answers[1].status
    assert ran_right(rig, [90, 10, 11]), "neighbours go on"


async def test_errors_of_a_group_are_in_the_words_of_single_calls(rig: WorkerRig) -> None:
    short = [relu(i, 1.0, 2.0) for i in (1, 2, 3)]
    for call in short:
        call.activate.input.data = b"1234"
    urgent, nothing = [relu(i, 1.0, priority=99) for i in (4, 5)], [pb.Call(id=i) for i in (6, 7)]
    singles = [short[0], urgent[0], nothing[0]]
    number = rig.gateway.send(singles, group_of(short[1:]), group_of(urgent[1:]), group_of(nothing[1:]))
    await rig.gateway.last(number)
    for single, groups in ((1, (2, 3)), (4, (5,)), (6, (7,))):
        assert all(rig.gateway.answers[i].status == rig.gateway.answers[single].status for i in groups)


@pytest.mark.parametrize("ids", [b"", b"1234567"])
async def test_a_group_without_ids_ends_the_frame(rig: WorkerRig, ids: bytes) -> None:
    group = pb.CallGroup(template=GOOD.template, ids=ids, data=GOOD.data)
    frame = await rig.gateway.last(rig.gateway.send([], relus(1), group))
    assert frame.flags & Flag.ERROR
    assert pb.Status.FromString(frame.payload).code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_calls_of_groups_count_against_the_most_of_a_message(rig: WorkerRig) -> None:
    group = pb.CallGroup(template=GOOD.template, ids=bytes(8 * 4095), data=[bytes(8 * 4095)])
    frame = await rig.gateway.last(rig.gateway.send([pb.Call(id=1)] * 2, group))
    assert frame.flags & Flag.ERROR
    assert "at most 4096 a message" in pb.Status.FromString(frame.payload).message


async def test_bool_bytes_that_are_wrong_are_their_calls_alone(rig: WorkerRig) -> None:
    group = group_of([sigmoid(i, 2 if i == 1 else 1) for i in range(3)])
    await rig.gateway.last(rig.gateway.send([sigmoid(90, 2)], group))
    assert codes(rig, range(3)) == ["OK", "INVALID_ARGUMENT", "OK"]
    assert rig.gateway.answers[1].status == rig.gateway.answers[90].status
