"""What the peers serve: functions of raw bytes, several calls' rows joined, written as their users would write them.

It knows torch; neither peer. Imported in the peers' environment.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from tools.benchmarks import networks

Outputs = tuple[torch.Tensor, ...]
warnings.filterwarnings("ignore", message="The given buffer is not writable")


class Function(NamedTuple):
    """A function of one tensor.

    Attributes:
        shape: of a row.
        outputs: dtypes by Triton's names, and shapes of a row.
        run: what it does.
        threads: of torch; 0 for torch's own choice, all cores. On cores that server and client share, OpenMP's threads
            spin while they wait for each other, and small calls are many times as fast with one.
    """

    shape: tuple[int, ...]
    outputs: tuple[tuple[str, tuple[int, ...]], ...]
    run: Callable[[torch.Tensor], Outputs]
    threads: int = 1


_CNN = networks.small_cnn()
FUNCTIONS = {
    "relu": Function((10,), (("FP32", (10,)),), lambda x: (torch.relu(x),)),
    "linear": Function((512,), (("FP32", (512,)),), lambda x: (functional.linear(x, networks.WEIGHT, networks.BIAS),)),
    "max_pool2d": Function(
        (3, 32, 32),
        (("FP32", (3, 16, 16)), ("INT64", (3, 16, 16))),
        lambda x: functional.max_pool2d(x, 2, return_indices=True),
    ),
    "small-cnn": Function((3, 32, 32), (("FP32", (10,)),), lambda x: (_CNN(x),)),
    "large-max_pool2d": Function(
        (64, 112, 112), (("FP32", (64, 56, 56)),), lambda x: (functional.max_pool2d(x, 2),), 0
    ),
}


def set_threads(name: str) -> None:
    """Lets torch have the function's threads, in this process."""
    if FUNCTIONS[name].threads:
        torch.set_num_threads(FUNCTIONS[name].threads)


def answers(name: str, payloads: Sequence[bytes]) -> list[bytes]:
    """The outputs' bytes one after another, for each call's bytes; all of them in one batch."""
    function = FUNCTIONS[name]
    joint = payloads[0] if len(payloads) == 1 else b"".join(payloads)
    with torch.inference_mode():
        x = torch.frombuffer(joint, dtype=torch.float32).view(-1, *function.shape)
        outputs = function.run(x)
    if len(payloads) == 1:
        return [b"".join(output.numpy().tobytes() for output in outputs)]
    row_bytes = len(joint) // len(x)
    counts = [len(payload) // row_bytes for payload in payloads]
    parts = [output.split(counts) for output in outputs]
    return [b"".join(part.numpy().tobytes() for part in call) for call in zip(*parts, strict=True)]
