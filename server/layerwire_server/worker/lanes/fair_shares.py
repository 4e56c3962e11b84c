"""Who has had how much of the device: deficit round robin's books, for callers and for lanes. Standard library only.

It knows neither calls nor clocks; keys are opaque, time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

_IDLE_ACCOUNTS = 1024  # whose debts are remembered though nothing of theirs waits


@dataclass(eq=False, slots=True)
class _Account:
    """What one caller, or one lane, has earned and paid."""

    balance_seconds: float = 0.0  # counted from the `earned_seconds` of its kind
    idle_since: float = 0.0
    waiting: int = 0


class Accounts:
    """The accounts of all callers, or of all lanes."""

    def __init__(self) -> None:
        self.earned_seconds = 0.0  # what an account that always waited has earned
        self._busy: dict[Hashable, _Account] = {}
        self._idle: OrderedDict[Hashable, _Account] = OrderedDict()

    def enter(self, key: Hashable, now: float) -> None:
        """One more call of the account waits."""
        account = self._busy.get(key)
        if account is None:
            account = self._idle.pop(key, None) or _Account(idle_since=now)
            away_seconds = max(now - account.idle_since, 0.0)
            account.balance_seconds = min(account.balance_seconds + away_seconds, 0.0) - self.earned_seconds
            self._busy[key] = account
        account.waiting += 1

    def leave(self, key: Hashable, now: float) -> None:
        """One call fewer of the account waits."""
        account = self._busy[key]
        account.waiting -= 1
        if not account.waiting:
            del self._busy[key]
            account.balance_seconds += self.earned_seconds
            account.idle_since = now
            self._idle[key] = account
            if len(self._idle) > _IDLE_ACCOUNTS:
                self._idle.popitem(last=False)

    def pass_on(self, seconds: float) -> None:
        """So many seconds have passed on the device; who waits has earned a share."""
        self.earned_seconds += seconds / max(len(self._busy), 1)

    def charge(self, key: Hashable, seconds: float) -> None:
        """An account pays."""
        account = self._busy.get(key) or self._idle.get(key)
        if account is not None:
            account.balance_seconds -= seconds
            account.idle_since += seconds  # time on the device is no time away

    def debt(self, key: Hashable) -> float:
        """What a waiting account owes, in seconds; 0 if it is owed."""
        return max(-(self._busy[key].balance_seconds + self.earned_seconds), 0.0)
