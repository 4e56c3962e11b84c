"""The contract: the committed code is what the .proto files give, and buf has nothing to say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PROTOS = ROOT / "protos"
PROTOC = [sys.executable, "-m", "grpc_tools.protoc"]


class Contract(NamedTuple):
    """A folder of .proto files.

    Attributes:
        root: what their imports begin at, under protos/.
        files: those in it.
        services: for which of them stubs are generated.
        generated: where their code is, and `out` where protoc puts it under its own root.
    """

    root: str
    files: str
    services: tuple[str, ...]
    generated: Path
    out: str


CONTRACTS = {
    "layerwire": Contract(
        ".",
        "layerwire/v1/*.proto",
        ("layerwire/v1/layerwire.proto", "layerwire/v1/store.proto"),
        ROOT / "client" / "layerwire" / "v1",
        "layerwire/v1",
    ),
    "inference": Contract("inference", "*.proto", (), ROOT / "client" / "layerwire" / "inference_v2", "."),
}


def fresh(contract: Contract, out: Path) -> dict[str, str]:
    """What protoc makes of the .proto files now: file name -> text."""
    root = PROTOS / contract.root
    names = [str(path.relative_to(root)) for path in sorted(root.glob(contract.files))]
    subprocess.run([*PROTOC, f"-I{root}", f"--python_out={out}", f"--pyi_out={out}", *names], check=True)
    if contract.services:
        subprocess.run([*PROTOC, f"-I{root}", f"--grpc_python_out={out}", *contract.services], check=True)
    return {path.name: path.read_text() for path in (out / contract.out).iterdir()}


def test_every_proto_file_is_of_a_contract():
    named = {path for contract in CONTRACTS.values() for path in (PROTOS / contract.root).glob(contract.files)}
    assert named == set(PROTOS.rglob("*.proto"))


@pytest.mark.parametrize("name", CONTRACTS)
def test_generated_code_is_fresh(name, tmp_path):
    contract = CONTRACTS[name]
    fresh_files = fresh(contract, tmp_path)
    committed = {path.name: path.read_text() for path in contract.generated.glob("*_pb2*")}
    stale = sorted(
        name for name in fresh_files.keys() | committed.keys() if fresh_files.get(name) != committed.get(name)
    )
    assert not stale, "run `make protos`"


def test_buf_lint_is_clean():
    buf = shutil.which("buf", path=str(Path(sys.executable).parent))
    assert buf, "buf-bin is part of layerwire[dev]"
    lint = subprocess.run([buf, "lint", str(PROTOS)], capture_output=True, text=True, check=False)
    assert lint.returncode == 0, lint.stdout + lint.stderr
