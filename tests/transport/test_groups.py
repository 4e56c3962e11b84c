"""Calls that are alike leave as one group and are answered by groups, once the server says that it takes them."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

import layerwire
from layerwire import errors
from layerwire.calls import Requests
from layerwire.transport.call import NOBODY, Call
from layerwire.transport.connection import WHOLE_FRAME_CALLS
from layerwire.transport.options import Options
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire import arrays
from layerwire.wire.dtypes import DTYPES
from layerwire.wire.protobuf import prefix
from tests.transport import groups
from tests.transport.fake_server import FakeStream
from tests.transport.rows import ROW, assert_own_answers, busy_once, numbered

F = Requests()
RNG = np.random.default_rng(0)


@pytest.fixture
def takes_groups():
    return True


def x(*shape, dtype="float32"):
    return (RNG.normal(size=shape) * 100).astype(dtype)


REQUESTS = {
    "relu": lambda: F.relu(x(2, 3)),
    "no-axes": lambda: F.relu(x()),
    "no-elements": lambda: F.relu(x(0, 3)),
    "names": lambda: F.linear(x(2, 3), "weight", "bias"),
    "weights": lambda: F.linear(x(2, 3), x(4, 3), x(4)),
    "a-name-first": lambda: F.bilinear("left", x(2, 3), "weight"),
    "indices": lambda: F.max_unpool2d(x(1, 1, 2, 2), np.arange(4).reshape(1, 1, 2, 2) * 3, 2),
    "samples": lambda: F.fractional_max_pool2d(x(1, 2, 5, 5), 2, 3, _random_samples=x(1, 2, 2)),
    "program": lambda: F.run("net", {"b": x(2), "\u00e9": x(3), "a": "stored", "Z": x(0, 2), "\U0001f600": x(1)}),
    "one-input": lambda: F.run("net", {"x": x(2)}, version=3, intermediates=["y"]),
    "gradients": lambda: F.differentiate(lambda f: f.linear(x(2, 3), "w", "b"), x(2, 4), ["input"]),
    "gradients-of-several": lambda: F.differentiate(
        lambda f: f.run("net", {"b": x(2), "a": x(3)}), {"q": x(2), "p": x(1)}, ["a"]
    ),
    "gradients-of-names": lambda: F.differentiate(lambda f: f.linear("x", "w"), {"output": x(2, 4)}, ["weight"]),
    "gradients-by-name": lambda: F.differentiate(lambda f: f.relu(x(3)), {"output": "stored"}, ["input"]),
}


@pytest.mark.parametrize("make", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("count", [1, 2, 300])
def test_a_groups_bytes_are_the_calls(make, count):
    options = Options(2.5, priority=-3, timing=True)
    calls = [Call(make(), options, NOBODY) for _ in range(count)]
    assert len({call.entry for call in calls}) == 1
    ids = [random.Random(count).getrandbits(64) + place for place in range(count)]
    parts, nbytes = calls[0].entry.group_parts(ids, [call.data for call in calls])
    written = b"".join(parts)
    assert len(written) == nbytes
    (group,) = pb.StreamRequest.FromString(prefix(1, nbytes) + written).calls.groups
    for call, number, own in zip(calls, ids, groups.calls_of(group), strict=True):
        (single,) = pb.Calls.FromString(b"".join(call.entry.parts(number, call.data))).calls
        assert own == single
    assert nbytes <= sum(call.nbytes for call in calls) + 16


async def test_calls_go_alone_until_the_server_takes_groups(serve):
    server = serve()
    server.takes_groups = False
    async with layerwire.AsyncClient(server.address) as lw:
        await asyncio.gather(*(lw.relu(ROW) for _ in range(50)))
        await asyncio.gather(*(lw.relu(ROW) for _ in range(50)))
        assert not server.groups
        server.takes_groups = True
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await asyncio.gather(*(lw.relu(ROW) for _ in range(50)))
        del server.groups[:]
        await asyncio.gather(*(lw.relu(ROW) for _ in range(50)))
        assert sum(len(groups.ids_of(group)) for group in server.groups) == 50
        server.takes_groups = False
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        del server.groups[:]
        rows = numbered(50)
        assert_own_answers(rows, await asyncio.gather(*(lw.relu(row) for row in rows)))
        assert not server.groups


async def after_first(server, **options):
    """A client whose stream is known to take groups."""
    lw = layerwire.AsyncClient(server.address, **options)
    script, server.script = server.script, FakeStream.reply
    await lw.relu(ROW)
    server.script = script
    del server.groups[:], server.calls[:]
    return lw


async def test_calls_that_are_alike_are_one_group_and_others_are_not(server):
    async with await after_first(server) as lw:
        weights = [x(10), x(10)]
        wide = lw.options(priority=2)
        calls = [lw.relu(row) for row in numbered(3)]
        calls += [lw.relu(row.astype("f8")) for row in numbered(2)]
        calls += [wide.relu(row) for row in numbered(2)]
        calls += [lw.relu(row, timeout=7) for row in numbered(2)]
        calls += [lw.sigmoid(row) for row in numbered(2)]
        calls += [lw.prelu(x(2, 10), "slope") for _ in range(2)]
        calls += [lw.prelu(x(2, 10), weight) for weight in weights]
        await asyncio.gather(*calls)
    assert [len(groups.ids_of(group)) for group in server.groups] == [3, 2, 2, 2, 2, 2, 1, 1]


def echo(stream: FakeStream, call: pb.Call) -> None:
    """A script that answers with the input."""
    stream.answer(id=call.id, activate=pb.ActivateResponse(output=call.activate.input))


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
async def test_answers_of_a_group_come_bit_for_bit(serve, dtype, library):
    import torch

    ml_dtypes = pytest.importorskip("ml_dtypes") if dtype == "bfloat16" else None
    numpy_dtype = np.dtype(ml_dtypes.bfloat16 if ml_dtypes else dtype)
    odd = np.array([np.nan, -np.nan, 0.0, -0.0, np.inf, -np.inf, 1e-40, 3], "f4")
    values = x(8).astype(numpy_dtype) if numpy_dtype.kind in "iub" else odd.astype(numpy_dtype)
    rows = [np.roll(values, number).reshape(shape) for shape in [(8,), (2, 4), (1, 8, 1)] for number in range(3)]
    rows += [np.zeros((2, 0, 3), numpy_dtype)] * 3
    rows += [values[number : number + 1].reshape(()) for number in range(5)]
    rows += [np.roll(np.resize(values, 5000), number) for number in range(5)]

    def tensor(row):
        if library == "numpy":
            return row
        return (
            torch.frombuffer(bytearray(row.tobytes()), dtype=getattr(torch, dtype)).reshape(row.shape)
            if row.size
            else torch.empty(row.shape, dtype=getattr(torch, dtype))
        )

    def bits(answer):
        if library == "numpy":
            assert answer.dtype == numpy_dtype
            return answer.tobytes()
        assert answer.dtype == getattr(torch, dtype)
        return answer.reshape(-1).view(torch.uint8).numpy().tobytes()

    async with await after_first(serve(echo)) as lw:
        answers = await asyncio.gather(*(lw.relu(tensor(row)) for row in rows))
    for row, answer in zip(rows, answers, strict=True):
        assert tuple(answer.shape) == row.shape
        assert bits(answer) == row.tobytes()


@pytest.mark.parametrize("size", [1, 10, 4096, 100_000])
@pytest.mark.parametrize("count", [2, 20])
def test_who_keeps_one_answer_keeps_no_large_column(size, count):
    data = np.arange(size * count, dtype=np.float32)
    rows = arrays.numpy_rows((1, (size,)), count, data.tobytes())
    for place, row in enumerate(rows):
        assert row.flags.writeable
        assert row.flags.aligned
        np.testing.assert_array_equal(row, data[place * size : (place + 1) * size])
        owner = row
        while isinstance(owner, np.ndarray) and owner.base is not None:
            owner = owner.base
        held = owner.nbytes if isinstance(owner, np.ndarray) else len(owner)
        assert held <= max(row.nbytes, arrays.SHARED_BYTES)
        row[:] = -1  # the others stay
    assert len(rows) == count


async def test_answers_of_torch_have_storages_of_their_own(server):
    import torch

    async with await after_first(server) as lw:
        first, second = await asyncio.gather(*(lw.relu(torch.ones(3)) for _ in range(2)))
    assert len(server.groups) == 1
    assert first.untyped_storage().nbytes() == 12
    assert first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr()


def held_calls(server, count):
    """A script that holds calls until so many came, and then hands them to what follows."""
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()

    def script(stream, call):
        server.held = [*getattr(server, "held", []), call]
        server.stream = stream
        if len(server.held) == count:
            loop.call_soon_threadsafe(ready.set)

    server.script = script
    return ready


async def test_parts_of_a_group_are_answered_in_any_order(server):
    async with await after_first(server) as lw:
        ready = held_calls(server, WHOLE_FRAME_CALLS)
        rows = numbered(WHOLE_FRAME_CALLS)
        answers = [asyncio.ensure_future(lw.relu(row)) for row in rows]
        await ready.wait()
        random.Random(1).shuffle(server.held)
        for part in (server.held[:1], server.held[1:7], server.held[7:]):
            server.soon(lambda part=part: [server.stream.reply(call) for call in part])
            own = {np.frombuffer(call.activate.input.data, "f4")[1] for call in part}
            assert_own_answers([rows[int(n)] for n in own], [await answers[int(n)] for n in own])
    assert len(server.groups) == 1


async def test_one_of_a_group_is_given_up_and_the_others_are_answered(server):
    async with await after_first(server) as lw:
        ready = held_calls(server, 5)
        rows = numbered(5)
        answers = [asyncio.ensure_future(lw.relu(row)) for row in rows]
        await ready.wait()
        answers[2].cancel()
        await server.until(lambda: len(server.cancelled) == 1)
        server.soon(lambda: [server.stream.reply(call) for call in server.held])
        assert_own_answers(rows[:2] + rows[3:], await asyncio.gather(*answers[:2], *answers[3:]))
    assert server.cancelled == [server.held[2].id]


async def test_arrays_and_tensors_of_one_group_have_their_own_kind(server):
    import torch

    async with await after_first(server) as lw:
        rows = numbered(6)
        answers = await asyncio.gather(*(lw.relu(torch.from_numpy(row) if row[1] % 2 else row) for row in rows))
    assert len(server.groups) == 1
    assert [type(answer) for answer in answers] == [np.ndarray, torch.Tensor] * 3
    assert_own_answers(rows, [np.asarray(answer) for answer in answers])


async def test_an_error_of_a_group_is_each_calls_own(serve):
    wrong = errors.invalid("relu", "input", "is wrong")
    server = serve(lambda stream, call: stream.refuse(call, wrong))
    async with await after_first(server) as lw:
        ends = await asyncio.gather(*(lw.relu(row) for row in numbered(5)), return_exceptions=True)
    assert len(server.groups) == 1
    assert len({id(end) for end in ends}) == 5
    for end in ends:
        assert (type(end), end.message, end.operator, end.field) == (type(wrong), wrong.message, "relu", "input")


async def test_those_of_a_group_that_are_to_be_tried_again_are(serve):
    script, seen = busy_once(3)
    server = serve(script)
    async with await after_first(server) as lw:
        rows = numbered(20)
        assert_own_answers(rows, await asyncio.gather(*(lw.relu(row) for row in rows)))
    ids = [call.id for call in server.calls]
    assert len(seen) >= 6
    assert sorted(ids) == sorted([*set(ids), *seen])


TEMPLATE = pb.Answer(activate={"output": {"dtype": 1, "shape": [2]}})
ODD_GROUPS = {
    "no-template": (b"", [bytes(24)]),
    "garbage": (b"\xff\xff", [bytes(24)]),
    "another-family": (pb.Answer(pool={"output": {"dtype": 1, "shape": [2]}}).SerializeToString(), [bytes(24)]),
    "no-tensor": (pb.Answer(activate={}).SerializeToString(), []),
    "no-data": (TEMPLATE.SerializeToString(), []),
    "more-data": (TEMPLATE.SerializeToString(), [bytes(24), bytes(24)]),
    "short-data": (TEMPLATE.SerializeToString(), [bytes(23)]),
    "long-data": (TEMPLATE.SerializeToString(), [bytes(25)]),
    "data-of-one": (TEMPLATE.SerializeToString(), [bytes(8)]),
    "negative-shape": (pb.Answer(activate={"output": {"dtype": 1, "shape": [-1]}}).SerializeToString(), [bytes(12)]),
    "negative-axes": (pb.Answer(activate={"output": {"dtype": 1, "shape": [-2, -1]}}).SerializeToString(), [bytes(24)]),
    "huge-shape": (pb.Answer(activate={"output": {"dtype": 1, "shape": [2**40] * 2}}).SerializeToString(), [bytes(24)]),
    "unknown-dtype": (pb.Answer(activate={"output": {"dtype": 77, "shape": [2]}}).SerializeToString(), [bytes(24)]),
}


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(("template", "data"), ODD_GROUPS.values(), ids=ODD_GROUPS)
async def test_a_group_that_makes_no_sense_fails_what_it_names_alone(server, template, data, library):
    import torch

    async with await after_first(server) as lw:
        ready = held_calls(server, 5)
        rows = numbered(5)
        tensors = rows if library == "numpy" else [torch.from_numpy(row) for row in rows]
        answers = asyncio.gather(*map(lw.relu, tensors), return_exceptions=True)
        await ready.wait()
        ids = [call.id for call in server.held]
        server.soon(server.stream.answer_group, template, [*ids[1:3], 1 << 60], *data)
        server.soon(lambda: [server.stream.reply(call) for call in server.held])
        ends = await answers
    assert [type(end) for end in ends[1:3]] == [errors.InternalError] * 2
    assert ends[1] is not ends[2]
    assert ends[1].operator == "relu"
    assert_own_answers([rows[0], *rows[3:]], [np.asarray(end) for end in (ends[0], *ends[3:])])
    assert len(server.streams) == 1


async def test_a_group_whose_ids_cannot_be_read_ends_the_stream(serve):
    def script(stream, call):
        stream.send(pb.StreamResponse(groups=[pb.AnswerGroup(ids=bytes(7))]).SerializeToString())

    async with await after_first(serve(script)) as lw:
        with pytest.raises(errors.InternalError, match="relu: .*no StreamResponse"):
            await lw.relu(ROW)


async def values(server, request, answer, data, **options):
    """What calls of a request return to whom a group of these answers came."""
    async with await after_first(server) as lw:
        ready = held_calls(server, 2)
        view = lw.options(**options) if options else lw
        calls = asyncio.gather(*(request(view) for _ in range(2)))
        await ready.wait()
        ids = [call.id for call in server.held]
        assert len(server.groups) == 1
        server.soon(server.stream.answer_group, answer.SerializeToString(), ids, *data)
        return await calls


def column(*numbers):
    return np.array(numbers, "f4").tobytes()


async def test_several_outputs_of_a_group(server):
    answer = pb.Answer(pool={"output": {"dtype": 1, "shape": [1]}, "indices": {"dtype": 8, "shape": [1]}})
    indices = np.array([7, 8]).tobytes()
    ends = await values(
        server, lambda lw: lw.max_pool2d(x(1, 2, 2), 2, return_indices=True), answer, [column(1, 2), indices]
    )
    assert [tuple(map(float, map(np.squeeze, end))) for end in ends] == [(1, 7), (2, 8)]
    assert ends[0][1].dtype == np.int64


async def test_named_outputs_of_a_group(server):
    spec = {"dtype": 1, "shape": [1]}
    answer = pb.Answer(run={"outputs": {"b": spec, "a": spec, "\u00e9": spec}, "version": 4})
    ends = await values(
        server, lambda lw: lw.run("net", {"x": x(1)}), answer, [column(1, 2), column(3, 4), column(5, 6)]
    )
    assert [{name: float(row[0]) for name, row in end.items()} for end in ends] == [
        {"a": 1, "b": 3, "\u00e9": 5},
        {"a": 2, "b": 4, "\u00e9": 6},
    ]
    assert [end.version for end in ends] == [4, 4]


async def test_gradients_of_a_group(server):
    answer = pb.Answer(differentiate={"gradients": {"input": {"dtype": 1, "shape": [1]}}})
    ends = await values(
        server, lambda lw: lw.differentiate(lambda f: f.relu(x(1)), x(1), ["input"]), answer, [column(1, 2)]
    )
    assert [float(end["input"][0]) for end in ends] == [1, 2]


async def test_timing_of_a_group_is_each_calls(server):
    answer = pb.Answer(activate={"output": {"dtype": 1, "shape": [1]}, "timing": {"batch_calls": 2, "device": "cpu"}})
    ends = await values(server, lambda lw: lw.relu(x(1)), answer, [column(1, 2)], timing=True)
    assert [(float(end.value[0]), end.timing.batch_calls, end.timing.device) for end in ends] == [
        (1, 2, "cpu"),
        (2, 2, "cpu"),
    ]
