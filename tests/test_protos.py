"""The contract: the committed code is what the .proto files give, and buf has nothing to say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROTOS = ROOT / "protos"
GENERATED = ROOT / "client" / "layerwire" / "v1"
SERVICES = ["layerwire/v1/layerwire.proto", "layerwire/v1/store.proto"]
PROTOC = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What protoc makes of the .proto files now: file name -> text."""
    out = tmp_path_factory.mktemp("protos")
    names = [str(path.relative_to(PROTOS)) for path in sorted(PROTOS.rglob("*.proto"))]
    subprocess.run([*PROTOC, f"--python_out={out}", f"--pyi_out={out}", *names], check=True)
    subprocess.run([*PROTOC, f"--grpc_python_out={out}", *SERVICES], check=True)
    return {path.name: path.read_text() for path in (out / "layerwire" / "v1").iterdir()}


def test_generated_code_is_fresh(fresh):
    committed = {path.name: path.read_text() for path in GENERATED.glob("*_pb2*")}
    stale = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
    assert not stale, "run `make protos`"


def test_buf_lint_is_clean():
    buf = shutil.which("buf", path=str(Path(sys.executable).parent))
    assert buf, "buf-bin is part of layerwire[dev]"
    lint = subprocess.run([buf, "lint", str(PROTOS)], capture_output=True, text=True, check=False)
    assert lint.returncode == 0, lint.stdout + lint.stderr
