"""The weights cache of a device: tensors loaded once, shared, the least recently used out first, pinned ones kept."""

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
from layerwire_server.programs.graph import StoredTensor
from layerwire_server.programs.variant import Facts
from layerwire_server.storage import MissingError, NamedTensor, Store, write_safetensors
from layerwire_server.worker.weights import weights_cache
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.stored_tensors import StoredTensors
from layerwire_server.worker.weights.weights_cache import CacheMiss, ProgramWeights, Weights, WeightsCache

FLOAT = DTYPES["float32"]


class Uploads:
    """The device's side: counts, and may be held up."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        assert self.gate.wait(300)
        self.count += 1
        return tensor


class CacheRig:
    """A store with tensors of 100 floats in a file each, and a cache of them."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.store = Store(directory)
        self.stored_tensors = StoredTensors(self.store)
        self.uploads = Uploads()
        self.cache = WeightsCache(self.stored_tensors, self.uploads, max_bytes)
        facts = Facts(ProgramLimits(1 << 20, 1 << 22, 1e9), "cpu")
        self.catalog = Catalog(self.store, self.stored_tensors, self.cache, facts)

    def put(self, value: float) -> StoredTensor:
        data = torch.full((100,), value).numpy().tobytes()
        return StoredTensor(self.store.put_weights(write_safetensors({"tensor": ("float32", (100,), data)})), "tensor")

    def program(self, **weights: StoredTensor) -> program_pb2.Program:
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
def rig(tmp_path: Path) -> CacheRig:
    return CacheRig(tmp_path, 1000)


async def after_loads(get: Any) -> Any:
    while True:
        try:
            return get()
        except CacheMiss as miss:
            await miss.load()


def is_cached(rig: CacheRig, stored: StoredTensor) -> bool:
    try:
        rig.cache.weights(stored)
    except CacheMiss:
        return False
    return True


