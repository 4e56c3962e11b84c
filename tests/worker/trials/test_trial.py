"""A trial: which kernels are dropped, and which takes over."""

from __future__ import annotations

import math

import pytest
import torch

from layerwire_server.worker.trials import trial as module
from layerwire_server.worker.trials.trial import Trial, agree

X = torch.linspace(-4, 4, 24).view(4, 6)


class Clock:
    """Time that passes only while a kernel runs, as long as that kernel says."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)

    def kernel(self, seconds, function):
        def run(*tensors):
            self.now += seconds
            return (function(*tensors),)

        return run


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def verdict(clock, eager, kernels, inputs=(X,), *, exact=True, budget_seconds=math.inf):
    trial = Trial(
        eager, kernels, exact=exact, step=lambda work: work(), budget_seconds=budget_seconds
    )  # fmt: skip
    return trial.run(inputs, is_shared=[False], has_rows=True)


def test_the_fastest_with_the_same_bits_takes_over(clock):
    kernels = {
        "twice": clock.kernel(0.5, torch.relu),
        "thrice": clock.kernel(1 / 3, torch.relu),
        "wrong": clock.kernel(0.1, torch.abs),
    }
    result = verdict(clock, clock.kernel(1.0, torch.relu), kernels)
    assert result.kernel == "thrice"
    assert result.ratio == pytest.approx(3.0)
    assert result.results == {"twice": "slower", "thrice": "fastest", "wrong": "wrong"}


def test_what_is_hardly_faster_isnt_worth_it(clock):
    result = verdict(clock, clock.kernel(1.0, torch.relu), {"other": clock.kernel(0.95, torch.relu)})
    assert (result.kernel, result.ratio, result.results) == ("eager", 1.0, {"other": "slower"})


def test_a_kernel_that_raises_is_dropped(clock):
    def broken(tensor):
        raise RuntimeError("no kernel for this")

    result = verdict(clock, clock.kernel(1.0, torch.relu), {"broken": broken})
    assert result.kernel == "eager"
    assert result.results == {"broken": "failed"}
    assert "no kernel for this" in result.causes["broken"]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda x: torch.where(x.isnan(), torch.tensor(math.nan), x), id="payload of NaN"),
        pytest.param(lambda x: x + 0.0, id="sign of zero"),
        pytest.param(lambda x: x.clamp(-3e38, 3e38), id="infinity"),
    ],
)
def test_unusual_elements_are_tried_besides_the_callers(clock, wrong):
    assert torch.equal(wrong(X), X)
    result = verdict(clock, clock.kernel(1.0, torch.clone), {"other": clock.kernel(0.1, wrong)})
    assert (result.kernel, result.results) == ("eager", {"other": "wrong"})


def test_inputs_that_eager_refuses_say_nothing(clock):
    def look_up(indices):
        return torch.arange(10.0)[indices]  # the extremes that are tried are no indices

    result = verdict(
        clock, clock.kernel(1.0, look_up), {"other": clock.kernel(0.1, look_up)}, (torch.tensor([[1, 2]]),)
    )
    assert result.kernel == "other"


def test_a_hopeless_kernel_is_timed_once(clock):
    counts = {"slow": 0, "fast": 0}

    def counter(name, seconds):
        def function(tensor):
            counts[name] += 1
            return torch.relu(tensor)

        return clock.kernel(seconds, function)

    verdict(
        clock, clock.kernel(1.0, torch.relu), {name: counter(name, s) for name, s in (("slow", 9.0), ("fast", 0.5))}
    )
    assert counts["slow"] < counts["fast"]


def test_a_short_kernel_whose_first_run_others_delay_isnt_hopeless(clock):
    """It shares the cores with whoever else is there: what was delayed was that run, and not the kernel."""
    runs = iter([1e-4] * 6 + [9e-3])  # checks on six inputs, then one that waits for a core

    def delayed(tensor):
        clock.now += next(runs, 1e-4)
        return (torch.relu(tensor),)

    assert verdict(clock, clock.kernel(3e-4, torch.relu), {"delayed": delayed}).kernel == "delayed"


def test_a_trial_ends_with_its_budget(clock):
    start = clock.now
    verdict(clock, clock.kernel(1.0, torch.relu), {"other": clock.kernel(0.5, torch.relu)}, budget_seconds=0.0)
    assert clock.now - start < 30  # checks on six inputs, and three rounds of three


@pytest.mark.parametrize(
    ("output", "expected", "exact", "close"),
    [
        ([1.0, 2.0], [1.0, 2.0], True, True),
        ([1.0, 2.0000005], [1.0, 2.0], False, False),
        ([1.0, 2.001], [1.0, 2.0], False, False),
        ([0.0], [-0.0], False, True),
        ([math.nan, 1.0], [math.nan, 1.0], False, True),
        ([math.nan, 1.0], [1.0, 1.0], False, False),
        ([math.inf], [-math.inf], False, False),
        ([], [], True, True),
    ],
)
def test_agreement(output, expected, exact, close):
    outputs = (torch.tensor(output),)
    assert agree(outputs, (torch.tensor(expected),), exact=exact) is close or (exact is False and close is False)


def test_closeness_is_by_the_largest_answer():
    large = torch.tensor([1000.0, 0.001])
    assert agree((large + torch.tensor([0.0, 0.0005]),), (large,), exact=False)
    assert not agree((large + torch.tensor([0.0, 0.05]),), (large,), exact=False)
    assert not agree((large.double(),), (large,), exact=False)
    assert not agree((large.view(2, 1),), (large,), exact=False)
    assert not agree((torch.tensor([1, 2]),), (torch.tensor([1, 3]),), exact=False)
    assert not agree((large, large), (large,), exact=False)


def test_of_large_inputs_unusual_elements_are_tried_in_a_few_rows(clock):
    rows = []

    def kernel(tensor):
        rows.append(len(tensor))
        return torch.relu(tensor)

    x = torch.randn(5000, 200)
    assert verdict(clock, clock.kernel(1.0, torch.relu), {"other": clock.kernel(0.5, kernel)}, (x,)).kernel == "other"
    assert set(rows[1:4]) == {1310}
    assert {rows[0], *rows[4:]} == {5000}
