"""What `import layerwire` offers and costs."""

from __future__ import annotations

import re
import subprocess
import sys

import grpc
import pytest

import layerwire
from layerwire import errors
from tests.transport.fake_server import FakeServer


def test_all_is_what_there_is():
    assert len(set(layerwire.__all__)) == len(layerwire.__all__)  # their order is ruff's to check
    assert set(layerwire.__all__) <= set(dir(layerwire))
    for name in layerwire.__all__:
        assert getattr(layerwire, name) is not None
    assert layerwire.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="nothing_like_it"):
        layerwire.nothing_like_it  # noqa: B018


def test_every_name_has_a_docstring():
    assert all(getattr(layerwire, name).__doc__ for name in layerwire.__all__)


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_a_call_needs_neither_torch_nor_the_server():
    with FakeServer() as server:
        modules = modules_after(f"import layerwire\nwith layerwire.Client({server.address!r}) as lw: lw.relu([1.0])")
    assert {"layerwire.client", "grpc", "numpy"} <= modules
    assert not {"torch", "layerwire_server", "click", "rich"} & modules  # grpc itself loads grpc_health where it is


def test_what_the_server_takes_from_here_brings_no_client():
    assert "layerwire.client" not in modules_after(
        "import layerwire.wire.framing, layerwire.errors, layerwire.v1.layerwire_pb2"
    )


def test_the_tree_of_errors_is_the_one_drawn():
    drawn = re.findall(r"^ +\+-- (\w+) +([A-Z_]+)", errors.__doc__, re.MULTILINE)
    classes = vars(errors).values()
    there = {
        one.__name__: one.code.name
        for one in classes
        if isinstance(one, type) and issubclass(one, layerwire.LayerwireError)
    }
    assert dict(drawn) == {name: code for name, code in there.items() if name != "LayerwireError"}


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_every_status_has_an_error(code):
    error = errors.make(code, "text")
    assert isinstance(error, layerwire.LayerwireError)
    assert error.code is code
