"""Uses of the SDK as a user has them, with the types that a checker must find; it is never run.

It needs neither torch nor stubs of grpc, which users may not have.
"""

# pyright: strict

from __future__ import annotations

import asyncio
from concurrent.futures import as_completed
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import layerwire
from layerwire.deploy import AsyncRemoteProgram, RemoteProgram
from layerwire.store.programs import Program
from layerwire.store.weights import Weights
from layerwire.transport.call import NamedTensors
from layerwire.v1 import layerwire_pb2, program_pb2, store_pb2

Floats = NDArray[np.float32]
Pair = tuple[Floats, NDArray[np.int64]]


def one_tensor(lw: layerwire.Client, x: Floats, halves: NDArray[np.float16], unknown: NDArray[Any]) -> None:
    assert_type(lw.relu(x), Floats)
    assert_type(lw.max_pool2d(x, 2), Floats)
    assert_type(lw.max_pool2d(input=x, kernel_size=(2, 2), stride=[1, 1], ceil_mode=True, timeout=1.5), Floats)
    assert_type(lw.avg_pool2d(halves, np.int64(2)), NDArray[np.float16])
    assert_type(lw.adaptive_avg_pool2d(x, (None, 1)), Floats)
    assert_type(lw.conv2d(x, "conv1.weight", x, padding="same"), Floats)
    assert_type(lw.conv2d(x, x, bias=[0.0, 1.0]), Floats)
    assert_type(lw.linear(x, unknown), Floats)
    assert_type(lw.layer_norm(x, 4, eps=1e-6), Floats)
    assert_type(lw.max_unpool2d(x, unknown, 2), Floats)
    assert_type(lw.fold(x, 4, 2), Floats)
    assert_type(lw.relu(np.zeros((2, 3), np.float32)), Floats)
    # numbers, and arrays whose dtype nobody said
    assert_type(lw.relu([[1.0, -1.0], [2.0, 3.0]]), NDArray[Any])
    assert_type(lw.relu(1.0), NDArray[Any])
    assert_type(lw.relu(np.float32(1)), NDArray[Any])
    assert_type(lw.relu([x, x]), NDArray[Any])
    assert_type(lw.relu("stored"), NDArray[Any])
    assert_type(lw.relu(unknown), NDArray[Any])
    assert_type(lw.max_pool2d(lw.relu([[[1.0]]]), 1), NDArray[Any])
    assert_type(lw.activate(x, "leaky_relu", negative_slope=0.2), NDArray[Any])


def many_calls(
    lw: layerwire.Client, x: Floats, rows: list[Floats], numbers: list[list[float]], is_wanted: bool
) -> None:
    assert_type(lw.map.relu(rows), list[Floats])
    assert_type(lw.map.relu(x), list[Floats])
    assert_type(lw.map.relu([[1.0], [2.0]]), list[NDArray[Any]])
    assert_type(lw.map.relu(rows, timeout=1.5, return_exceptions=False), list[Floats])
    assert_type(lw.map.relu(rows, return_exceptions=True), list[Floats | Exception])
    assert_type(lw.map.relu(rows, return_exceptions=is_wanted), list[Floats | Exception])
    assert_type(lw.map.linear(rows, "weight", bias=x), list[Floats])
    assert_type(lw.map.linear(rows, ["one", "other"]), list[Floats])
    assert_type(lw.map.max_pool2d(rows, 2, return_indices=True), list[Pair])
    assert_type(lw.map.max_unpool2d(rows, rows, 2), list[Floats])
    assert_type(lw.map.softmax(rows, 1, dtype=np.float64), list[NDArray[np.float64]])
    assert_type(lw.map.run("net", {"x": rows, "y": x}), list[NamedTensors[NDArray[Any]]])
    assert_type(lw.options(priority=1).map.relu(rows), list[Floats])
    assert_type(lw.options(timing=True).map.relu(rows), list[Any])


