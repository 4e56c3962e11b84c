"""A large tensor for a server on the same host, beside the caller's own eager torch: who waits less?

It calls through the SDK as an application does, in arrays that the SDK lends out where it has some.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

import layerwire
from tools.benchmarks import results
from tools.benchmarks.contenders import InProcessContender, WrongAnswerError
from tools.benchmarks.results import Claim, Result, Watch
from tools.benchmarks.servers import Server

SHAPE = (8, 64, 112, 112)
REMOTE = "Layerwire, by the SDK on the same host"
EAGER = {"torch eager in process": 0, "torch eager in process, 1 thread": 1}  # threads, 0 for torch's own choice
CLAIM = Claim(
    "max_pool2d on 25.7 MB on the same host, against the caller's own eager torch", (REMOTE,), tuple(EAGER), 2.0
)
TITLE = "max_pool2d (8, 64, 112, 112), 25.7 MB, on the same host, 1 caller"


def input_array(client: layerwire.Client) -> tuple[np.ndarray, str]:
    """An array for the call: one that the SDK lends out, or where it lends none an ordinary one; and which it is."""
    empty: Callable[..., np.ndarray] | None = getattr(client, "empty", None)
    if empty is None:
        return np.empty(SHAPE, np.float32), "the SDK lends no arrays: an ordinary one was sent"
    return empty(SHAPE, "float32"), "in an array that the SDK lent out"


def measure(ours: Server, count: int, seconds: float, watch: Watch) -> Result:
    """Both in turn."""
    watch(TITLE)
    with layerwire.Client(ours.address) as client:
        array, note = input_array(client)
        array[...] = np.random.default_rng(6).normal(size=SHAPE)
        tensor = torch.from_numpy(np.array(array))

        def eager(threads: int) -> torch.Tensor:
            torch.set_num_threads(threads)
            with torch.inference_mode():
                return torch.nn.functional.max_pool2d(tensor, 2)

        def remote() -> np.ndarray:
            return client.max_pool2d(array, 2)

        def check() -> None:
            if not np.array_equal(remote(), eager(1).numpy()):
                raise WrongAnswerError(f"{REMOTE}: another answer than torch's")

        own = torch.get_num_threads()
        contenders = [InProcessContender(REMOTE, remote, 1, ours.pid)]
        contenders += [InProcessContender(name, partial(eager, count or own), 1) for name, count in EAGER.items()]
        check()
        turns = results.rounds(contenders, 1, count, seconds, watch)
        check()
    return Result(TITLE, turns, (CLAIM,), notes=[note])
