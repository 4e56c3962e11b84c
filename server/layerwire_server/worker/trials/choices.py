"""The choices of kernels in the store: one for all workers, and for all their lives; the first that is made stands.

It knows the store's directory and two clocks; nothing of kernels, torch or how trials are held.

    DIRECTORY/kernels/choices.json       environment -> what runs -> the choice
    DIRECTORY/kernels/worker-<index>.*.trial   held while a worker tries a kernel: else one died of that

An environment is what makes kernels fast or slow, and round: the machine, torch, the number of threads.

A kernel that rounds otherwise takes over in all workers at one moment, which is written with it. Who runs a batch has
looked at the file at most KNOWN_SECONDS before, and the moment lies further than that behind the writing: whoever
doesn't know of the choice yet looks before the moment comes. The clock is the host's; hosts that share a directory
differ by as much as their clocks do.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from layerwire_server.storage import StoreError, durable
from layerwire_server.worker.death_mark import DeathMark

log = logging.getLogger(__name__)

KNOWN_SECONDS = 0.5  # for so long a look at the file counts
_START_SECONDS = 1.5  # from a choice to its moment: what is beyond KNOWN_SECONDS, writing may take
_MOST_START_SECONDS = 48.0  # a disk that is slower still gets no choices
_FORMAT = 2  # counted up when a kernel of an old name comes to round otherwise
_MOST_CHOICES = 4096  # of an environment: beyond, eager stays
_EAGER = "eager"


class Candidate(NamedTuple):
    """What a trial found of one kernel.

    Attributes:
        kernel: its name.
        result: "fastest", "slower", "wrong" or "failed".
        times_as_fast: eager's time by its; 0 where it wasn't timed.
    """

    kernel: str
    result: str
    times_as_fast: float


class Choice(NamedTuple):
    """Which kernel runs, and why.

    Attributes:
        kernel: its name.
        operator: the operator's title.
        same_bits: whether it gives the bits of eager, or else may round otherwise.
        candidates: what was tried besides eager; none where a trial couldn't be held.
        start_seconds: from when on it runs, in seconds since 1970; 0 for at once.
    """

    kernel: str
    operator: str
    same_bits: bool
    candidates: tuple[Candidate, ...] = ()
    start_seconds: float = 0.0

    @classmethod
    def from_json(cls, fields: Any) -> Self:
        """Of what `_asdict` gave; raises ValueError, TypeError or LookupError if it is none."""
        candidates = tuple(
            Candidate(_text(name), _text(result), float(ratio)) for name, result, ratio in fields["candidates"]
        )
        return cls(
            _text(fields["kernel"]),
            _text(fields["operator"]),
            bool(fields["same_bits"]),
            candidates,
            float(fields["start_seconds"]),
        )


class Choices:
    """The choices for one environment; for any thread.

    Args:
        directory: the store's.
        environment: what choices hold for.
        index: the worker's number.
        read_only: whether nothing may be written there.
    """

    def __init__(self, directory: Path, environment: str, index: int, *, read_only: bool) -> None:
        self._folder = directory / "kernels"
        self._path = self._folder / "choices.json"
        self._mark = DeathMark(self._folder, f"worker-{index}", ".trial")
        self.environment = environment
        self.read_only = read_only
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._look_time = 0.0
        self._in_store: Mapping[str, Choice] = {}
        self._own: dict[str, Choice] = {}  # of kernels with eager's bits, which couldn't be written
        self._counts: dict[tuple[str, str], int] = {}
        self.look()
        if not read_only:
            self._end_deadly_trials()

    def get(self, key: str) -> tuple[Choice | None, float]:
        """The choice for what runs, and until when, on the monotonic clock, it is that and begun or not begun."""
        now = time.monotonic()
        if now - self._look_time > KNOWN_SECONDS:
            self.look()
        known_until = self._look_time + KNOWN_SECONDS
        choice = self._in_store.get(key) or self._own.get(key)
        delay = self.delay(choice) if choice is not None else 0.0
        return choice, min(known_until, now + delay) if delay else known_until

    @property
    def all(self) -> dict[str, Choice]:
        """All that there are, as they were when the file was last looked at."""
        return {**self._own, **self._in_store}

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """How many there are by operator and kernel."""
        return self._counts

    @staticmethod
    def delay(choice: Choice) -> float:
        """Seconds until it is to run; 0 if it runs by now."""
        rest = choice.start_seconds - time.time()
        return rest if 0 < rest <= _MOST_START_SECONDS else 0.0  # beyond, somebody has put the clock back

    def look(self) -> None:
        """Reads the file if it has changed."""
        with self._lock:
            now = time.monotonic()
            try:
                status = self._path.stat()
            except OSError:
                stamp = None
            else:
                stamp = status.st_mtime_ns, status.st_size, status.st_ino
            if stamp is not None and stamp != self._stamp:
                self._in_store = self._read().get(self.environment, {})
                self._count()
            self._stamp = stamp
            self._look_time = now

    def put(self, key: str, choice: Choice, *, replace: bool = False) -> None:
        """Writes a choice down; unless it is to replace it, one that is there already stands.

        Where it can't be written, it holds in this worker if it changes no bits.
        """
        try:
            if not self.read_only:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                with durable.write_errors(), durable.lock(self._folder / ".lock"):
                    self._write(key, choice, replace=replace)
        except (StoreError, OSError) as error:
            log.warning("the choice of a kernel can't be written down: %s", error)
        self.look()
        if choice.same_bits and key not in self._in_store:
            self._own[key] = choice
            self._count()

    def _count(self) -> None:
        counts = Counter((choice.operator, choice.kernel) for choice in self.all.values())
        self._counts = dict.fromkeys(self._counts, 0) | counts  # what a replaced choice counted is 0, not forgotten

    def _write(self, key: str, choice: Choice, *, replace: bool) -> None:
        everything = self._read()
        ours = everything.setdefault(self.environment, {})
        if not replace if key in ours else len(ours) >= _MOST_CHOICES:
            return
        delay = 0.0 if choice.same_bits else _START_SECONDS
        while delay <= _MOST_START_SECONDS:
            start_seconds = time.time() + delay if delay else 0.0
            ours[key] = choice._replace(start_seconds=start_seconds)
            plain = {name: {each: one._asdict() for each, one in some.items()} for name, some in everything.items()}
            content = json.dumps({"format": _FORMAT, "choices": plain}, indent=1, sort_keys=True).encode()
            with durable.temporary_file(self._folder) as (descriptor, path):
                durable.write_all(descriptor, content)
                os.fsync(descriptor)
                if not delay or time.time() + KNOWN_SECONDS < start_seconds:
                    durable.rename(path, self._path)
                    return
                path.unlink()
            delay *= 2
        log.warning("the store is too slow for the choice of a kernel that rounds otherwise: eager stays for %s", key)

    def begin_trial(self, key: str, operator: str) -> None:
        """From now on until `end_trial`, the worker's death is this trial's fault."""
        if self.read_only:
            return
        try:
            self._mark.put(json.dumps([self.environment, key, operator]).encode())
        except OSError as error:  # a full disk: tried all the same
            log.warning("a trial that kills this worker won't be known again: %s", error)

    def end_trial(self) -> None:
        """The worker lived through its trial."""
        self._mark.remove()

    def _end_deadly_trials(self) -> None:
        for content in self._mark.take_dead():
            try:
                environment, key, operator = map(_text, json.loads(content))
            except (ValueError, TypeError, RecursionError):  # none of ours
                continue
            if environment == self.environment:
                log.error("an earlier worker died during a trial of kernels: eager stays for %s", key)
                self.put(key, Choice(_EAGER, operator, same_bits=True))

    def _read(self) -> dict[str, dict[str, Choice]]:
        """All that is written, of all environments; nothing of it if it can't be read."""
        try:
            content: Any = json.loads(self._path.read_bytes())
            if content["format"] != _FORMAT:
                return {}
            return {
                _text(environment): {_text(key): Choice.from_json(fields) for key, fields in choices.items()}
                for environment, choices in content["choices"].items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
            log.warning("%s is passed over: %s", self._path, error)
            return {}


def _text(value: Any) -> str:
    """The value, if it is text that messages and metrics can carry; else raises TypeError or ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is no text")
    value.encode()
    return value
