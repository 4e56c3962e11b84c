"""What a client process notes of each call: when it was due, how long it took, which it was, how it ended.

It knows clocks and codes; neither targets nor percentiles, which are made of the notes elsewhere. Noting costs a call
about a microsecond, so that a client process has its time for calling.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import grpc
import numpy as np
import numpy.typing as npt

CODES = tuple(code.name for code in grpc.StatusCode)  # OK is the first
_NUMBERS = {name: number for number, name in enumerate(CODES)}
_UNKNOWN = _NUMBERS["UNKNOWN"]


class Notes(NamedTuple):
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
    def concatenate(several: Sequence[Notes]) -> Notes:
        """All of them."""
        return Notes(*map(np.concatenate, zip(*several, strict=True))) if several else Tally().take()

    def where(self, mask: npt.NDArray[np.bool_]) -> Notes:
        """Those for which it is true."""
        late = self.late[mask] if len(self.late) else self.late
        return Notes(self.due[mask], self.seconds[mask], late, self.samples[mask], self.codes[mask])

    @property
    def end_times(self) -> npt.NDArray[np.float64]:
        """When each ended, as `due` tells time."""
        return self.due + self.seconds

    @property
    def success(self) -> npt.NDArray[np.bool_]:
        """Which ended with OK."""
        return np.equal(self.codes, 0)

    def errors(self) -> dict[str, int]:
        """How many ended otherwise, by status name, the most frequent first."""
        counts = np.bincount(self.codes, minlength=len(CODES))
        errors = {CODES[number]: int(counts[number]) for number in range(1, len(CODES)) if counts[number]}
        return dict(sorted(errors.items(), key=lambda item: -item[1]))


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
        columns = (self._due, self._seconds, self._late, self._samples, self._codes)
        notes = Notes(*(np.frombuffer(column.tobytes(), column.typecode) for column in columns))
        self._clear()
        return notes
