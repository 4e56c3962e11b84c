"""A store's disk: what is on it outlives servers, damage is found, a full or read-only one is told of."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import layerwire
from layerwire.errors import DataLossError, FailedPreconditionError, ResourceExhaustedError
from tests.served import PATIENCE_SECONDS, Server
from tests.through_server.storage.conftest import X, files_of, ran, scaled


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[layerwire.Client]:
    """A client of a server that runs meanwhile, its store in the folder."""
    server = Server(folder, "--store", str(folder / "store"), *flags)
    try:
        with layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as lw:
            yield lw
    finally:
        server.close()


def test_what_was_put_is_there_after_a_restart_and_damage_is_told_of(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
    large = np.random.default_rng(1).normal(size=(700, 500))
    with serving(tmp_path) as lw:
        lw.put_weights("small", X)
        lw.put_weights("large", large, pinned=True)
        digest = lw.put_weights("damaged", X + 1)
        lw.deploy("net", module, torch.ones(1, 4))
        lw.put_program("p", scaled(2))
        lw.put_program("p", scaled(3), keep_default_version=True)
        before = lw.weights(), lw.programs()
    damage(tmp_path / "store" / "weights" / f"{digest}.safetensors")
    with serving(tmp_path) as lw:
        assert (lw.weights(), lw.programs()) == before
        np.testing.assert_array_equal(lw.get_weights("large"), large)
        np.testing.assert_array_equal(lw.linear(X, "small"), X @ X.T)
        torch.testing.assert_close(lw.program("net")(torch.ones(2, 4)), module(torch.ones(2, 4)).detach())
        assert (ran(lw, "p"), ran(lw, "p", 2)) == (4.0, 6.0)
        described = lw.describe("net")
        assert [node.operator for node in described.nodes] == ["linear", "relu"]
        assert (described.parameters, described.nodes[0].parameters) == (15, 15)
        for use in (lambda: lw.get_weights("damaged"), lambda: lw.linear(X, "damaged")):
            with pytest.raises(DataLossError, match="is damaged"):
                use()
        assert (lw.weights(), lw.programs()) == before
        assert lw.put_weights("damaged", X + 1) == digest  # which mends it
        np.testing.assert_array_equal(lw.linear(X, "damaged"), X @ (X + 1).T)


def damage(path: Path) -> None:
    """Changes the last byte."""
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB of its own."""
    folder = tmp_path / "store"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system can't be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(tmp_path: Path, disk: Path) -> None:
    with serving(tmp_path) as lw:
        lw.put_weights("w", X)
        before = files_of(disk)
        with pytest.raises(ResourceExhaustedError, match="disk is full"):
            lw.put_weights("large", np.zeros(4 << 20, np.uint8))
        assert {name: files_of(disk)[name] for name in before} == before
        np.testing.assert_array_equal(lw.linear(X, "w"), X @ X.T)
        lw.put_weights("small", X * 2)


def test_a_store_that_is_mounted_read_only(tmp_path: Path, disk: Path) -> None:
    with serving(tmp_path) as lw:
        lw.put_weights("w", X)
        lw.put_program("p", scaled(1))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with serving(tmp_path) as lw:
        np.testing.assert_array_equal(lw.linear(X, "w"), X @ X.T)
        np.testing.assert_array_equal(lw.get_weights("w"), X)
        assert ran(lw, "p") == 2.0
        for change in (
            lambda: lw.put_weights("v", X),
            lambda: lw.put_weights("v", np.zeros(2 << 20, np.uint8)),
            lambda: lw.delete_weights("w"),
            lambda: lw.put_program("p", scaled(2)),
            lambda: lw.set_default_version("p", 1),
            lambda: lw.delete_program("p"),
        ):
            with pytest.raises(FailedPreconditionError, match="can't be written"):
                change()
    assert "the store is read-only" in (tmp_path / "log").read_text()


def test_over_the_stores_own_limit(tmp_path: Path) -> None:
    with serving(tmp_path, "--max-store-bytes", "1MiB") as lw:
        lw.put_weights("w", X)
        lw.put_weights("half", np.zeros(600_000, np.uint8))
        for nbytes in (600_001, 3 << 19):  # as one message, and in pieces
            with pytest.raises(ResourceExhaustedError, match="limit of bytes"):
                lw.put_weights("large", np.zeros(nbytes, np.uint8))
        assert [weights.name for weights in lw.weights()] == ["half", "w"]
        assert not list((tmp_path / "store" / "uploads").iterdir())
