"""mypy and pyright find the types that uses.py and uses_torch.py assert, and refuse what wrong_uses.py marks.

They see the SDK as a user's checker does: as an installed package, with none of this repository's settings.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tools import client_methods

from tests.operator_cases import T, cases

HERE = Path(__file__).parent
WITHOUT_TORCH = ("layerwire", "numpy", "grpc", "google")  # nor the stubs of what comes without types
WITH_TORCH = (*WITHOUT_TORCH, "torch", "grpc-stubs", "google-stubs")


@pytest.fixture(scope="module")
def folder(pytestconfig):
    """It stays from run to run, so that mypy reads torch once."""
    return pytestconfig.cache.mkdir("typing")


def python_with(packages: tuple[str, ...], folder: Path) -> str:
    """The Python of an environment in which these packages are installed, and no others."""
    if not (folder / "bin" / "python").exists():
        venv.create(folder, symlinks=True)
    [site_packages] = folder.glob("lib/python*/site-packages")
    for name in packages:
        spec = find_spec(name)
        source = spec.submodule_search_locations[0] if spec else Path(np.__file__).parents[1] / name  # of stubs
        (site_packages / name).unlink(missing_ok=True)
        (site_packages / name).symlink_to(source)
    return str(folder / "bin" / "python")


def output_of(command: list[str]) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "MYPYPATH"}
    environment["PYRIGHT_PYTHON_IGNORE_WARNINGS"] = "1"  # it would ask the network for a newer one
    process = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True)
    assert process.returncode in (0, 1), process.stdout + process.stderr
    return process.stdout


def mypy(packages: tuple[str, ...], files: list[str], folder: Path) -> dict[tuple[str, int], str]:
    """mypy's errors by file and line."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(folder / "mypy")]
    output = output_of([*command, "--python-executable", python_with(packages, folder), *files])
    errors = re.findall(r"^(.+):(\d+): error: (.*)$", output, re.MULTILINE)
    return {(file, int(line)): message for file, line, message in errors}


def pyright(packages: tuple[str, ...], files: list[str], folder: Path) -> dict[tuple[str, int], str]:
    """pyright's errors by file and line."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", python_with(packages, folder)]
    errors = json.loads(output_of([*command, *files]))["generalDiagnostics"]
    return {(Path(each["file"]).name, each["range"]["start"]["line"] + 1): each["message"] for each in errors}


def marked_lines(file: str) -> set[tuple[str, int]]:
    """The lines that say that they are errors."""
    lines = (HERE / file).read_text().splitlines()
    return {(file, number) for number, line in enumerate(lines, 1) if "  # error" in line}


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_types_are_found_and_wrong_uses_refused(checker: Callable, folder):
    errors = checker(WITH_TORCH, ["uses.py", "uses_torch.py", "wrong_uses.py"], folder / f"{checker.__name__}-torch")
    wrong_lines = marked_lines("wrong_uses.py")
    assert wrong_lines
    assert {place: message for place, message in errors.items() if place not in wrong_lines} == {}
    assert wrong_lines - errors.keys() == set()


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_types_are_found_without_torch_and_stubs(checker: Callable, folder):
    assert checker(WITHOUT_TORCH, ["uses.py"], folder / f"{checker.__name__}-numpy") == {}


def test_floats_of_integers_come_from_the_operators_that_are_listed():
    functions = set()
    for case in cases():
        tensor = case.args[0] if case.args else None
        if isinstance(tensor, T) and "float" not in tensor.dtype and "softm" not in case.function:  # these have a dtype
            dtype = case.answer()[0].dtype
            functions |= {case.function} if dtype.is_floating_point else set()
    assert functions == client_methods.FLOATING


def test_stub_is_what_the_methods_are():
    assert client_methods.STUB.read_text() == client_methods.stub(), "`make stubs` writes it anew"