async def many_awaited_calls(lw: layerwire.AsyncClient, rows: list[Floats]) -> None:
    assert_type(await lw.map.relu(rows), list[Floats])
    assert_type(await lw.map.relu(rows, return_exceptions=True), list[Floats | Exception])
    assert_type(await lw.options(timing=True).map.relu(rows), list[Any])


def dtypes(lw: layerwire.Client, x: Floats, numbers: NDArray[np.int32]) -> None:
    assert_type(lw.relu(numbers), NDArray[np.int32])
    assert_type(lw.tanh(x), Floats)
    assert_type(lw.tanh(numbers), NDArray[Any])
    assert_type(lw.softmax(x, 1), Floats)
    assert_type(lw.softmax(x, 1, dtype=np.float64), NDArray[np.float64])
    assert_type(lw.log_softmax(numbers, dtype=np.dtype(np.float64)), NDArray[np.float64])
    assert_type(lw.softmax([1.0, 2.0], 0, 3, "float64"), NDArray[Any])


def several_tensors(lw: layerwire.Client, x: Floats, unknown: NDArray[Any], is_wanted: bool) -> None:
    assert_type(lw.max_pool2d(x, 2, return_indices=False), Floats)
    assert_type(lw.max_pool2d(x, 2, return_indices=True), Pair)
    assert_type(lw.max_pool2d(x, 2, None, 0, 1, False, True), Pair)
    assert_type(lw.max_pool2d(x, 2, return_indices=is_wanted), Floats | Pair)
    assert_type(lw.adaptive_max_pool2d(x, 1, True), Pair)
    assert_type(lw.fractional_max_pool2d(x, 2, 1, return_indices=True, _random_samples=x), Pair)
    assert_type(lw.max_pool2d(unknown, 2, return_indices=True), tuple[NDArray[Any], NDArray[np.int64]])
    values, indices = lw.max_pool2d(x, 2, return_indices=True)
    assert_type(lw.max_unpool2d(values, indices, 2), Floats)
    assert_type(lw.batch_norm(x, unknown, unknown), Floats)
    assert_type(lw.batch_norm(x, None, None, training=True), Floats)
    assert_type(
        lw.batch_norm(x, None, None, training=True, return_statistics=True), tuple[Floats, NDArray[Any], NDArray[Any]]
    )
    output, mean, var, running_mean, running_var = lw.batch_norm(
        x, unknown, unknown, training=True, return_statistics=True
    )
    assert_type(output, Floats)
    assert_type([mean, var, running_mean, running_var], list[NDArray[Any]])


def programs(lw: layerwire.Client, x: Floats, program: program_pb2.Program) -> None:
    answer = lw.run("digits", {"image": x}, version=2, intermediates=["conv1"])
    assert_type(answer, NamedTensors[NDArray[Any]])
    assert_type(answer["scores"], NDArray[Any])
    assert_type(answer.version, int | None)
    assert_type(lw.run(program, {"image": [[1.0]], "name": "stored"}), NamedTensors[NDArray[Any]])
    gradients = lw.differentiate(lambda f: f.conv2d(x, "conv1.weight"), x, ["input"])
    assert_type(gradients["input"], NDArray[Any])
    assert_type(
        lw.differentiate(lambda f: f.run("digits", {"image": x}), {"scores": x}, {"image"})["image"], NDArray[Any]
    )
    assert_type(lw.estimate("conv2d", x, x, padding=1), layerwire.Estimate)
    assert_type(lw.estimate("relu", x).outputs[0].shape, tuple[int, ...])


def futures(lw: layerwire.Client, x: Floats) -> None:
    assert_type(lw.submit.relu(x), layerwire.CallFuture[Floats])
    assert_type(lw.submit.relu(x).result(timeout=1), Floats)
    assert_type(lw.submit.relu([1.0]).result(), NDArray[Any])
    assert_type(lw.submit.max_pool2d(x, 2, return_indices=True).result(), Pair)
    assert_type(lw.submit.run("digits", {"image": x}).result(), NamedTensors[NDArray[Any]])
    for future in as_completed([lw.submit.relu(x) for _ in range(3)]):
        assert_type(future.result(), Floats)
    assert_type(lw.submit.relu(x).cancel(), bool)


