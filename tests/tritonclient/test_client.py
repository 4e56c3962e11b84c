"""Runs the cases of each face of tritonclient in a process of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inference import conftest
from tests.through_server.conftest import Served

FOLDER = Path(__file__).parent
served = conftest.served

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tritonclient") is None, reason="tritonclient is not installed; it is in layerwire[dev]"
)


@pytest.mark.parametrize("face", ["sync", "asyncio", "stream"])
def test_client(served: Served, face: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER / f"cases_{face}.py")]
    environment = os.environ | {"LAYERWIRE_TEST_ADDRESS": served.address}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=FOLDER.parents[1], timeout=100)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout
    assert served.metric("layerwire_worker_restarts_total") == 0


def test_sdk_and_tritonclient_live_in_one_process() -> None:
    code = "import layerwire, layerwire.cli, layerwire.export, layerwire.nn\nlayerwire.Client; layerwire.AsyncClient\n"
    code += "import tritonclient.grpc, sys\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"layerwire", "tritonclient.grpc"} < set(loaded)
    assert not [name for name in loaded if name.startswith("layerwire_server")]
