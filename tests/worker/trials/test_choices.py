"""The store's choices: a kernel that rounds otherwise takes over everywhere at one moment, however slow a disk is."""

from __future__ import annotations

import os
import threading

import pytest

from layerwire_server.operators.operator import EAGER
from layerwire_server.worker.trials import choices as module
from layerwire_server.worker.trials.choices import KNOWN_SECONDS, Candidate, Choice, Choices
from tests.worker.trials.local import Rig, Tried, X, relu

FAST = Choice("better", "relu", same_bits=False, candidates=(Candidate("better", "fastest", 2.5),))
EXACT = FAST._replace(same_bits=True)


def opened(directory, index=0, *, read_only=False):
    return Choices(directory, "here", index, read_only=read_only)


def running(choices, key="key"):
    choice, _ = choices.get(key)
    return choice is not None and choices.delay(choice) == 0


@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5, 0.75, 0.999])
def test_all_workers_begin_at_one_moment(tmp_path, clock, phase):
    """Whatever the time at which each last looked: at no moment does one run what another doesn't."""
    workers = [Rig(tmp_path, Tried(ways={"better": relu}, exact=False), index=index) for index in range(3)]
    clock.now += phase
    assert [worker.batch() for worker in workers[1:]] == [EAGER, EAGER]
    clock.now += 0.3
    workers[2].look()
    key = workers[0].tuner.site(workers[0].key, [X]).key
    workers[0].choices.put(key, FAST)
    kernels = []
    for _ in range(100):
        clock.now += 0.05
        now = {worker.batch() for worker in workers}
        assert len(now) == 1
        kernels += now
    assert kernels == sorted(kernels, key=["eager", "better"].index)  # and never back
    assert kernels[-1] == "better"


def test_a_worker_that_comes_up_meanwhile_begins_with_the_others(tmp_path, clock):
    opened(tmp_path).put("key", FAST)
    late = opened(tmp_path, 1)
    assert not running(late)
    choice, known_until = late.get("key")
    clock.now += late.delay(choice) + 1e-3
    assert clock.monotonic() > known_until
    assert running(late)


def test_same_bits_begin_at_once(tmp_path, clock):
    choices = opened(tmp_path)
    choices.put("key", EXACT)
    assert running(choices)
    assert running(opened(tmp_path, 1))


@pytest.mark.parametrize(("seconds", "writes"), [(0.9, 1), (1.5, 2), (9.0, 4), (1e3, 6)])
def test_a_slow_disk_moves_the_moment(tmp_path, clock, monkeypatch, seconds, writes):
    """Who looked just before the file came knows nothing for KNOWN_SECONDS, and so the moment is later than that."""
    fsync, replace = os.fsync, os.replace
    count, visible = [], []

    def slow(descriptor):
        clock.now += seconds if not visible else 0.0
        count.append(descriptor)
        fsync(descriptor)

    def rename(*paths):
        visible.append(clock.now)
        replace(*paths)

    monkeypatch.setattr(module.os, "fsync", slow)
    monkeypatch.setattr(module.os, "replace", rename)
    choices = opened(tmp_path)
    choices.put("key", FAST)
    choice, _ = choices.get("key")
    assert len(count) - len(visible) == writes  # the folder is synced too
    if choice is None:
        assert not visible  # too slow for choices
        assert not list((tmp_path / "kernels").glob(".new-*"))
    else:
        assert choice.start_seconds > visible[0] + KNOWN_SECONDS


def test_a_clock_that_is_put_back_ends_no_choice(tmp_path, clock):
    choices = opened(tmp_path)
    choices.put("key", FAST)
    clock.now -= 3600.0
    assert running(choices)


def test_all_that_is_known_of_a_trial_is_kept(tmp_path, clock):
    opened(tmp_path).put("key", FAST)
    (choice,) = opened(tmp_path, 1).all.values()
    assert choice._replace(start_seconds=0.0) == FAST
    assert opened(tmp_path).counts == {("relu", "better"): 1}


def test_where_nothing_can_be_written_a_choice_holds_in_its_worker(tmp_path, clock):
    choices = opened(tmp_path, read_only=True)
    choices.put("exact", EXACT)
    choices.put("other", FAST)
    assert running(choices, "exact")
    assert choices.get("other")[0] is None
    assert choices.counts == {("relu", "better"): 1}


def test_a_kernel_that_fails_is_given_up_by_all(tmp_path, clock):
    """The worker in which it fails goes on by eager at once; the others with their next look."""

    def failing(tensor):
        raise RuntimeError("later")

    ways = {"better": relu}
    first, other = (Rig(tmp_path, Tried(ways=dict(ways)), index=index) for index in range(2))
    first.choices.put(first.tuner.site(first.key, [X]).key, EXACT)
    clock.now += KNOWN_SECONDS * 2
    assert (first.batch(), other.batch()) == ("better", "better")
    site = first.tuner.site(first.key, [X])
    site._kernel = failing
    written, put = threading.Event(), first.choices.put
    first.choices.put = lambda *values, **named: (put(*values, **named), written.set())
    with first:
        assert first.batch() == "better"  # it fails, and eager answers
        assert first.batch() == EAGER
        assert written.wait(60)
    other.look()
    assert other.batch() == EAGER
    assert other.choices.counts == {("relu", EAGER): 1, ("relu", "better"): 0}
