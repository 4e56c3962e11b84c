"""The choices of kernels in the store: one for all workers, and for all their lives; the first that is made stands.

It knows the store's directory; nothing of kernels, torch or trials.

    DIRECTORY/kernels/choices.json       environment -> what runs -> the kernel's name
    DIRECTORY/kernels/worker-<index>.trial   there while a worker tries a kernel: who finds it died of that

Kernels that round otherwise may run only once their choice is written here, so that every worker answers alike. An
environment is what makes kernels fast or slow, and round: the machine, torch, the number of threads.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerwire_server.storage import StoreError, durable

log = logging.getLogger(__name__)

_FORMAT = 1  # counted up when a kernel of an old name comes to round otherwise
_MOST_CHOICES = 4096  # of an environment: beyond, eager stays
_EAGER = "eager"


class Choices:
    """The choices for one environment. Its methods are for one thread at a time.

    Args:
        directory: the store's.
        environment: what choices hold for.
        index: the worker's number.
        read_only: whether nothing may be written there.
    """

    def __init__(self, directory: Path, environment: str, index: int, *, read_only: bool) -> None:
        self._folder = directory / "kernels"
        self._path = self._folder / "choices.json"
        self._marker = self._folder / f"worker-{index}.trial"
        self._environment = environment
        self.read_only = read_only
        self._stamp: tuple[int, int, int] | None = None
        self._choices: Mapping[str, str] = {}
        self.reread()
        if not read_only:
            self._end_deadly_trial()

    def get(self, key: str) -> str | None:
        """The kernel of what runs, as the file had it when it was last read."""
        return self._choices.get(key)

    def reread(self) -> bool:
        """Reads the file if it has changed; whether it had."""
        try:
            status = self._path.stat()
        except OSError:
            return False
        stamp = status.st_mtime_ns, status.st_size, status.st_ino
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._choices = self._all().get(self._environment, {})
        return True

    def put(self, key: str, kernel: str) -> str | None:
        """Writes a choice down, unless there is one already; the one that stands. None if it can't be written."""
        if self.read_only:
            return None
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with durable.write_errors(), durable.lock(self._folder / ".lock"):
                everything = self._all()
                ours = everything.setdefault(self._environment, {})
                if key not in ours and len(ours) >= _MOST_CHOICES:
                    return None
                stands = ours.setdefault(key, kernel)
                content = {"format": _FORMAT, "choices": everything}
                durable.write_file(self._path, json.dumps(content, indent=1, sort_keys=True).encode())
            self.reread()
        except (StoreError, OSError) as error:
            log.warning("the choice of a kernel can't be written down: %s", error)
            return None
        return stands

    def begin_trial(self, key: str) -> None:
        """From now on until `end_trial`, the worker's death is this trial's fault."""
        if self.read_only:
            return
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._marker.write_text(json.dumps([self._environment, key]))
        except OSError as error:  # a full disk: tried all the same
            log.warning("a trial that kills this worker won't be known again: %s", error)

    def end_trial(self) -> None:
        """The worker lived through its trial."""
        if not self.read_only:
            self._marker.unlink(missing_ok=True)

    def _end_deadly_trial(self) -> None:
        try:
            environment, key = json.loads(self._marker.read_text())
        except OSError:
            return
        except (ValueError, TypeError):  # it died while it wrote
            self._marker.unlink(missing_ok=True)
            return
        self._marker.unlink(missing_ok=True)
        if environment == self._environment:
            log.error("an earlier worker died during a trial of kernels: eager stays for %s", key)
            self.put(str(key), _EAGER)

    def _all(self) -> dict[str, dict[str, str]]:
        """All that is written, of all environments; nothing of it if it can't be read."""
        try:
            content: Any = json.loads(self._path.read_bytes())
            if content["format"] != _FORMAT:
                return {}
            return {
                str(environment): {str(key): str(kernel) for key, kernel in choices.items()}
                for environment, choices in content["choices"].items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            log.warning("%s is passed over: %s", self._path, error)
            return {}
