"""As uses.py, with torch's tensors and modules, and the stubs of grpc."""

# pyright: strict

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_type

import grpc
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import layerwire
from layerwire.deploy import AsyncRemoteProgram, RemoteProgram
from layerwire.nn import Functional, RemoteConv2d, RemoteReLU, remote
from layerwire.transport.call import NamedTensors


class Net(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class TwoHeads(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def tensors(lw: layerwire.Client, t: Tensor, parameter: nn.Parameter, x: NDArray[np.float32], is_wanted: bool) -> None:
    assert_type(lw.relu(t), Tensor)
    assert_type(lw.relu(parameter), Tensor)
    assert_type(lw.max_pool2d(t, 2, return_indices=True), tuple[Tensor, Tensor])
    assert_type(lw.max_pool2d(t, 2, return_indices=is_wanted), Tensor | tuple[Tensor, Tensor])
    assert_type(lw.conv2d(t, parameter, parameter, padding=1), Tensor)
    assert_type(lw.conv2d(t, "conv1.weight"), Tensor)
    assert_type(lw.linear(x, parameter), Tensor)
    assert_type(lw.softmax(t, 1, dtype=torch.float64), Tensor)
    assert_type(lw.softmax(x, 1, dtype=torch.float64), NDArray[Any])
    assert_type(lw.activate(t, "relu"), Tensor)
    assert_type(lw.batch_norm(t, None, None, training=True, return_statistics=True), tuple[Tensor, Tensor, Tensor])
    assert_type(lw.run("digits", {"image": t}), NamedTensors[Tensor])
    assert_type(lw.run("digits", {"image": t, "scale": [1.0]})["scores"], Tensor)
    assert_type(lw.differentiate(lambda f: f.conv2d(t, parameter), t, ["weight"])["weight"], Tensor)
    assert_type(lw.submit.relu(t), layerwire.CallFuture[Tensor])
    assert_type(lw.options(timing=True).relu(t), layerwire.Timed[Tensor])
    assert_type(lw.put_weights("w", parameter), str)


async def async_client(lw: layerwire.AsyncClient, t: Tensor) -> None:
    assert_type(await lw.relu(t), Tensor)
    assert_type((await lw.run("digits", {"image": t}))["scores"], Tensor)
    program = await lw.deploy("net", Net(), t)
    assert_type(program, AsyncRemoteProgram[Tensor])
    assert_type(await program(t), Tensor)
    assert_type(await program([[1.0]]), NDArray[Any])


def modules(lw: layerwire.Client, t: Tensor, x: NDArray[np.float32]) -> None:
    net = remote(Net(), lw)
    assert_type(net, Net)
    assert_type(remote(nn.Linear(2, 2), lw.options(timeout=5)).weight, Tensor)
    assert_type(RemoteReLU(client=lw)(t), Tensor)
    conv = RemoteConv2d(1, 6, 5, client=lw.options(priority=3))
    assert_type(conv(t), Tensor)
    assert_type(conv.weight, Tensor)
    assert_type(Functional(lw).conv2d(t, t), Tensor)
    assert_type(Functional(lw).relu(x), NDArray[np.float32])
    assert_type(Functional(lw).max_pool2d(t, 2, return_indices=True), tuple[Tensor, Tensor])


def programs(lw: layerwire.Client, t: Tensor, x: NDArray[np.float32]) -> None:
    one = lw.deploy("net", Net(), t, fold_batch_norm=False)
    assert_type(one, RemoteProgram[Tensor])
    assert_type(one(t), Tensor)
    assert_type(one(x), NDArray[Any])
    assert_type(one.inputs, tuple[str, ...])
    two = lw.deploy("heads", TwoHeads(), t)
    assert_type(two(t), tuple[Tensor, Tensor])
    several: Sequence[nn.Module] = [nn.ReLU()]
    # torch says nothing of what a Sequential returns
    chain: RemoteProgram[Tensor] = lw.deploy("chain", nn.Sequential(*several), t)  # pyright: ignore[reportUnknownVariableType]
    assert_type(chain(t), Tensor)


def codes(error: layerwire.LayerwireError) -> None:
    assert_type(error.code, grpc.StatusCode)
