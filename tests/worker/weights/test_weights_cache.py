"""Copies on a device: brought once, shared, the least recently used out first, pinned ones kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from layerwire.errors import InvalidArgumentError, NotFoundError, ResourceExhaustedError
from layerwire.v1 import operators_pb2, program_pb2
from layerwire.wire.dtypes import DTYPES
from layerwire_server.programs.check import ProgramLimits
from layerwire_server.programs.graph import Stored
from layerwire_server.programs.variant import Facts
from layerwire_server.storage import MissingError, NamedTensor, Store, write_safetensors
from layerwire_server.worker.weights import weights_cache
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.stored_tensors import Originals
from layerwire_server.worker.weights.weights_cache import Absent, Bound, Copies, Weights

FLOAT = DTYPES["float32"]


class Uploads:
    """The device's side: counts, and may be held up."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        assert self.gate.wait(30)
        self.count += 1
        return tensor


class Bench:
    """A store with tensors of 100 floats in a file each, and copies of them."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.store = Store(directory)
        self.originals = Originals(self.store)
        self.uploads = Uploads()
        self.copies = Copies(self.originals, self.uploads, max_bytes)
        facts = Facts(ProgramLimits(1 << 20, 1 << 22, 1e9), "cpu")
        self.catalog = Catalog(self.store, self.originals, self.copies, facts)

    def put(self, value: float) -> Stored:
        data = torch.full((100,), value).numpy().tobytes()
        return Stored(self.store.put_weights(write_safetensors({"tensor": ("float32", (100,), data)})), "tensor")

    def program(self, **weights: Stored) -> program_pb2.Program:
        """One that multiplies its input by each of them."""
        program = program_pb2.Program(
            inputs=[program_pb2.ProgramInput(name="x", dtype="DATA_TYPE_FLOAT32", shape=[-1, 100])]
        )
        value = "x"
        for name, stored in weights.items():
            constant = program_pb2.StoredTensor(digest=stored.digest, key=stored.key)
            program.constants.add(name=name, stored=constant)
            inputs = [program_pb2.NodeInput(field=field, value=of) for field, of in (("input", value), ("other", name))]
            transform = program_pb2.TransformOperator(multiply=program_pb2.Multiply())
            program.nodes.add(name=f"times_{name}", inputs=inputs, transform=transform)
            value = f"times_{name}"
        program.outputs.add(name="y", value=value)
        return program


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, 1000)


async def held(get: Any) -> Any:
    while True:
        try:
            return get()
        except Absent as absent:
            await absent.bring()


def here(bench: Bench, stored: Stored) -> bool:
    try:
        bench.copies.weights(stored)
    except Absent:
        return False
    return True


async def test_a_tensor_is_brought_once_for_all_who_wait(bench):
    stored = bench.put(2.0)
    bench.uploads.gate.clear()
    waiting = [asyncio.create_task(held(lambda: bench.copies.weights(stored))) for _ in range(8)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    bench.uploads.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert bench.uploads.count == 1
    assert {id(answer) for answer in answers[1:]} == {id(answers[1])}
    assert isinstance(answers[1], Weights)
    assert torch.equal(answers[1].device, torch.full((100,), 2.0))
    assert bench.copies.nbytes == 400


async def test_who_comes_late_for_what_was_absent_brings_nothing_again(bench):
    """Else it would be counted twice, and never again be let go as a whole."""
    one, two, three = (bench.put(value) for value in (1.0, 2.0, 3.0))
    program = await held(lambda: bench.catalog.definition(bench.program(a=one)))
    for get in (lambda: bench.copies.weights(one), lambda: bench.copies.bound(program.digest, program.variant)):
        absences = []
        for _ in range(2):
            with pytest.raises(Absent) as caught:
                get()
            absences.append(caught.value)
        for absent in absences:
            await absent.bring()
    assert (bench.copies.nbytes, bench.uploads.count) == (400, 1)
    for stored in (two, three):
        await held(lambda stored=stored: bench.copies.weights(stored))
    assert [here(bench, stored) for stored in (one, two, three)] == [False, True, True]
    assert bench.copies.nbytes == 800


async def test_the_least_recently_used_goes_first_and_what_is_held_stays_alive(bench):
    one, two, three = (bench.put(value) for value in (1.0, 2.0, 3.0))
    kept = await held(lambda: bench.copies.weights(two))
    await held(lambda: bench.copies.weights(one))
    bench.copies.weights(two)
    bench.copies.weights(one)
    await held(lambda: bench.copies.weights(three))
    assert [here(bench, stored) for stored in (one, two, three)] == [True, False, True]
    assert (bench.copies.nbytes, bench.copies.evicted) == (800, 1)
    assert torch.equal(kept.device, torch.full((100,), 2.0))


async def test_pinned_copies_stay(bench):
    one, two, three = (bench.put(value) for value in (1.0, 2.0, 3.0))
    bench.copies.pin(frozenset({one}))
    for stored in (one, two, three):
        await held(lambda stored=stored: bench.copies.weights(stored))
    assert [here(bench, stored) for stored in (one, two, three)] == [True, False, True]


async def test_a_tensor_may_be_let_go_while_a_program_that_needs_it_is_read(bench, monkeypatch):
    one, two, three, four = (bench.put(value) for value in (1.0, 2.0, 3.0, 4.0))
    program = await held(lambda: bench.catalog.definition(bench.program(a=one, b=two)))
    await held(lambda: bench.copies.weights(one))
    read, loop = bench.originals.read, asyncio.get_running_loop()

    def slow(wanted):
        monkeypatch.undo()
        for stored in (three, four):
            asyncio.run_coroutine_threadsafe(held(lambda stored=stored: bench.copies.weights(stored)), loop).result(30)
        return read(wanted)

    monkeypatch.setattr(bench.originals, "read", slow)
    bound = await held(lambda: bench.copies.bound(program.digest, program.variant))
    assert [float(tensor[0]) for tensor in bound.device] == [1.0, 2.0]
    assert [here(bench, stored) for stored in (three, four)] == [False, False]
    assert bench.copies.nbytes == 800


async def test_what_takes_no_bytes_is_not_kept_for_ever(bench, monkeypatch):
    monkeypatch.setattr(weights_cache, "_HOLDINGS", 2)
    programs = []
    for name in "abc":
        program = bench.program()
        program.nodes.add(
            name=name, inputs=[program_pb2.NodeInput(field="input", value="x")]
        ).activate.relu.SetInParent()
        program.outputs[0].value = name
        programs.append(await held(lambda program=program: bench.catalog.definition(program)))
        await held(lambda: bench.copies.bound(programs[-1].digest, programs[-1].variant))
    with pytest.raises(Absent):
        bench.copies.bound(programs[0].digest, programs[0].variant)
    for program in programs[1:]:
        bench.copies.bound(program.digest, program.variant)
    assert bench.copies.nbytes == 0


async def test_what_does_not_fit_is_refused_and_leaves_the_rest(bench):
    one, two, three = (bench.put(value) for value in (1.0, 2.0, 3.0))
    bench.copies.pin(frozenset({one, two}))
    for stored in (one, two):
        await held(lambda stored=stored: bench.copies.weights(stored))
    with pytest.raises(ResourceExhaustedError, match="--max-weights-bytes 1000"):
        await held(lambda: bench.copies.weights(three))
    assert [here(bench, stored) for stored in (one, two, three)] == [True, True, False]
    assert bench.copies.nbytes == 800


async def test_programs_share_tensors_with_names_and_each_other(bench):
    one, two = bench.put(1.0), bench.put(2.0)
    await held(lambda: bench.copies.weights(one))
    for weights in ({"a": one}, {"a": one, "b": two}, {"a": two, "b": two}):
        program = await held(lambda weights=weights: bench.catalog.definition(bench.program(**weights)))
        bound = await held(lambda program=program: bench.copies.bound(program.digest, program.variant))
        assert isinstance(bound, Bound)
    assert bench.copies.nbytes == 800
    assert bench.uploads.count == 2


async def test_a_file_that_is_gone_or_lacks_the_key_is_told(bench):
    with pytest.raises(MissingError):
        await held(lambda: bench.copies.weights(Stored("0" * 64, "tensor")))
    with pytest.raises(NotFoundError, match="no tensor 'other'"):
        await held(lambda: bench.copies.weights(bench.put(1.0)._replace(key="other")))
    assert bench.copies.nbytes == 0


def named(bench: Bench, tensors: Mapping[str, Stored], *, pinned: bool = False) -> None:
    bench.store.name_weights({name: NamedTensor(*stored, pinned) for name, stored in tensors.items()})


async def test_names_are_those_of_the_last_refresh(bench):
    one, two = bench.put(1.0), bench.put(2.0)
    named(bench, {"w": one})
    with pytest.raises(NotFoundError, match="no weights named 'w'"):
        bench.catalog.weights("w")
    await bench.catalog.refresh()
    assert float((await held(lambda: bench.catalog.weights("w"))).device[0]) == 1.0
    named(bench, {"w": two}, pinned=True)
    assert float(bench.catalog.weights("w").device[0]) == 1.0
    await bench.catalog.refresh()
    assert float((await held(lambda: bench.catalog.weights("w"))).device[0]) == 2.0


async def test_a_default_version_moves_when_its_successor_is_there(bench):
    one, two = bench.put(1.0), bench.put(2.0)
    for stored in (one, two):
        content = bench.program(w=stored).SerializeToString(deterministic=True)
        bench.store.put_program("net", content, {stored.digest}, keep_default_version=stored == two)
    await bench.catalog.refresh()
    version, program = await held(lambda: bench.catalog.program("net", None))
    await held(lambda: bench.copies.bound(program.digest, program.variant))
    assert version == 1
    bench.store.set_default_version("net", 2)
    await bench.catalog.refresh()
    version, program = bench.catalog.program("net", None)  # nobody waits for it
    assert version == 2
    assert float(bench.copies.bound(program.digest, program.variant).device[0][0]) == 2.0
    with pytest.raises(NotFoundError, match="program net has no version 3"):
        bench.catalog.program("net", 3)


async def test_a_program_names_what_it_cannot_find(bench):
    program = bench.program(w=Stored("0" * 64, "tensor"))
    with pytest.raises(InvalidArgumentError, match="program: "):
        await held(lambda: bench.catalog.definition(program))
    program.constants[0].tensor.name = "nobody"
    with pytest.raises(NotFoundError, match="constant w is 'nobody'"):
        await held(lambda: bench.catalog.definition(program))


async def test_running_variance_below_0_is_refused_when_it_is_bound(bench):
    negative = bench.put(-1.0)
    program = program_pb2.Program(
        inputs=[program_pb2.ProgramInput(name="x", dtype="DATA_TYPE_FLOAT32", shape=[-1, 100])],
        constants=[
            program_pb2.Constant(name="v", stored=program_pb2.StoredTensor(digest=negative.digest, key="tensor"))
        ],
        outputs=[program_pb2.ProgramOutput(name="y", value="bn")],
    )
    inputs = {"input": "x", "running_mean": "v", "running_var": "v"}
    program.nodes.add(
        name="bn",
        inputs=[program_pb2.NodeInput(field=field, value=value) for field, value in inputs.items()],
        normalize=operators_pb2.NormalizeOperator(batch_norm=operators_pb2.BatchNorm()),
    )
    found = await held(lambda: bench.catalog.definition(program))
    with pytest.raises(InvalidArgumentError, match="node bn: batch_norm: running_var must be at least 0"):
        await held(lambda: bench.copies.bound(found.digest, found.variant))
