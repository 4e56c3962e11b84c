"""The tuner: what is hot gets the fastest kernel, which stays, for all workers; and one that fails is dropped."""

from __future__ import annotations

import json
import logging
import threading

import pytest
import torch

from layerwire_server.operators.activate import Relu
from layerwire_server.operators.operator import EAGER, Merge, Operator
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.trials import tuner as module
from layerwire_server.worker.trials.choices import Choice, Choices
from tests.worker.trials.local import Rig, Tried, X, relu


@pytest.fixture
def settled(monkeypatch):
    """Set after each trial; the fastest kernel in it is the last by name, whatever the clock says."""
    event = threading.Event()
    original = module.Tuner._settle

    def settle(self, site, step):
        try:
            original(self, site, step)
        finally:
            event.set()

    monkeypatch.setattr(module.Tuner, "_settle", settle)
    monkeypatch.setattr(
        module.Trial, "_times", lambda self, _: {EAGER: 9.0, **dict.fromkeys(self._kernels, 1.0)}
    )  # fmt: skip
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    return event


def test_what_is_hot_gets_the_fastest_kernel(tmp_path, settled):
    with Rig(tmp_path, Tried(ways={"better": relu})) as rig:
        assert rig.tuner.try_all() == 0  # a worker calls it whatever the setting
        rig.hot()
        assert settled.wait(60)
        assert rig.batch() == "better"
        assert rig.tuner.trials == {("relu", "better", "fastest"): 1}
        assert rig.tuner.batches == {("relu", "better"): 1}
        assert [choice.kernel for choice in rig.choices.all.values()] == ["better"]


def test_what_is_seldom_or_short_is_let_be(tmp_path, settled):
    with Rig(tmp_path, Tried(ways={"better": relu})) as rig:
        for _ in range(module._HOT_BATCHES - 1):
            rig.batch()
        for _ in range(100):
            rig.batch(X[:1], seconds=module._HOT_SECONDS / 200)
    assert not settled.is_set()


def test_sizes_of_batches_are_tried_apart(tmp_path, settled):
    with Rig(tmp_path, Tried(ways={"better": relu})) as rig:
        rig.hot()
        assert settled.wait(60)
        assert rig.batch(torch.ones(7, 3)) == "better"
        assert rig.batch(torch.ones(8, 3)) == EAGER
        assert rig.batch(torch.ones(3, 3)) == EAGER


def test_inputs_are_copied_before_their_memory_is_written_anew(tmp_path, settled):
    samples = []

    def keep(tensor):
        samples.append(tensor.clone())
        return relu(tensor)

    x = torch.full((4, 3), 5.0)
    with Rig(tmp_path, Tried(ways={"better": keep})) as rig:
        submit, gate = rig.threads.submit, threading.Event()
        rig.threads.submit = lambda work: submit(lambda: (gate.wait(60), work())[1])  # type: ignore[method-assign]
        rig.tuner._submit = rig.threads.submit
        rig.hot(x)
        x.zero_()
        gate.set()
        assert settled.wait(60)
    assert torch.equal(samples[0], torch.full((4, 3), 5.0))


def test_the_choice_survives_a_restart_and_is_the_same_in_two_workers(tmp_path, settled):
    with Rig(tmp_path, Tried(ways={"better": relu})) as rig, Rig(tmp_path, Tried(ways={"better": relu}), index=1) as b:
        assert b.batch() == EAGER
        rig.hot()
        assert settled.wait(60)
        b.look()
        assert b.batch() == "better"
    with Rig(tmp_path, Tried(ways={"better": relu})) as rig:
        assert rig.batch() == "better"


def test_the_first_choice_stands(tmp_path, settled, clock):
    """Two workers that tried at the same time use what the first has written, though the second found another."""
    ways = {"better": relu, "other": relu}
    with Rig(tmp_path, Tried(ways=ways, exact=False)) as rig:
        site = rig.tuner.site(rig.key, [X])
        original = rig.choices.put

        def put(key, choice):
            Choices(tmp_path, "here", 1, read_only=False).put(
                key, choice._replace(kernel="other")
            )  # in the last moment
            original(key, choice)

        rig.choices.put = put
        rig.hot()
        assert settled.wait(60)
        assert rig.batch() == EAGER  # not before its moment
        clock.now += module.KNOWN_SECONDS
        assert rig.batch() == EAGER
        clock.now += 60.0
        assert rig.batch() == "other"
        assert site.name == "other"


def test_another_environment_chooses_for_itself(tmp_path, settled):
    with Rig(tmp_path, Tried(ways={"better": relu})) as rig:
        rig.hot()
        assert settled.wait(60)
        name = next(iter(rig.choices.all))
    assert Choices(tmp_path, "here", 0, read_only=False).get(name)[0].kernel == "better"
    assert Choices(tmp_path, "elsewhere", 0, read_only=False).get(name)[0] is None


