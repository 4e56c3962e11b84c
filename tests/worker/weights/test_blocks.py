"""Blocks of stored weights, which products by oneDNN make: counted beside the weights, and gone when those are."""

from __future__ import annotations

import pytest
import torch

from layerwire.errors import ResourceExhaustedError
from layerwire_server.operators import linear_kernels
from layerwire_server.operators.linear import Linear
from layerwire_server.operators.linear_kernels import has_blocks
from layerwire_server.operators.operator import EAGER, Merge
from layerwire_server.programs.graph import StoredTensor
from layerwire_server.storage import Store, write_safetensors
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.trials import samples
from layerwire_server.worker.trials.choices import Choice
from layerwire_server.worker.trials.site import Site, site_key
from layerwire_server.worker.trials.trial import agree
from layerwire_server.worker.weights.stored_tensors import StoredTensors
from layerwire_server.worker.weights.weights_cache import CacheMiss, WeightsCache
from tests.worker.trials.local import Rig


@pytest.fixture(autouse=True)
def _few_rows_are_enough(monkeypatch):
    monkeypatch.setattr(linear_kernels, "_LEAST_ROWS", 1)


pytestmark = pytest.mark.skipif(not Linear().kernels(), reason="this build of torch has no oneDNN")

NBYTES = 64 * 32 * 4  # of weights, and of their blocks
X = torch.linspace(-1, 1, 8 * 32).view(8, 32)
KEY = LaneKey(Linear(), Merge.ROWS, 100, False)


class Weights:
    """A store of weights, and a cache with room for so many of them or of their blocks."""

    def __init__(self, directory, room):
        self._store = Store(directory)
        self.cache = WeightsCache(StoredTensors(self._store), lambda tensor: tensor, room * NBYTES)

    def put(self, value):
        data = torch.full((64, 32), value).numpy().tobytes()
        digest = self._store.put_weights(write_safetensors({"w": ("float32", (64, 32), data)}))
        return StoredTensor(digest, "w")

    async def load(self, stored):
        while True:
            try:
                return self.cache.weights(stored).device
            except CacheMiss as miss:
                await miss.load()


@pytest.fixture
def weights(tmp_path):
    return Weights(tmp_path, 4)


def product(weight):
    """By oneDNN."""
    return Linear().kernels()["onednn"](X, weight, None)


async def test_they_count_once_somebody_made_them(weights):
    weight = await weights.load(weights.put(1.0))
    assert weights.cache.nbytes == NBYTES
    for _ in range(2):
        assert agree(product(weight), Linear().run(X, weight, None), exact=False)
        assert weights.cache.nbytes == 2 * NBYTES


async def test_they_go_with_weights_that_are_evicted(weights):
    first = await weights.load(weights.put(1.0))
    product(first)
    for value in (2.0, 3.0):
        await weights.load(weights.put(value))
    assert (weights.cache.nbytes, weights.cache.evictions) == (4 * NBYTES, 0)
    await weights.load(weights.put(4.0))
    assert (weights.cache.nbytes, weights.cache.evictions) == (3 * NBYTES, 1), "also while a call holds the weights"
    expected = product(first)  # a call that came before
    assert weights.cache.nbytes == 4 * NBYTES
    assert agree(expected, Linear().run(X, first, None), exact=False)
    del first
    assert weights.cache.nbytes == 3 * NBYTES


async def test_those_of_pinned_weights_go_before_other_weights_are_refused(weights):
    stored = [weights.put(float(value)) for value in range(5)]
    weights.cache.pin(frozenset(stored))
    pinned = [await weights.load(each) for each in stored[:2]]
    for weight in pinned:
        product(weight)
    assert weights.cache.nbytes == 4 * NBYTES
    for each in stored[2:4]:
        await weights.load(each)
    assert weights.cache.nbytes == 4 * NBYTES
    with pytest.raises(ResourceExhaustedError):
        await weights.load(stored[4])
    assert weights.cache.nbytes == 4 * NBYTES


async def test_without_room_eager_takes_over_in_all_workers(tmp_path):
    weights = Weights(tmp_path / "store", 1)
    weight = await weights.load(weights.put(1.0))
    failures = []
    site = Site("here", Linear(), Linear().kernels(), failures.append, has_rows=True, is_open=False)
    site.choose("onednn")
    assert agree(site.run([X, weight, None]), Linear().run(X, weight, None), exact=True)
    assert (site.name, failures) == (EAGER, [site])
    assert weights.cache.nbytes == NBYTES


async def test_trials_are_of_stored_weights_as_they_are(weights):
    """Copies would have no blocks: for those a kernel takes another way, and another time."""
    weight, plain = await weights.load(weights.put(1.0)), torch.ones(64, 32)
    for inputs in (samples.copies, samples.random_inputs):
        x, same, other = inputs([X, weight, plain])
        assert (x is X, same is weight, other is plain) == (False, True, False)
    assert site_key(KEY, [X, weight, None]) != site_key(KEY, [X, plain, None])


async def test_what_is_chosen_runs_with_stored_weights(weights, tmp_path):
    weight = await weights.load(weights.put(1.0))
    with Rig(tmp_path, Linear()) as rig:
        choice = Choice("onednn", "linear", same_bits=False)
        rig.choices.put(site_key(rig.key, [X, weight, None]), choice)
        rig.choices._in_store = {key: each._replace(start_seconds=0.0) for key, each in rig.choices.all.items()}
        site = rig.tuner.site(rig.key, [X, weight, None])
        assert site.name == "onednn"
        assert agree(site.run([X, weight, None]), product(weight), exact=True)
        assert rig.tuner.site(LaneKey(Linear(), Merge.ROWS, 100, True), [X, weight, None]) is None, "deterministic"
    assert has_blocks(weight)
    assert weights.cache.nbytes == 2 * NBYTES
