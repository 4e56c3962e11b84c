"""Rows that tell calls apart, and what their answers must be."""

from __future__ import annotations

import numpy as np

from layerwire import errors
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


def busy_once(every: int):
    """A server's script that asks for another try of calls by their ids, once; and the ids that it did that to."""
    busy = errors.ResourceExhaustedError("queue is full", operator="relu", retry_after_seconds=0.01)
    ids: set[int] = set()

    def script(stream, call):
        if call.id % every == 0 and call.id not in ids:
            ids.add(call.id)
            stream.refuse(call, busy)
        else:
            stream.reply(call)

    return script, ids
