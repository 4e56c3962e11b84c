"""Kernels by one thread: which operators have them, what they leave behind, and when they are worth it."""

from __future__ import annotations

import math

import pytest
import torch

from layerwire_server.operators.activate import Relu
from layerwire_server.operators.convolve import Conv
from layerwire_server.operators.linear import Linear
from layerwire_server.operators.operator import TORCH_DTYPES
from layerwire_server.operators.pool import AvgPool, LpPool, MaxPool
from layerwire_server.operators.pool_adaptive import AdaptiveAvgPool, AdaptiveMaxPool
from layerwire_server.operators.window import Window
from layerwire_server.programs.run import Run
from layerwire_server.worker.trials import trial as module
from layerwire_server.worker.trials.site import kernels_of
from layerwire_server.worker.trials.trial import Trial, agree

WINDOW = Window((3, 3), (2, 2), (1, 1), (1, 1), ceil_mode=False)
AVG = AvgPool(WINDOW, count_include_pad=True, divisor_override=None)
POOLS = {
    "max_pool2d": MaxPool(WINDOW, return_indices=False),
    "max_pool2d with indices": MaxPool(WINDOW, return_indices=True),
    "avg_pool2d": AVG,
    "adaptive_avg_pool2d": AdaptiveAvgPool((4, 3)),
    "adaptive_avg_pool2d of whole planes": AdaptiveAvgPool((1, 1)),
    "adaptive_max_pool2d": AdaptiveMaxPool((4, 3), return_indices=True),
}
CASES = [
    pytest.param(pool, TORCH_DTYPES[dtype], id=f"{name}-{TORCH_DTYPES[dtype]}")
    for name, pool in POOLS.items()
    for dtype in sorted(pool.dtypes)
]


@pytest.fixture
def threads():
    """Two of torch's, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def elements(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 11, 9, generator=generator) * 3  # int8 can't count the elements of larger planes
    if not dtype.is_floating_point:
        return x.abs().to(dtype)
    x[0] = torch.where(x[0] > 0, 0.0, -0.0)
    x[1, ::3, ::2] = math.nan
    x[2, ::5] = -math.inf
    x[3, 1::5] = math.inf
    return x.to(dtype)


@pytest.mark.parametrize(("pool", "dtype"), CASES)
def test_pools_have_the_same_bits_by_one_thread(pool, dtype, threads):
    x = elements(dtype)
    expected = pool.run(x)
    kernels = {name: kernel for name, kernel in kernels_of(pool, threads).items() if name.endswith("_one_thread")}
    assert "eager_one_thread" in kernels
    for kernel in kernels.values():
        assert agree(kernel(x), expected, exact=True)


def test_operators_that_torch_runs_by_one_thread_anyway_have_no_others():
    assert kernels_of(Relu(), 2) == {}
    assert kernels_of(AVG, 1).keys() == AVG.kernels().keys()
    assert not LpPool.is_parallel  # powers round by where a thread's part begins
    for operator in (Linear, Conv, Run):
        assert operator.is_parallel
        assert not operator.kernels_are_exact  # products round by the number of threads


def test_all_threads_are_back_afterwards(threads):
    """Also behind a kernel that raises."""
    pool = MaxPool(WINDOW, return_indices=False)
    seen = []

    class Watched(MaxPool):
        def run(self, *tensors):
            seen.append(torch.get_num_threads())
            if tensors[0] is None:
                raise ValueError("no tensor")
            return super().run(*tensors)

    kernel = kernels_of(Watched(pool.window, return_indices=False), threads)["eager_one_thread"]
    kernel(torch.randn(2, 8, 8))
    assert torch.get_num_threads() == 2
    with pytest.raises(ValueError, match="no tensor"):
        kernel(None)
    assert torch.get_num_threads() == 2
    assert seen == [1, 1]


@pytest.mark.parametrize(
    ("milliseconds", "fastest"),
    [
        pytest.param({"eager": 0.1, "eager_one_thread": 0.13}, "eager_one_thread", id="all cores gain too little"),
        pytest.param({"eager": 0.1, "eager_one_thread": 0.19}, "eager", id="all cores gain enough"),
        pytest.param({"eager": 10, "eager_one_thread": 13}, "eager", id="long ones may have all cores"),
        pytest.param({"eager": 0.4, "other": 0.1, "other_one_thread": 0.13}, "other_one_thread", id="the faster way"),
        pytest.param({"eager": 0.4, "other": 0.1, "other_one_thread": 0.17}, "other", id="the faster way, by all"),
        pytest.param({"eager": 0.1, "other": 0.095}, "eager", id="where threads make no difference"),
    ],
)
def test_short_kernels_leave_the_other_cores_alone(monkeypatch, milliseconds, fastest):
    kernels = {name: lambda tensor: (torch.relu(tensor),) for name in milliseconds}
    seconds = {name: 3 * value / 1e3 for name, value in milliseconds.items()}  # of three samples
    monkeypatch.setattr(Trial, "_times", lambda self, samples: seconds if len(samples) == 3 else None)
    eager = kernels.pop("eager")
    trial = Trial(eager, kernels, exact=True, step=lambda work: work(), budget_seconds=1.0)
    assert trial.run((torch.randn(4, 3),), is_shared=[False], has_rows=True).kernel == fastest


@pytest.mark.parametrize(("seconds", "runs"), [(0.5, 0), (0.001, 4)])
def test_what_takes_long_isnt_tried_by_one_thread(monkeypatch, seconds, runs):
    """Callers would wait for a run as many times as long as there are threads."""
    clock, count = [0.0], []
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])

    def eager(tensor):
        clock[0] += seconds
        return (torch.relu(tensor),)

    def by_one(tensor):
        count.append(1)
        clock[0] += seconds * 16
        return (torch.relu(tensor),)

    trial = Trial(
        eager, {"eager_one_thread": by_one}, exact=True, step=lambda work: work(), budget_seconds=1.0
    )  # fmt: skip
    verdict = trial.run((torch.randn(4, 3),), is_shared=[False], has_rows=True)
    assert verdict.kernel == "eager"
    assert verdict.results == {"eager_one_thread": "slower"}
    assert (len(count) >= runs) if runs else not count
