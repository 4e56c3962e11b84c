"""Groups against single calls, over what can be called: the same answers to the bit, the same errors to the word."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from layerwire.v1 import layerwire_pb2 as pb
from layerwire_server.link import Frame, Kind
from layerwire_server.operators.operator import Merge
from layerwire_server.worker.answering.reply import BatchTiming, Reply
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.reading import template
from layerwire_server.worker.reading.decoder import CallDecoder, Failure
from layerwire_server.worker.running.device import Device
from layerwire_server.worker.running.execution import execute
from layerwire_server.worker.weights.weights_cache import CacheMiss, load_error
from tests.operator_cases import Bad, Case, T, bad_cases, cases
from tests.operators.local import Local, message_of, request_of
from tests.programs.local import REQUESTS, Worker
from tests.worker.groups import answers_of, group_of
from tests.worker.request_kinds.test_run import BAD_GRADIENTS, SUM, X, gradient_of


class _Link:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.message = b""

    def send(self, frame: Frame, pieces: Sequence[bytes | memoryview]) -> None:
        self.message += b"".join(pieces)


def responses(decoder: CallDecoder, device: Device, calls: pb.Calls) -> dict[int, pb.Answer]:
    """What a frame of calls is answered with, each item in a batch of its own; raises CacheMiss."""
    frame = Frame(Kind.CALLS, 1, pb.StreamRequest(calls=calls).SerializeToString(), arrived=time.monotonic())
    link: Any = _Link()
    requests = [request for request, _ in decoder.requests(frame)]
    reply = Reply(link, frame, sum(request.count for request in requests), 1 << 28)
    for request in requests:
        for call in decoder.calls(request, frame):
            if isinstance(call, Failure):
                reply.fail(call.request, call.error)
            else:
                run(device, reply, call)
    reply.flush()
    response = pb.StreamResponse.FromString(link.message)
    answers = [*response.answers, *(answer for group in response.groups for answer in answers_of(group))]
    by_id = {answer.id: answer for answer in answers}
    assert len(by_id) == len(answers)
    return by_id


def run(device: Device, reply: Reply, call: CallGroup) -> None:
    if call.key.merge is Merge.ALONE and call.count > 1:
        for index in range(call.count):
            run(device, reply, call.part(index, index + 1))
        return
    execution = execute(device, call.key, [call])
    for part, result in zip(execution.calls, execution.results, strict=True):
        if isinstance(result, list):
            reply.answer(part, result, execution.phases, BatchTiming(0.0, 1, 1, 0, "cpu"))
        else:
            reply.fail(part, result)


def with_other_seeds(case: Case, seed: int) -> Case:
    """The case with other values of random tensors."""
    args = tuple(dataclasses.replace(arg, seed=arg.seed + seed) if isinstance(arg, T) else arg for arg in case.args)
    return dataclasses.replace(case, args=args)


def as_group(singles: Sequence[pb.Call], first: int) -> pb.CallGroup:
    others = []
    for index, single in enumerate(singles):
        other = pb.Call()
        other.CopyFrom(single)
        other.id = first + index
        others.append(other)
    return group_of(others)


def assert_alike(single: pb.Answer, other: pb.Answer) -> None:
    """The same but for the id."""
    one, two = pb.Answer(), pb.Answer()
    one.CopyFrom(single)
    two.CopyFrom(other)
    one.id = two.id = 0
    assert one == two


@pytest.fixture(scope="module")
def local() -> Local:
    return Local()


@pytest.fixture(scope="module")
def exact() -> Local:
    return Local(deterministic=True)


@pytest.fixture(scope="module")
def worker(tmp_path_factory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("store"))
    yield worker
    worker.close()


CASES = list({**{case.function: case for case in cases()}, **{case.id: case for case in cases()[::6]}}.values())
BAD = list({**{case.function: case for case in bad_cases()}, **{case.id: case for case in bad_cases()[::8]}}.values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_calls_of_a_group_are_answered_as_single_calls_are(local: Local, exact: Local, case: Case) -> None:
    singles = []
    for seed in range(3):
        single = message_of(request_of(with_other_seeds(case, seed) if seed else case))
        single.id = seed
        singles.append(single)
    groups = [as_group(singles[:1], 10), as_group(singles, 20)]
    tiled = local.decode(case).key.operator.tile_rows is not None  # bits depend on company, but where it is tiled
    side = exact if tiled else local
    answers = responses(side.decoder, side.device, pb.Calls(calls=singles, groups=groups))
    assert sorted(answers) == [0, 1, 2, 10, 20, 21, 22]
    assert_alike(answers[0], answers[10])
    for index in range(3):
        assert_alike(answers[index], answers[20 + index])


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_errors_are_every_calls_and_in_the_same_words(local: Local, case: Bad) -> None:
    try:
        single = message_of(request_of(case))
    except Exception:  # the SDK itself refuses it
        pytest.skip("never leaves the client")
    single.id = 1
    answers = responses(local.decoder, local.device, pb.Calls(calls=[single], groups=[as_group([single] * 2, 10)]))
    assert answers[1].WhichOneof("result") == "status"
    for other in (10, 11):
        assert answers[other].status == answers[1].status


def respond(worker: Worker, calls: pb.Calls) -> dict[int, pb.Answer]:
    """The same, once all that the calls need is there."""

    async def loaded() -> dict[int, pb.Answer]:
        while True:
            try:
                return responses(worker.decoder, worker._device, calls)
            except CacheMiss as miss:
                error = await load_error(miss)
                assert error is None, error

    return worker._runner.run(loaded())


KEYS = {"zz": X, "a": X + 1, "ß": X * 2, "中": X * 3}  # not in the order of their places


def sum_of_keys() -> Any:
    from tests.worker.request_kinds.test_run import ADD, node, program

    of_keys = program(node("n1", ADD, input="zz", other="a"), node("n2", ADD, input="n1", other="ß"))
    del of_keys.inputs[:]
    for key in KEYS:
        of_keys.inputs.add(name=key, dtype="DATA_TYPE_FLOAT32", shape=[-1, 3])
    of_keys.nodes.append(node("n3", ADD, input="n2", other="中"))
    del of_keys.outputs[:]
    for output in ("n3", "n1", "n2"):
        of_keys.outputs.add(name=output[::-1], value=output)
    return of_keys


RUNS = {
    "a program": lambda scale: message_of(REQUESTS.run(SUM, {"x": X * scale}, intermediates=["sum"])),
    "gradients of a program": lambda scale: gradient_of(SUM, {"y": X * scale}, ["x", "b"], {"x": X})(),
    "gradients of an operator": lambda scale: message_of(
        REQUESTS.differentiate(lambda f: f.relu(X * scale), np.full((2, 3), scale, np.float32), ["input"])
    ),
}


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
def test_programs_and_gradients_of_a_group(worker: Worker, make: Any) -> None:
    singles = [make(scale) for scale in (1, 2, 3)]
    for index, single in enumerate(singles):
        single.id = index
    for _ in range(2):  # the second time the template is known
        answers = respond(worker, pb.Calls(calls=singles, groups=[as_group(singles, 10)]))
        for index in range(3):
            assert answers[index].WhichOneof("result") != "status", answers[index]
            assert_alike(answers[index], answers[10 + index])


@pytest.mark.parametrize("case", BAD_GRADIENTS)
def test_bad_gradients_of_a_group(worker: Worker, case: str) -> None:
    single = BAD_GRADIENTS[case][0]()
    single.id = 1
    answers = respond(worker, pb.Calls(calls=[single], groups=[as_group([single] * 2, 10)]))
    assert answers[1].WhichOneof("result") == "status"
    assert answers[10].status == answers[11].status == answers[1].status


def test_inputs_and_outputs_by_name_are_in_the_order_of_their_bytes(worker: Worker) -> None:
    inputs = [{key: value * scale for key, value in KEYS.items()} for scale in (1, 5)]
    singles = [message_of(REQUESTS.run(sum_of_keys(), each)) for each in inputs]
    singles[1].id = 2
    answers = respond(worker, pb.Calls(calls=singles, groups=[as_group(singles, 10)]))
    for single, other in ((1, 10), (2, 11)):
        assert answers[single].WhichOneof("result") == "run", answers[single]
        assert_alike(answers[single], answers[other])


def put_weights(worker: Worker, **tensors: np.ndarray) -> None:
    from safetensors.numpy import save

    from layerwire_server.storage.names import NamedTensor

    digest = worker.store.put_weights([save(tensors)])
    worker.store.name_weights({name: NamedTensor(digest, name) for name in tensors})
    worker._runner.run(worker.catalog.refresh())


def linear_of(call_id: int, x: np.ndarray | str, weight: str) -> pb.Call:
    call = message_of(REQUESTS.linear(X, X))
    call.id = call_id
    if isinstance(x, str):
        call.linear.input.Clear()
        call.linear.input.name = x
    call.linear.weight.Clear()
    call.linear.weight.name = weight
    return call


def outputs_of(answers: dict[int, pb.Answer], ids: Sequence[int]) -> list[list[float]]:
    assert all(answers[i].WhichOneof("result") == "linear" for i in ids), answers
    return [np.frombuffer(answers[i].linear.output.data, np.float32).tolist() for i in ids]


def test_a_known_template_notices_that_its_names_moved(worker: Worker) -> None:
    group = group_of([linear_of(i, X, "moving") for i in range(2)])
    put_weights(worker, moving=np.ones((1, 3), np.float32))
    for _ in range(2):
        assert outputs_of(respond(worker, pb.Calls(groups=[group])), [0, 1]) == [X.sum(1).tolist()] * 2
    put_weights(worker, moving=np.full((1, 3), 2, np.float32))
    assert outputs_of(respond(worker, pb.Calls(groups=[group])), [0, 1]) == [(2 * X.sum(1)).tolist()] * 2
    put_weights(worker, moving=np.ones((2, 3), np.float32))
    assert [len(row) for row in outputs_of(respond(worker, pb.Calls(groups=[group])), [0, 1])] == [4, 4]
    worker.store.delete_weights(["moving"])
    worker._runner.run(worker.catalog.refresh())
    answers = respond(worker, pb.Calls(groups=[group], calls=[linear_of(9, X, "moving")]))
    assert answers[0].status == answers[1].status == answers[9].status
    assert "no weights named" in answers[0].status.message


def test_a_known_template_follows_its_programs_default_version(worker: Worker) -> None:
    from tests.worker.request_kinds.test_run import RELU, node, program

    single = message_of(REQUESTS.run("moving", {"x": X}))
    group = as_group([single] * 2, 10)
    worker.put("moving", SUM)
    first = respond(worker, pb.Calls(groups=[group]))[10].run
    assert respond(worker, pb.Calls(groups=[group]))[10].run == first
    worker.put("moving", program(node("y", RELU, input="x")))
    second = respond(worker, pb.Calls(groups=[group]))[11].run
    assert (first.version, second.version) == (1, 2)
    assert np.frombuffer(second.outputs["y"].data, np.float32).tolist() == np.maximum(X, 0).ravel().tolist()


def test_rows_that_all_have_by_name(worker: Worker) -> None:
    put_weights(worker, rows=X, weight=np.ones((1, 3), np.float32))
    group = group_of([linear_of(i, "rows", "weight") for i in range(3)])
    answers = respond(worker, pb.Calls(groups=[group], calls=[linear_of(9, "rows", "weight")]))
    assert outputs_of(answers, [0, 1, 2]) == outputs_of(answers, [9]) * 3


def test_weights_that_come_with_each_call(local: Local) -> None:
    singles = [message_of(REQUESTS.linear(X, np.full((1, 3), scale, np.float32))) for scale in (1, 2, 2)]
    for index, single in enumerate(singles):
        single.id = index
    frame = Frame(Kind.CALLS, 1, pb.StreamRequest(calls=pb.Calls(groups=[as_group(singles, 0)])).SerializeToString())
    ((request, _),) = local.decoder.requests(frame)
    calls = local.decoder.calls(request, frame)
    one, two, three = (call.key for call in calls if isinstance(call, CallGroup))
    assert one is not two and two is three, "equal weights meet in one lane"
    answers = responses(local.decoder, local.device, pb.Calls(groups=[as_group(singles, 0)]))
    assert outputs_of(answers, [0, 1, 2]) == [(X.sum(1) * scale).tolist() for scale in (1, 2, 2)]


@pytest.mark.parametrize("shift", range(0, 16, 3))
def test_tensors_lie_where_kernels_round_alike(local: Local, shift: int) -> None:
    """Bits of a product depend on where its inputs lie: data is copied to such a place, or lies there already."""
    x = np.arange(3 * 2050, dtype=np.float32).reshape(3, 2050)
    group = group_of([message_of(REQUESTS.relu(row)) for row in (x, x, x)])
    payload = pb.StreamRequest(calls=pb.Calls(groups=[group])).SerializeToString()
    frame = Frame(Kind.CALLS, 1, memoryview(bytes(shift) + payload)[shift:])
    ((request, _),) = local.decoder.requests(frame)
    (call,) = local.decoder.calls(request, frame)
    assert isinstance(call, CallGroup)
    for some in (call, call.part(1, 3), call.part(2, 3)):
        data = np.frombuffer(some.contents[0], np.float32)  # type: ignore[arg-type]
        assert data.__array_interface__["data"][0] % 16 == 0
        assert data.tolist() == x.ravel().tolist() * some.count


def test_a_template_is_opened_once(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    group = group_of([message_of(REQUESTS.relu(X))] * 2)
    frame = Frame(Kind.CALLS, 1, pb.StreamRequest(calls=pb.Calls(groups=[group])).SerializeToString())
    ((request, _),) = local.decoder.requests(frame)
    (first,) = local.decoder.calls(request, frame)
    monkeypatch.setattr(CallDecoder, "_resolve", None)
    (second,) = local.decoder.calls(request, frame)
    assert isinstance(first, CallGroup) and isinstance(second, CallGroup)
    assert first.plan is second.plan and first.key is second.key


def test_templates_are_bounded(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "_TEMPLATES", 4)
    side = Local()
    for rows in range(1, 8):
        group = group_of([message_of(REQUESTS.relu(np.ones((rows, 2), np.float32)))])
        responses(side.decoder, side.device, pb.Calls(groups=[group]))
    large = message_of(REQUESTS.relu(X))
    large.activate.operator.MergeFromString(b"\x9a\x3f" + bytes([100]) + bytes(100))  # an unknown field
    responses(side.decoder, side.device, pb.Calls(groups=[group_of([large])]))
    templates = side.decoder._templates
    assert len(templates._templates) == 4
    assert templates._parts == 4
    too_large = group_of([large])
    too_large.template += bytes.fromhex("d2a80e") + bytes([0xA0, 0x1F]) + bytes(4000)
    known = len(templates._templates)
    responses(side.decoder, side.device, pb.Calls(groups=[too_large]))
    assert len(templates._templates) == known, "a large one isn't kept"


def test_templates_of_large_programs_are_forgotten_before_they_fill_the_memory(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.worker.request_kinds.test_run import chain, run_of

    monkeypatch.setattr(template, "_PARTS", 25)
    fresh = CallDecoder(worker.decoder._plans, worker.catalog, deterministic=False)
    monkeypatch.setattr(worker, "decoder", fresh)
    for nodes in (9, 10, 11):
        single = run_of(chain(nodes))()
        respond(worker, pb.Calls(groups=[as_group([single], 5)]))
    assert fresh._templates._parts <= 25
    assert len(fresh._templates._templates) == 2