def options(lw: layerwire.Client, x: Floats, is_wanted: bool) -> None:
    assert_type(lw.options(priority=3, timeout=None).relu(x), Floats)
    assert_type(lw.options(deterministic=True).submit.relu(x), layerwire.CallFuture[Floats])
    view = lw.options(timing=True)
    assert_type(view.relu(x), layerwire.Timed[Floats])
    value, timing = view.max_pool2d(x, 2, return_indices=True)
    assert_type(value, Pair)
    assert_type(timing, layerwire.Timing)
    assert_type(timing.kernel_seconds, float)
    assert_type(view.submit.relu(x).result().value, Floats)
    assert_type(view.options(priority=1).relu(x).timing.device, str)
    assert_type(view.options(timing=False).relu(x), Floats)
    assert_type(lw.options(timing=is_wanted).relu(x), Floats | layerwire.Timed[Floats])


async def async_client(x: Floats, is_wanted: bool) -> None:
    async with layerwire.AsyncClient(["a:50051", "b:50051"], token="t", tls=True) as lw:
        assert_type(lw, layerwire.AsyncClient)
        await lw.wait_ready(10)
        assert_type(await lw.relu(x), Floats)
        assert_type(await lw.relu([1.0]), NDArray[Any])
        assert_type(await lw.max_pool2d(x, 2, return_indices=True), Pair)
        assert_type(await lw.options(priority=1).relu(x), Floats)
        assert_type(await lw.options(timing=True).relu(x), layerwire.Timed[Floats])
        assert_type(await lw.options(timing=True).options(timing=False).relu(x), Floats)
        assert_type((await lw.run("digits", {"image": x}))["scores"], NDArray[Any])
        assert_type(await lw.estimate("relu", x), layerwire.Estimate)
        assert_type(await asyncio.gather(*(lw.relu(x) for _ in range(2))), list[Floats])
        assert_type(await asyncio.create_task(lw.relu(x)), Floats)
        assert_type(await lw.put_weights("w", x), str)
        assert_type(await lw.get_weights("w"), NDArray[Any])
        assert_type(await lw.programs(), list[Program])
        assert_type(await lw.program("digits"), AsyncRemoteProgram[Any])
        assert_type(await lw.server_info(), layerwire_pb2.GetServerInfoResponse)


def store(x: Floats, program: program_pb2.Program) -> None:
    with layerwire.Client("localhost:50051", timeout=None, metadata={"a": "b"}) as lw:
        assert_type(lw, layerwire.Client)
        assert_type(lw.server_info(), layerwire_pb2.GetServerInfoResponse)
        assert_type(lw.put_weights("w", x, pinned=True), str)
        assert_type(lw.put_weights({"w": x, "b": [1.0]}), str)
        assert_type(
            lw.import_weights("weights.safetensors", "digits.", progress=lambda sent_bytes, file_bytes: None), list[str]
        )
        assert_type(lw.weights(), list[Weights])
        assert_type(lw.weights()[0].shape, tuple[int, ...])
        assert_type(lw.get_weights("w"), NDArray[Any])
        assert_type(lw.put_program("digits", program), store_pb2.PutProgramResponse)
        assert_type(lw.programs("d")[0].versions[0].digest, str)
        assert_type(lw.program("digits", 2), RemoteProgram[Any])
        assert_type(lw.close(), None)


def errors(error: layerwire.LayerwireError) -> None:
    try:
        raise error
    except layerwire.errors.ResourceExhaustedError as full:
        assert_type(full.retry_after_seconds, float | None)
    except ValueError as wrong:
        if isinstance(wrong, layerwire.errors.InvalidArgumentError):
            assert_type(wrong.field, str)
    assert_type(error.message, str)
