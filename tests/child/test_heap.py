"""When freed memory is given back: in the first idle second after busy ones, and seldom later."""

from __future__ import annotations

import subprocess
import sys

from layerwire_server.child.heap import Heap

MIB = 1024**2
BROKEN_STREAMS = """
import gc, weakref
from layerwire_server.child import heap
class Stream: pass
old = Stream()
heap.settle()
streams = [Stream() for _ in range(100)]
for stream in streams:
    stream.task = stream
gone = [weakref.ref(stream) for stream in streams]
before = gc.get_stats()[2]["collections"]
del streams, stream
waiting = [[] for _ in range(1_000_000)]
assert gc.get_stats()[2]["collections"] == before, "no full collection while calls come to wait"
heap.Heap(0.0, 0.0).give_back_when_idle(1000.0, 0.0)
assert not any(reference() for reference in gone), "what is in circles goes at an idle time"
"""


def test_memory_is_given_back_after_work():
    trims = []
    heap = Heap(99.0, 0.0, lambda: trims.append(now))
    used = 0.0
    shares = [1.0, 0.5, 0.02, 0.02, 0.02, 0.9, *[0.02] * 20]
    for now, share in enumerate(shares, start=100):
        used += share
        heap.give_back_when_idle(now, used)
        heap.give_back_when_idle(now + 0.5, used)
    assert trims == [102, 106, 116]


def test_giving_back_does_no_harm():
    Heap(0.0, 0.0).give_back_when_idle(1000.0, 0.0)


def test_garbage_is_collected_by_growth_though_the_process_is_busy():
    collections = []
    heap = Heap(0.0, 0.0)
    for mib in (1000, 1200, 1249, 1251, 1251, 1500, 1564, 400, 500, 527, 529):
        heap.collect_when_grown(mib * MIB, lambda: collections.append(mib))  # noqa: B023  # called at once
    assert collections == [1251, 1564, 529]


def test_full_collections_wait_for_idle_times():
    subprocess.run([sys.executable, "-c", BROKEN_STREAMS], check=True)
