"""Admission: bounds hold, nobody is lost, the line moves in its order."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from layerwire.transport.admission import Admission


class Doors(RuleBasedStateMachine):
    """Admission: bounds hold, nobody is lost, the line moves in its order."""

    MAX_CALLS, MAX_BYTES = 3, 100
    inside = Bundle("inside")
    line = Bundle("line")

    def __init__(self):
        super().__init__()
        self.admission = Admission(self.MAX_CALLS, self.MAX_BYTES)
        self.entered: list[int] = []
        self.waiting: list[list] = []

    def admitted(self, place):
        assert self.waiting[0] is place, "first come, first served"
        self.waiting.pop(0)
        self.entered.append(place[0])

    @rule(target=inside, nbytes=st.integers(1, 150))
    def enter(self, nbytes):
        if self.admission.enter(nbytes):
            assert not self.waiting
            self.entered.append(nbytes)
            return nbytes
        assert self.waiting or len(self.entered) == self.MAX_CALLS or sum(self.entered) + nbytes > self.MAX_BYTES
        return 0

    @rule(target=line, nbytes=st.integers(1, 150))
    def queue(self, nbytes):
        place = [nbytes, None]
        self.waiting.append(place)
        place[1] = self.admission.queue(nbytes, lambda: self.admitted(place))
        return place

    @rule(nbytes=consumes(inside))
    def leave(self, nbytes):
        if nbytes:
            self.entered.remove(nbytes)
            self.admission.leave(1, nbytes)

    @rule(place=consumes(line))
    def give_up_or_leave(self, place):
        if any(place is each for each in self.waiting):
            self.waiting[:] = [each for each in self.waiting if each is not place]
        else:
            self.entered.remove(place[0])
        self.admission.give_up(place[1])

    @invariant()
    def bounds_hold(self):
        assert len(self.entered) <= self.MAX_CALLS
        assert sum(self.entered) <= self.MAX_BYTES or len(self.entered) == 1
        assert (self.admission._calls, self.admission._bytes) == (len(self.entered), sum(self.entered))

    @invariant()
    def nobody_waits_for_nothing(self):
        if self.waiting:
            nbytes = self.waiting[0][0]
            assert len(self.entered) == self.MAX_CALLS or (self.entered and sum(self.entered) + nbytes > self.MAX_BYTES)


TestDoors = Doors.TestCase


def test_force_comes_in_regardless():
    admission = Admission(1, 10)
    assert admission.enter(5)
    admission.force(50)
    assert not admission.enter(1)
    admission.leave(2, 55)
    assert admission.enter(1)
