"""Runs the cases of all faces of tritonclient in a process of their own."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.served import PATIENCE_SECONDS, Server

FOLDER = Path(__file__).parent
FACES = ("sync", "asyncio", "stream")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tritonclient") is None, reason="tritonclient is not installed; it is in layerwire[dev]"
)


def test_client(served: Server) -> None:
    files = [f"cases_{face}.py" for face in FACES]
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--noconftest"]
    command += [str(FOLDER / file) for file in files]
    environment = os.environ | {"LAYERWIRE_TEST_ADDRESS": served.address}
    ran = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=FOLDER.parents[2], timeout=PATIENCE_SECONDS
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for file in files:
        assert re.search(rf"^PASSED .*{re.escape(file)}::", ran.stdout, flags=re.MULTILINE), file


def test_sdk_and_tritonclient_live_in_one_process() -> None:
    code = "import layerwire, layerwire.cli, layerwire.export, layerwire.nn\nlayerwire.Client; layerwire.AsyncClient\n"
    code += "import tritonclient.grpc, sys\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"layerwire", "tritonclient.grpc"} < set(loaded)
    assert not [name for name in loaded if name.startswith("layerwire_server")]
