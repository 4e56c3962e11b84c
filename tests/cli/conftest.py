"""How tests of the command line run it, and where the server is that all tests share."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from layerwire.cli import main


@pytest.fixture
def address(served) -> str:
    """Where the server listens."""
    return served.address


@pytest.fixture
def cli():
    """Runs a command; an unforeseen exception fails the test."""

    def run(*args: object) -> Result:
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
