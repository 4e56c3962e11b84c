"""A worker that answers no canary: its calls go to another, and its late answers nowhere."""

from __future__ import annotations

import asyncio

from layerwire_server.child.control import DeathCause
from layerwire_server.link import Flag, Frame, Kind
from tests.gateway.frames import ask, started_frame, up

ACTIVATE = "/layerwire.v1.LayerwireService/Activate"


async def test_calls_of_a_late_worker_go_to_another_and_it_comes_back(rig):
    it = await rig(workers=2)
    first = asyncio.ensure_future(it.channel.unary_unary(ACTIVATE)(b"x", timeout=300))
    waiters = {asyncio.ensure_future(worker.frames.get()): worker for worker in it.workers}
    (done,), _ = await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    late, frame = waiters[done], done.result()
    other = next(worker for worker in it.workers if worker is not late)
    late.passes = None
    (old_link,) = late.links
    again = await asyncio.wait_for(next(task for task, worker in waiters.items() if worker is other), 300)
    assert (again.frame, again.flags, bytes(again.payload)) == (frame.frame, Flag.ISOLATE, b"x")
    other.answer(again, b"answer", 0)
    assert await first == b"answer"
    late.passes = True
    while not late.links or old_link in late.links or late.canaries.empty():
        await asyncio.sleep(0)
    while not late.canaries.empty():
        canary = late.canaries.get_nowait()
    late.send(Frame(Kind.CANARY_RESULT, canary.frame, b"{}"))
    await it.wait_for_health(f"worker/{it.workers.index(late)}", True)
    second = asyncio.ensure_future(it.channel.unary_unary(ACTIVATE)(b"y", timeout=300))
    waiters = [asyncio.ensure_future(worker.frames.get()) for worker in it.workers]
    (done,), _ = await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    (it.workers[waiters.index(done)]).answer(done.result(), b"later", 0)
    assert await second == b"later"
    assert not it.child.messages


async def test_the_only_worker_may_be_late(rig):
    it = await rig()
    call = asyncio.ensure_future(it.channel.unary_unary(ACTIVATE)(b"x", timeout=300))
    (worker,) = it.workers
    frame = await worker.next(Kind.UNARY)
    worker.passes = None
    await it.wait_for_health("worker/0", False)
    worker.answer(frame, b"answer", 0)
    assert await call == b"answer"


def test_to_be_late_proves_nothing_against_a_call(router, metrics):
    one = up(router)
    pending = ask(router)
    two = up(router)
    router.down(one, 1.0)
    router.deliver(two, started_frame(pending, 0))
    three = up(router)
    router.down(two, 2.0, DeathCause.OUTSIDE)
    (frame,) = three.take()
    assert (frame.frame, frame.flags, frame.ordinals) == (pending.number, Flag.ISOLATE, ())
    assert metrics.counter("layerwire_quarantined_requests_total").value == 0
