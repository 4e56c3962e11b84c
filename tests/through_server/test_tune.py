"""Kernels chosen by trial, through a server: they take over while it is called, stay after a restart, or never come."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import layerwire
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
    finally:
        server.close()


def test_off_is_eager(tmp_path, x):
    server = Server(tmp_path, "--store", str(tmp_path / "store"), "--tune", "off")
    try:
        with layerwire.Client(server.address) as lw:
            assert lw.server_info().numerics["tune"] == "off"
            for _ in range(10):
                call(lw, x)
        assert server.metric(METRIC) == server.metric("layerwire_kernel_trials_total") == 0
        assert not (tmp_path / "store" / "kernels").exists()
    finally:
        server.close()
