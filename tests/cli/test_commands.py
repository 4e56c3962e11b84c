"""The table of commands: help without imports, a clear word where the server isn't installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from click.testing import CliRunner

from layerwire import cli
from layerwire.cli import COMMANDS, OTHERS, main


def test_version():
    assert CliRunner().invoke(main, ["--version"]).output == f"layerwire {version('layerwire')}\n"


def test_help_lists_the_table_without_importing_it():
    code = "import sys\nfrom layerwire.cli import main\nmain(['--help'], standalone_mode=False)\nprint(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    *text, modules = shown.splitlines()
    for name, command in {**COMMANDS, **OTHERS}.items():
        assert any(line.split()[:1] == [name] and command.help in line for line in text)
    assert not {command.module for command in COMMANDS.values()} & set(modules.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_begins_with_its_line(name):
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert COMMANDS[name].help in " ".join(result.output.split())


class Absent:
    """An entry point of a package that isn't there."""

    name = "serve"

    def load(self):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


@pytest.mark.parametrize("points", [[], [Absent()]], ids=["no-entry-point", "no-torch"])
def test_serve_says_what_to_install(monkeypatch, points):
    monkeypatch.setattr(cli, "entry_points", lambda **_: points)
    result = CliRunner().invoke(main, ["serve", "--listen", "127.0.0.1:0"])
    assert result.exit_code == 2
    assert "pip install 'layerwire[server]'" in result.output


@pytest.mark.parametrize("args", [["nonsense"], []], ids=["unknown", "none"])
def test_without_a_command(args):
    assert CliRunner().invoke(main, args).exit_code == 2
