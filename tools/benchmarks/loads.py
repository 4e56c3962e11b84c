"""Loads by their words for `layerwire bench`, and the weights and programs that a server needs for them.

They go by the command line, so that a load tester of any checkout can be given them.
"""

from __future__ import annotations

from pathlib import Path

import torch

import layerwire
from tools.benchmarks import networks

WEIGHTS = {"w": networks.WEIGHT.numpy(), "b": networks.BIAS.numpy()}
LENET, SMALL_CNN, DEEP_CNN = "lenet", "small-cnn", "deep-cnn"
LINEAR = "linear --shape 1,512 --weight name:w --bias name:b"
DETERMINISTIC = Path(__file__).parent.with_name("deterministic.toml")
LOADS = {  # title -> words; by the native protocol
    "relu (1, 10), stream": "relu --shape 1,10",
    "relu (1, 10), unary": "relu --shape 1,10 --by unary",
    "max_pool2d (1, 3, 32, 32)": "max_pool2d --shape 1,3,32,32 --kernel-size 2",
    "max_pool2d with indices (1, 3, 32, 32)": "max_pool2d --shape 1,3,32,32 --kernel-size 2 --return-indices",
    "conv2d (1, 3, 32, 32)": "conv2d --shape 1,3,32,32 --weight 8,3,3,3 --padding 1",
    "linear 512 to 512, named weights": LINEAR,
    "the same, deterministic": f"mix {DETERMINISTIC}",
    "LeNet, a program": f"run {LENET} --rows 1",
    "small CNN, a program": f"run {SMALL_CNN} --rows 1",
    "relu (8, 64, 112, 112), 25.7 MB": "relu --shape 8,64,112,112 --concurrency 2",
}


def prepare(address: str) -> None:
    """Gives a server the weights and the programs."""
    examples = torch.cat([networks.IMAGE] * 2)
    with layerwire.Client(address) as client:
        for name, array in WEIGHTS.items():
            client.put_weights(name, array)
        client.deploy(LENET, networks.lenet(), examples)
        client.deploy(SMALL_CNN, networks.small_cnn(), examples)
        client.deploy(DEEP_CNN, networks.deep_cnn(), examples[:, :, :16, :16])
