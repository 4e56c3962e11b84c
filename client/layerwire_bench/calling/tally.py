"""What a client process notes of each call: when it was due, how long it took, which it was, how it ended.

It knows clocks and codes; neither targets nor percentiles, which are made of the notes elsewhere. Noting costs a call
about a microsecond, so that a client process has its time for calling.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass

import grpc
import numpy as np
import numpy.typing as npt

CODES = tuple(code.name for code in grpc.StatusCode)  # OK is the first
_NUMBERS = {name: number for number, name in enumerate(CODES)}
_UNKNOWN = _NUMBERS["UNKNOWN"]


@dataclass(frozen=True)
class Notes:
    """Calls that ended, in the order they ended; arrays of one length.

    Attributes:
        due: time.monotonic() at which each was due, or sent in a closed loop.
        seconds: from then to its answer.
        late: how late each was sent, of an open loop; else empty.
        samples: index of its sample.
        codes: index into CODES.
    """

    due: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    late: npt.NDArray[np.float64]
    samples: npt.NDArray[np.uint16]
    codes: npt.NDArray[np.uint8]

    @staticmethod
    def joined(several: list[Notes]) -> Notes:
        """All of them."""
        if not several:
            return Tally().take()
        parts = zip(*((one.due, one.seconds, one.late, one.samples, one.codes) for one in several), strict=True)
        return Notes(*(np.concatenate(part) for part in parts))

    def where(self, chosen: npt.NDArray[np.bool_]) -> Notes:
        """Those that are chosen."""
        late = self.late[chosen] if len(self.late) else self.late
        return Notes(self.due[chosen], self.seconds[chosen], late, self.samples[chosen], self.codes[chosen])

    @property
    def ended(self) -> npt.NDArray[np.float64]:
        """When each ended, as `due` tells time."""
        return self.due + self.seconds

    @property
    def succeeded(self) -> npt.NDArray[np.bool_]:
        """Which ended with OK."""
        return np.equal(self.codes, 0)

    def errors(self) -> dict[str, int]:
        """How many ended otherwise, by status name, the most frequent first."""
        counts = np.bincount(self.codes, minlength=len(CODES))
        found = {CODES[number]: int(counts[number]) for number in range(1, len(CODES)) if counts[number]}
        return dict(sorted(found.items(), key=lambda item: -item[1]))


class Tally:
    """Notes being taken.

    Attributes:
        first_error: what was said of the first call that failed, since the last `take`.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._due = array("d")
        self._seconds = array("d")
        self._late = array("d")
        self._samples = array("H")
        self._codes = array("B")
        self.first_error: str | None = None

    def note(self, due: float, sample: int, code: str, message: str) -> None:
        """A call ended now."""
        self._due.append(due)
        self._seconds.append(time.monotonic() - due)
        self._samples.append(sample)
        if code == "OK":
            self._codes.append(0)
        else:
            self._codes.append(_NUMBERS.get(code, _UNKNOWN))
            if self.first_error is None:
                self.first_error = f"{code}: {message}"

    def note_late(self, seconds: float) -> None:
        """The call that is noted next was sent so late."""
        self._late.append(seconds)

    def take(self) -> Notes:
        """What was noted since the last time."""
        notes = Notes(
            np.frombuffer(self._due.tobytes(), np.float64), np.frombuffer(self._seconds.tobytes(), np.float64),
            np.frombuffer(self._late.tobytes(), np.float64), np.frombuffer(self._samples.tobytes(), np.uint16),
            np.frombuffer(self._codes.tobytes(), np.uint8),
        )  # fmt: skip
        self._clear()
        return notes
