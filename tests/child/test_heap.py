"""When freed memory is given back: in the first idle second after busy ones, and seldom later."""

from __future__ import annotations

from layerwire_server.child.heap import Heap


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
