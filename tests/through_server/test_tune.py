"""Kernels chosen by trial, through a server: they take over while it is called, stay after a restart, or never come."""

from __future__ import annotations

import time
from contextlib import ExitStack

import grpc
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layerwire
from layerwire.v1 import store_pb2, store_pb2_grpc
from layerwire_server.worker.trials.choices import Choice, Choices
from tests.served import Server

PATIENCE_SECONDS = 120.0
METRIC = "layerwire_kernel_batches_total"


def call(lw, x):
    maxima = lw.max_pool2d(x, 2)
    np.testing.assert_array_equal(maxima, F.max_pool2d(torch.from_numpy(x), 2).numpy())


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((4, 64, 112, 112), np.float32)


def test_a_kernel_takes_over_and_stays(tmp_path, x):
    server = Server(tmp_path, "--store", str(tmp_path / "store"), "--workers", "2")
    try:
        with layerwire.Client(server.address) as lw:
            assert lw.server_info().numerics["tune"] == "background"
            end_time = time.monotonic() + PATIENCE_SECONDS
            while not server.metric(METRIC):
                call(lw, x)
                assert time.monotonic() < end_time, server.log.read_text()
        server.stop()
        server.start()
        with layerwire.Client(server.address) as lw:
            call(lw, x)
            while not server.metric(METRIC):  # a worker's numbers come with its next snapshot
                assert time.monotonic() < end_time, server.log.read_text()
            assert server.metric("layerwire_kernel_trials_total") == 0
            (choice,) = lw.kernels("max_pool2d")
            assert choice.inputs == "float32[<512, 112, 112]"
            assert choice.same_bits
            assert choice.times_as_fast > 1
            assert [(one.kernel, one.result) for one in choice.trials] == [(choice.kernel, "fastest")]
            assert lw.kernels("avg") == []
            assert server.metric("layerwire_kernel_choices") == 2  # in both workers
    finally:
        server.close()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 10)).eval()


def test_replicas_change_their_last_bits_at_one_moment(tmp_path):
    """Of two servers that share a store, asked in turn, none answers by the old kernel once one answered by the new."""
    store = tmp_path / "store"
    x = torch.randn(1, 64, 16, 16, generator=torch.Generator().manual_seed(1))
    with ExitStack() as stack:
        servers, clients = [], []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            servers.append(Server(tmp_path / name, "--store", str(store), "--workers", "1"))
            stack.callback(servers[-1].close)
            clients.append(stack.enter_context(layerwire.Client(servers[-1].address)))
            if name == "a":
                clients[0].deploy("network", network(), x)
        program = clients[1].describe("network")
        programs = [client.program("network", program.version) for client in clients]
        old = {program(x).numpy().tobytes() for program in programs}
        assert len(old) == 1

        with grpc.insecure_channel(servers[0].address) as channel:
            stub = store_pb2_grpc.StoreServiceStub(channel)
            environment = stub.ListKernels(store_pb2.ListKernelsRequest()).environment
        site = f"Run(digest='{program.digest}', version=1, intermediates=()) float32[<2, 64, 16, 16]"
        choices = Choices(store, environment, 9, read_only=False)
        for name in (
            site,
            f"{site} on 1",
        ):  # as another worker would after its trial; little work has one thread anyway
            choices.put(name, Choice("channels_last", "run", same_bits=False))
            assert choices.get(name)[0] is not None

        end_time = time.monotonic() + PATIENCE_SECONDS
        answers = []
        while len(set(answers[-2:]) - old) == 0 and time.monotonic() < end_time:
            answers += [program(x).numpy().tobytes() for program in programs]
        answers += [program(x).numpy().tobytes() for program in programs]
        (new,) = set(answers) - old  # other last bits: else nothing is tested here
        assert answers == sorted(answers, key=lambda answer: answer == new)
        assert answers[-2:] == [new, new]
        assert {one.kernel for client in clients for one in client.kernels("run")} == {"channels_last"}


def test_off_is_eager(tmp_path, x):
    server = Server(tmp_path, "--store", str(tmp_path / "store"), "--tune", "off")
    try:
        with layerwire.Client(server.address) as lw:
            assert lw.server_info().numerics["tune"] == "off"
            for _ in range(10):
                call(lw, x)
            assert lw.kernels() == []
        assert server.metric(METRIC) == server.metric("layerwire_kernel_trials_total") == 0
        assert not (tmp_path / "store" / "kernels").exists()
    finally:
        server.close()
