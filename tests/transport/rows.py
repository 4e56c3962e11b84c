"""Rows that tell calls apart, and what their answers must be."""

from __future__ import annotations

import numpy as np

from layerwire.v1 import layerwire_pb2 as pb
from tests.transport.fake_server import FakeStream

ROW = np.array([[-1.0, 2.0]], np.float32)


def numbered(count: int) -> list[np.ndarray]:
    return [np.array([-1.0, number], np.float32) for number in range(count)]


def assert_own_answers(rows, answers) -> None:
    for row, answer in zip(rows, answers, strict=True):
        np.testing.assert_array_equal(answer, np.maximum(row, 0))


def keep(stream: FakeStream, call: pb.Call) -> None:
    """A script that never answers."""
