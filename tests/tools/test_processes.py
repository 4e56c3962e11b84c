"""What /proc tells of processes: all that one started, and the time that they used."""

import subprocess
import sys
import time

import pytest
from tools.benchmarks import processes
from tools.benchmarks.processes import Usage
from tools.profile import functions

BUSY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
while time.process_time() < 0.2:
    pass
print(child.pid, flush=True)
sys.stdin.read()
child.communicate()
"""


@pytest.fixture
def busy():
    """A process that used a fifth of a second, and has a child."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        yield one, int(one.stdout.readline())
        one.communicate()


def test_a_process_has_its_children_and_its_time(busy):
    process, child = busy
    assert processes.descendants(process.pid) == [process.pid, child]
    assert processes.usage(process.pid).seconds >= 0.15


def test_roles_add_up_and_grow(busy):
    process, child = busy
    before = {processes.role(process.pid): Usage(0.1, 0.0, 0)}
    growth = processes.growth(before, processes.by_role([process.pid, child]))
    (total,) = growth.values()  # both are the same program
    parts = processes.usage(process.pid).plus(processes.usage(child))
    assert total.seconds == pytest.approx(parts.seconds - 0.1, abs=0.05)


def test_a_process_that_is_gone_used_nothing(busy):
    process, _ = busy
    process.communicate()
    assert processes.usage(process.pid) == Usage()
    assert processes.by_role([process.pid]) == {}


def test_waits_are_counted():
    before = processes.usage(processes.os.getpid()).waits
    for _ in range(5):
        time.sleep(0.001)
    assert processes.usage(processes.os.getpid()).waits >= before + 5


def test_a_function_has_its_own_time_and_that_of_what_it_calls():
    total, alone, within = functions("main;read;parse 3\nmain;read 1\nmain;read;read 2\n")
    assert (total, alone, within) == (6, {"parse": 3, "read": 3}, {"main": 6, "read": 6, "parse": 3})


def test_what_this_process_uses_is_not_its_neighbours(busy):
    neighbours = processes.Neighbours()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    before = neighbours._own_seconds
    assert processes._own_seconds() - before >= 0.25
    assert 0 <= neighbours.ratio() <= 1