async def test_a_tensor_is_brought_once_for_all_who_wait(rig):
    stored = rig.put(2.0)
    rig.uploads.gate.clear()
    waiting = [asyncio.create_task(after_loads(lambda: rig.cache.weights(stored))) for _ in range(8)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    rig.uploads.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert rig.uploads.count == 1
    assert {id(answer) for answer in answers[1:]} == {id(answers[1])}
    assert isinstance(answers[1], Weights)
    assert torch.equal(answers[1].device, torch.full((100,), 2.0))
    assert rig.cache.nbytes == 400


async def test_who_comes_late_for_what_was_absent_brings_nothing_again(rig):
    """Else it would be counted twice, and never again be let go as a whole."""
    one, two, three = (rig.put(value) for value in (1.0, 2.0, 3.0))
    program = await after_loads(lambda: rig.catalog.definition(rig.program(a=one)))
    for get in (lambda: rig.cache.weights(one), lambda: rig.cache.program_weights(program.digest, program.variant)):
        misses = []
        for _ in range(2):
            with pytest.raises(CacheMiss) as caught:
                get()
            misses.append(caught.value)
        for miss in misses:
            await miss.load()
    assert (rig.cache.nbytes, rig.uploads.count) == (400, 1)
    for stored in (two, three):
        await after_loads(lambda stored=stored: rig.cache.weights(stored))
    assert [is_cached(rig, stored) for stored in (one, two, three)] == [False, True, True]
    assert rig.cache.nbytes == 800


async def test_the_least_recently_used_goes_first_and_what_is_held_stays_alive(rig):
    one, two, three = (rig.put(value) for value in (1.0, 2.0, 3.0))
    weights = await after_loads(lambda: rig.cache.weights(two))
    await after_loads(lambda: rig.cache.weights(one))
    rig.cache.weights(two)
    rig.cache.weights(one)
    await after_loads(lambda: rig.cache.weights(three))
    assert [is_cached(rig, stored) for stored in (one, two, three)] == [True, False, True]
    assert (rig.cache.nbytes, rig.cache.evictions) == (800, 1)
    assert torch.equal(weights.device, torch.full((100,), 2.0))


async def test_pinned_copies_stay(rig):
    one, two, three = (rig.put(value) for value in (1.0, 2.0, 3.0))
    rig.cache.pin(frozenset({one}))
    for stored in (one, two, three):
        await after_loads(lambda stored=stored: rig.cache.weights(stored))
    assert [is_cached(rig, stored) for stored in (one, two, three)] == [True, False, True]


async def test_a_tensor_may_be_let_go_while_a_program_that_needs_it_is_read(rig, monkeypatch):
    one, two, three, four = (rig.put(value) for value in (1.0, 2.0, 3.0, 4.0))
    program = await after_loads(lambda: rig.catalog.definition(rig.program(a=one, b=two)))
    await after_loads(lambda: rig.cache.weights(one))
    read, loop = rig.stored_tensors.read, asyncio.get_running_loop()

    def slow(tensors):
        monkeypatch.undo()
        for stored in (three, four):
            asyncio.run_coroutine_threadsafe(after_loads(lambda stored=stored: rig.cache.weights(stored)), loop).result(
                30
            )
        return read(tensors)

    monkeypatch.setattr(rig.stored_tensors, "read", slow)
    weights = await after_loads(lambda: rig.cache.program_weights(program.digest, program.variant))
    assert [float(tensor[0]) for tensor in weights.device] == [1.0, 2.0]
    assert [is_cached(rig, stored) for stored in (three, four)] == [False, False]
    assert rig.cache.nbytes == 800


async def test_what_takes_no_bytes_is_not_kept_for_ever(rig, monkeypatch):
    monkeypatch.setattr(weights_cache, "_MAX_ENTRIES", 2)
    programs = []
    for name in "abc":
        program = rig.program()
        program.nodes.add(
            name=name, inputs=[program_pb2.NodeInput(field="input", value="x")]
        ).activate.relu.SetInParent()
        program.outputs[0].value = name
        programs.append(await after_loads(lambda program=program: rig.catalog.definition(program)))
        await after_loads(lambda: rig.cache.program_weights(programs[-1].digest, programs[-1].variant))
    with pytest.raises(CacheMiss):
        rig.cache.program_weights(programs[0].digest, programs[0].variant)
    for program in programs[1:]:
        rig.cache.program_weights(program.digest, program.variant)
    assert rig.cache.nbytes == 0


async def test_what_does_not_fit_is_refused_and_leaves_the_rest(rig):
    one, two, three = (rig.put(value) for value in (1.0, 2.0, 3.0))
    rig.cache.pin(frozenset({one, two}))
    for stored in (one, two):
        await after_loads(lambda stored=stored: rig.cache.weights(stored))
    with pytest.raises(ResourceExhaustedError, match="--max-weights-bytes 1000"):
        await after_loads(lambda: rig.cache.weights(three))
    assert [is_cached(rig, stored) for stored in (one, two, three)] == [True, True, False]
    assert rig.cache.nbytes == 800


async def test_programs_share_tensors_with_names_and_each_other(rig):
    one, two = rig.put(1.0), rig.put(2.0)
    await after_loads(lambda: rig.cache.weights(one))
    for constants in ({"a": one}, {"a": one, "b": two}, {"a": two, "b": two}):
        program = await after_loads(lambda constants=constants: rig.catalog.definition(rig.program(**constants)))
        weights = await after_loads(lambda program=program: rig.cache.program_weights(program.digest, program.variant))
        assert isinstance(weights, ProgramWeights)
    assert rig.cache.nbytes == 800
    assert rig.uploads.count == 2


async def test_a_file_that_is_gone_or_lacks_the_key_is_told(rig):
    with pytest.raises(MissingError):
        await after_loads(lambda: rig.cache.weights(StoredTensor("0" * 64, "tensor")))
    with pytest.raises(NotFoundError, match="no tensor 'other'"):
        await after_loads(lambda: rig.cache.weights(rig.put(1.0)._replace(key="other")))
    assert rig.cache.nbytes == 0


def name_weights(rig: CacheRig, tensors: Mapping[str, StoredTensor], *, pinned: bool = False) -> None:
    rig.store.name_weights({name: NamedTensor(*stored, pinned) for name, stored in tensors.items()})


async def test_names_are_those_of_the_last_refresh(rig):
    one, two = rig.put(1.0), rig.put(2.0)
    name_weights(rig, {"w": one})
    with pytest.raises(NotFoundError, match="no weights named 'w'"):
        rig.catalog.weights("w")
    await rig.catalog.refresh()
    assert float((await after_loads(lambda: rig.catalog.weights("w"))).device[0]) == 1.0
    name_weights(rig, {"w": two}, pinned=True)
    assert float(rig.catalog.weights("w").device[0]) == 1.0
    await rig.catalog.refresh()
    assert float((await after_loads(lambda: rig.catalog.weights("w"))).device[0]) == 2.0


async def test_a_default_version_moves_when_its_successor_is_there(rig):
    one, two = rig.put(1.0), rig.put(2.0)
    for stored in (one, two):
        content = rig.program(w=stored).SerializeToString(deterministic=True)
        rig.store.put_program("net", content, {stored.digest}, keep_default_version=stored == two)
    await rig.catalog.refresh()
    version, program = await after_loads(lambda: rig.catalog.program("net", None))
    await after_loads(lambda: rig.cache.program_weights(program.digest, program.variant))
    assert version == 1
    rig.store.set_default_version("net", 2)
    await rig.catalog.refresh()
    version, program = rig.catalog.program("net", None)  # nobody waits for it
    assert version == 2
    assert float(rig.cache.program_weights(program.digest, program.variant).device[0][0]) == 2.0
    with pytest.raises(NotFoundError, match="program net has no version 3"):
        rig.catalog.program("net", 3)


async def test_a_program_names_what_it_cannot_find(rig):
    program = rig.program(w=StoredTensor("0" * 64, "tensor"))
    with pytest.raises(InvalidArgumentError, match="program: "):
        await after_loads(lambda: rig.catalog.definition(program))
    program.constants[0].tensor.name = "nobody"
    with pytest.raises(NotFoundError, match="constant w is 'nobody'"):
        await after_loads(lambda: rig.catalog.definition(program))


async def test_running_variance_below_0_is_refused_when_it_is_bound(rig):
    negative = rig.put(-1.0)
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
    definition = await after_loads(lambda: rig.catalog.definition(program))
    with pytest.raises(InvalidArgumentError, match="node bn: batch_norm: running_var must be at least 0"):
        await after_loads(lambda: rig.cache.program_weights(definition.digest, definition.variant))
