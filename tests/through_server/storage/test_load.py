"""Names that move and disappear while many call what they stand for."""

from __future__ import annotations

import threading
from typing import Self

import numpy as np
import pytest

import layerwire
from layerwire.errors import NotFoundError
from tests.through_server.storage.conftest import X, ran, scaled

CALLERS, MOVES = 32, 100


class Callers:
    """Threads that call a program until they are told to stop; what they got, and what went wrong."""

    def __init__(self, lw: layerwire.Client, name: str) -> None:
        self.values: set[float] = set()
        self.errors: list[Exception] = []
        self.calls = 0
        self._lw, self._name = lw, name
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                self.values.add(ran(self._lw, self._name))
                self.calls += 1
            except Exception as error:
                self.errors.append(error)
                return

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_name_moves_a_hundred_times_under_load(lw: layerwire.Client) -> None:
    for factor in (1, 2):
        lw.put_program("moving", scaled(factor))
    with Callers(lw, "moving") as callers:
        for move in range(MOVES):
            version = move % 2 + 1
            lw.set_default_version("moving", version)
            assert ran(lw, "moving") == 2.0 * version  # whoever asks after the move gets the new one
    assert callers.errors == []
    assert callers.values == {2.0, 4.0}
    assert callers.calls > CALLERS


def test_weights_and_programs_deleted_under_load(lw: layerwire.Client) -> None:
    for name in ("steady", "doomed"):
        lw.put_program(name, scaled(1))
    with Callers(lw, "steady") as steady, Callers(lw, "doomed") as doomed:
        while not doomed.calls:
            ran(lw, "steady")
        lw.delete_program("doomed")
        with pytest.raises(NotFoundError):
            ran(lw, "doomed")
        for number in range(20):
            lw.put_weights(f"loaded/{number}", X * number)
            np.testing.assert_array_equal(lw.linear(X, f"loaded/{number}"), [[4.0 * number]])
            lw.delete_weights(f"loaded/{number}")
    assert steady.errors == [] and steady.values == {2.0}
    assert len(doomed.errors) == CALLERS and {type(error) for error in doomed.errors} == {NotFoundError}
    assert doomed.values == {2.0}
