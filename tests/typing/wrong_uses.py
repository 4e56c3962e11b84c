"""Uses that type checkers must refuse: every line with `# error` and no other. It is never run."""

from __future__ import annotations

from typing import assert_type

import numpy as np
from numpy.typing import NDArray

import layerwire
from layerwire.nn import RemoteReLU, remote


def client(lw: layerwire.Client, x: NDArray[np.float32]) -> None:
    lw.max_pool2d(x, "two")  # error
    lw.max_pool2d(x)  # error
    lw.max_pool2d(x, 2.5)  # error
    lw.max_pool2d(x, 2, kernal_size=3)  # error
    lw.relu({1.0, 2.0})  # error
    lw.relu(None)  # error
    lw.relu(object())  # error
    lw.conv2d(x, x, padding={"h": 1})  # error
    lw.softmax(x, 1, dtype=object())  # error
    lw.batch_norm(x)  # error
    lw.rellu(x)  # error
    lw.relu(x).kernel_size  # error  # noqa: B018
    lw.relu(x, 1.5)  # error
    lw.run("digits", [x])  # error
    lw.run("digits", {1: x})  # error
    lw.differentiate(lambda f: x, x, ["input"])  # error
    lw.options(prio=3)  # error
    lw.options(timing=True).relu(x).shape  # error  # noqa: B018
    lw.submit.relu(x).shape  # error  # noqa: B018
    lw.submit.relu("x", kernel_size=2)  # error
    lw.put_weights(1, x)  # error
    lw.put_weights("w", object())  # error
    lw.deploy("net", object())  # error
    lw.close(1)  # error
    _, _, _ = lw.batch_norm(x, x, x, training=True, return_statistics=True)  # error
    _, _, _ = lw.max_pool2d(x, 2, return_indices=True)  # error
    assert_type(lw.relu(x), NDArray[np.float64])  # error
    layerwire.Client(1)  # error
    layerwire.Client("a:1", max_bytes=1)  # error


async def async_client(lw: layerwire.Client, other: layerwire.AsyncClient, x: NDArray[np.float32]) -> None:
    await lw.relu(x)  # error
    other.relu(x)  # error
    other.relu(x).shape  # error  # noqa: B018
    (await other.relu(x, kernel_size=1))  # error
    await other.submit.relu(x)  # error
    async with lw:  # error
        pass
    with other:  # error
        pass
    remote(RemoteReLU(client=lw), other)  # error
    RemoteReLU(client=other)  # error
    RemoteReLU()  # error
