"""A server that the tests of the command line share; it is theirs alone, on free ports."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from layerwire.cli import main
from layerwire.demo import server


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """Where the server listens."""
    with server.running(tmp_path_factory.mktemp("server") / "log", "--device", "cpu") as found:
        yield found.address


@pytest.fixture
def cli():
    """Runs a command; an unforeseen exception fails the test."""

    def run(*args: object) -> Result:
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