@pytest.mark.parametrize(("exact", "name"), [(True, "better"), (False, EAGER)])
def test_what_rounds_otherwise_isnt_used_where_nothing_can_be_written(tmp_path, settled, exact, name):
    with Rig(tmp_path, Tried(ways={"better": relu}, exact=exact), read_only=True) as rig:
        rig.hot()
        assert settled.wait(60)
        assert rig.batch() == name
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("exact", "name"), [(True, EAGER), (False, None)])
def test_deterministic_lanes_take_exact_kernels_only(tmp_path, exact, name):
    with Rig(tmp_path, Tried(ways={"better": relu}, exact=exact), deterministic=True) as rig:
        assert rig.batch() == name


def test_a_kernel_that_fails_later_is_dropped(tmp_path, settled, caplog):
    faults = []

    def fails_later(tensor):
        if faults:
            raise RuntimeError("later")
        return relu(tensor)

    with Rig(tmp_path, Tried(ways={"better": fails_later})) as rig:
        rig.hot()
        assert settled.wait(60)
        faults.append(1)
        site = rig.tuner.site(rig.key, [X])
        with caplog.at_level(logging.ERROR):
            assert torch.equal(site.run([X])[0], X)
            assert torch.equal(site.run([X])[0], X)
        assert site.name == EAGER
        assert [record.message for record in caplog.records if "later" in record.message] == [
            f"kernel better of {site.key} failed and is dropped: RuntimeError('later')"
        ]


def test_a_call_that_eager_refuses_costs_the_kernel_nothing(tmp_path, settled):
    with Rig(tmp_path, Tried(ways={"better": relu})) as rig:
        rig.hot()
        assert settled.wait(60)
        site = rig.tuner.site(rig.key, [X])
        with pytest.raises(TypeError):
            site.run(["no tensor"])
        assert site.name == "better"


def test_a_trial_that_killed_the_worker_isnt_held_again(tmp_path, settled, caplog):
    rig = Rig(tmp_path, Tried(ways={"better": relu}))
    name = rig.tuner.site(rig.key, [X]).key
    rig.choices.begin_trial(name, "relu")
    del rig.choices._mark  # and here it dies, and its lock with it
    with Rig(tmp_path, Tried(ways={"better": relu})) as after:
        after.hot()
        assert after.batch() == EAGER
        assert "died during a trial" in caplog.text
    assert not settled.is_set()
    assert not list((tmp_path / "kernels").glob("*.trial"))


def test_startup_tries_what_the_warm_up_ran_and_nothing_after(tmp_path, settled):
    rig = Rig(tmp_path, Tried(ways={"better": relu}), "startup")
    rig.batch()
    assert rig.tuner.try_all() == 1
    assert rig.batch() == "better"
    with rig:
        rig.hot(torch.ones(9, 3))
        assert rig.batch(torch.ones(9, 3)) == EAGER
    assert len(rig.tuner.trials) == 1


def test_an_operator_without_kernels_has_no_site(tmp_path):
    with Rig(tmp_path, Relu()) as rig:
        assert rig.batch() is None


def test_a_file_that_isnt_ours_is_passed_over(tmp_path, caplog):
    (tmp_path / "kernels").mkdir()
    path = tmp_path / "kernels" / "choices.json"
    half = {"format": 2, "choices": {"here": {"anything": {"kernel": "better"}}}}
    for content in ("[", "[]", *map(json.dumps, ({"format": 2, "choices": []}, {"format": 2}, {"format": 1}, half))):
        path.write_text(content)
        choices = Choices(tmp_path, "here", 0, read_only=False)
        assert choices.get("anything")[0] is None
    for kernel in ("better", "other"):
        choices.put("key", Choice(kernel, "relu", same_bits=True))
        assert choices.get("key")[0].kernel == "better"


def test_a_name_that_no_kernel_has_any_more_is_eager(tmp_path):
    rig = Rig(tmp_path, Tried(ways={"better": relu}))
    name = rig.tuner.site(rig.key, [X]).key
    rig.choices.put(name, Choice("of another release", "relu", same_bits=True))
    with Rig(tmp_path, Tried(ways={"better": relu})) as later:
        assert later.batch() == EAGER


def test_the_worker_ends_in_the_middle_of_a_trial(tmp_path):
    started, gate = threading.Event(), threading.Event()

    def slow(tensor):
        started.set()
        assert gate.wait(60)
        return relu(tensor)

    with Rig(tmp_path, Tried(ways={"better": slow})) as rig:
        rig.hot()
        assert started.wait(60)
        rig.tuner._end.set()
        gate.set()
    assert not list((tmp_path / "kernels").glob("*"))


def test_operators_are_named_alike_in_every_process(tmp_path):
    site = Rig(tmp_path, Tried(ways={"better": relu})).tuner.site
    assert isinstance(Tried(), Operator)
    key = LaneKey(Tried(ways={"better": relu}), Merge.ROWS, 100, deterministic=False)
    assert site(key, [X]).key == "Tried(exact=True) float32[<8, 3]"
