"""Fair shares of the device by deficit round robin, for callers and for lanes. Standard library only.

It knows neither calls nor clocks; keys are opaque, time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

_IDLE_SHARES = 8192  # whose debts are remembered though nothing of theirs waits


@dataclass(eq=False, slots=True)
class _Share:
    """What one caller, or one lane, has earned and paid."""

    balance_seconds: float = 0.0  # counted from the `earned_seconds` of its kind
    idle_since: float = 0.0
    calls: int = 0  # that wait


class FairShares:
    """The shares of all callers, or of all lanes."""

    def __init__(self) -> None:
        self.earned_seconds = 0.0  # what a share that always waited has earned
        self._busy: dict[Hashable, _Share] = {}
        self._idle: OrderedDict[Hashable, _Share] = OrderedDict()

    def enter(self, key: Hashable, now: float, count: int = 1) -> None:
        """So many more calls of a key wait."""
        share = self._busy.get(key)
        if share is None:
            share = self._idle.pop(key, None) or _Share(idle_since=now)
            away_seconds = max(now - share.idle_since, 0.0)
            share.balance_seconds = min(share.balance_seconds + away_seconds, 0.0) - self.earned_seconds
            self._busy[key] = share
        share.calls += count

    def leave(self, key: Hashable, now: float, count: int = 1) -> None:
        """So many calls fewer of a key wait."""
        share = self._busy[key]
        share.calls -= count
        if not share.calls:
            del self._busy[key]
            share.balance_seconds += self.earned_seconds
            share.idle_since = now
            self._idle[key] = share
            if len(self._idle) > _IDLE_SHARES:
                self._idle.popitem(last=False)

    def is_busy(self, key: Hashable) -> bool:
        """Whether calls of a key wait."""
        return key in self._busy

    def pass_through(self, key: Hashable, now: float) -> None:
        """As `enter` and `leave` at once, where nothing of the key waits."""
        share = self._idle.get(key)
        if share is None:
            self._idle[key] = _Share(idle_since=now)
            if len(self._idle) > _IDLE_SHARES:
                self._idle.popitem(last=False)
        else:
            balance_seconds, away_seconds = share.balance_seconds, now - share.idle_since
            if away_seconds > 0.0:
                balance_seconds += away_seconds
            share.balance_seconds = min(balance_seconds, 0.0)
            share.idle_since = now
            self._idle.move_to_end(key)

    def pass_on(self, seconds: float) -> None:
        """So many seconds have passed on the device; who waits has earned a share."""
        if self._busy:
            self.earned_seconds += seconds / len(self._busy)

    def charge(self, key: Hashable, seconds: float) -> None:
        """A key pays."""
        share = self._busy.get(key) or self._idle.get(key)
        if share is not None:
            share.balance_seconds -= seconds
            share.idle_since += seconds  # time on the device is no time away

    def debt(self, key: Hashable) -> float:
        """What a key owes for which calls wait, in seconds; 0 if it is owed."""
        return max(-(self._busy[key].balance_seconds + self.earned_seconds), 0.0)
