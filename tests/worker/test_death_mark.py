"""A mark tells of a death only where its process is gone; and what is damaged in a store ends no worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from layerwire_server.worker.death_mark import DeathMark
from layerwire_server.worker.trials.choices import Choice, Choices
from layerwire_server.worker.warmup import History

_HOLDER = """
import sys, time
from pathlib import Path
from layerwire_server.worker.death_mark import DeathMark
mark = DeathMark(Path(sys.argv[1]), "worker-0", ".trial")
mark.put(b"what it does")
print(flush=True)
time.sleep(60)
"""
DEEP = "[" * 200_000
ENDLESS = "1" + "0" * 400
_CHOICE = {"kernel": "slow", "operator": "o", "same_bits": True, "candidates": [["k", "slower", 7]]}
_CHOICES = json.dumps({"format": 2, "choices": {"here": {"key": {**_CHOICE, "start_seconds": 0}}}})
DAMAGED_CHOICES = {
    "deep": DEEP,
    "endless-number": _CHOICES.replace("7]", f"{ENDLESS}]"),
    "surrogate-in-kernel": _CHOICES.replace('"slow"', '"\\ud800"'),
    "kernel-is-a-list": _CHOICES.replace('"slow"', "[]"),
    "surrogate": '"\\ud800"',
    "no-text": "\x00",
}
DAMAGED_HISTORIES = {
    "deep": DEEP,
    "infinite-count": '{"format": 1, "hot": [[Infinity, ["activate", "", 1]]]}',
    "infinite-calls": '{"format": 1, "hot": [[1, ["activate", "", Infinity]]]}',
}


def test_a_mark_is_a_death_once_its_process_is_gone(tmp_path):
    mark, other = DeathMark(tmp_path, "worker-0", ".trial"), DeathMark(tmp_path, "worker-1", ".trial")
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert mark.take_dead() == []
        mark.put(b"mine")
        mark.remove()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert other.take_dead() == []
        assert mark.take_dead() == [b"what it does"]
        assert mark.take_dead() == []
    assert list(tmp_path.iterdir()) == []


def test_what_another_servers_worker_tries_is_tried_here_too(tmp_path):
    one = Choices(tmp_path, "here", 0, read_only=False)
    one.begin_trial("key", "relu")
    another = Choices(tmp_path, "here", 0, read_only=False)
    assert another.get("key")[0] is None
    another.begin_trial("other", "relu")
    another.end_trial()
    del one  # it dies, and its lock with it
    choice, _ = Choices(tmp_path, "here", 0, read_only=False).get("key")
    assert choice.kernel == "eager"
    assert not list(tmp_path.rglob("*.trial"))


def test_what_another_servers_worker_warms_up_with_stays(tmp_path):
    history, other = History(tmp_path, 0, read_only=False), History(tmp_path, 0, read_only=False)
    history.write(json.dumps({"format": 1, "hot": [[8, ["activate", "", 1]]]}).encode())
    assert len(history.read()) == 1  # and it warms up
    assert len(other.read()) == 1
    other.end_warmup()
    del history  # it dies
    assert History(tmp_path, 0, read_only=False).read() == []


@pytest.mark.parametrize("content", DAMAGED_CHOICES.values(), ids=DAMAGED_CHOICES)
def test_choices_that_are_damaged_are_passed_over(tmp_path, content):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "choices.json").write_text(content)
    (tmp_path / "kernels" / "worker-0.trial").write_text(content)
    choices = Choices(tmp_path, "here", 0, read_only=False)
    assert choices.all == {}
    choices.put("key", Choice("better", "relu", same_bits=True))
    assert choices.get("key")[0].kernel == "better"
    assert not list(tmp_path.rglob("*.trial"))


@pytest.mark.parametrize("content", DAMAGED_HISTORIES.values(), ids=DAMAGED_HISTORIES)
def test_histories_that_are_damaged_are_passed_over(tmp_path, content):
    (tmp_path / "hot").mkdir()
    (tmp_path / "hot" / "worker-0.json").write_text(content)
    history = History(tmp_path, 0, read_only=False)
    assert history.read() == []
    history.end_warmup()
