"""Crashes and other processes: the state before or after, never one between."""

import signal
import subprocess
import sys
import threading

from layerwire_server.storage import (
    Store,
)
from layerwire_server.storage import names as names_of_store
from tests.storage import dying_store
from tests.storage.dying_store import state_of
from tests.storage.stores import files_of, put

SCRIPT = [sys.executable, "-m", "tests.storage.dying_store"]


def states_of_steps(directory):
    store, states = dying_store.opened(directory), []
    states.append(state_of(store))
    for step in dying_store.STEPS:
        step(store)
        states.append(state_of(store))
    return states


def test_a_crash_anywhere_leaves_the_state_before_or_after(tmp_path):
    states = states_of_steps(tmp_path / "whole")
    reached = 0
    for point in range(1, 1000):
        directory = tmp_path / str(point)
        ended = subprocess.run([*SCRIPT, str(directory), "steps", str(point)], timeout=500)
        store = dying_store.opened(directory)
        state = state_of(store)
        assert state in states[reached:]
        reached = states.index(state, reached)
        for digest in names_of_store.weights_digests(state[0].values(), state[1].values()):
            store.open_weights(digest).close()
        for digest in names_of_store.program_digests(state[1].values()):
            store.read_program(digest)
        if ended.returncode == 0:
            break
        assert ended.returncode == 9
        store.sweep(0)
        assert not [name for name in files_of(store) if name.startswith(".new-") or name.endswith(".part")]
        for step in dying_store.STEPS[:2]:
            step(store)
    assert state == states[-1] and point > 40


def test_killed_at_any_time(directory):
    """Names that move together are never seen apart, by readers meanwhile and after a kill."""
    store = Store(directory)
    for number in (0, 1):
        put(store, number)
    for _ in range(5):
        child = subprocess.Popen([*SCRIPT, str(directory), "move"], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "moving\n"
        seen = set()
        while len(seen) < 10:
            names = store.weights()
            assert names["a"] == names["b"]
            seen.add(store.names_version())
        child.send_signal(signal.SIGKILL)
        assert child.wait(300) == -signal.SIGKILL
        child.stdout.close()
        assert store.find_weights("a") == store.find_weights("b")


def test_processes_and_threads_at_the_same_time_lose_nothing(store):
    children = [subprocess.Popen([*SCRIPT, str(store.directory), "names", prefix]) for prefix in ("x", "y")]
    tensor = put(store, 0)
    threads = [
        threading.Thread(target=lambda p=prefix: [store.name_weights({f"{p}/{i}": tensor}) for i in range(50)])
        for prefix in ("t", "u")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [child.wait(60) for child in children] == [0, 0]
    assert set(store.weights()) == {f"{prefix}/{number}" for prefix in "xytu" for number in range(50)}
    for tensor in store.weights().values():
        store.open_weights(tensor.digest).close()
