"""The README tells what is so: its tables are those of the code, its flags those of `layerwire serve --help`."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from layerwire.cli import COMMANDS, OTHERS
from layerwire_server.config import Settings, flag
from tests.readme_tables import README, with_fresh_tables

TEXT = README.read_text()
ROOT = README.parent


def test_tables_are_fresh():
    assert with_fresh_tables(TEXT) == TEXT, "run `make tables`"


def test_flags_are_those_of_serve():
    command = [sys.executable, "-m", "layerwire.cli", "serve", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r"--[a-z-]+", shown)) - {"--help"}
    assert {name for name in flags if not name.startswith("--no-")} == {flag(name) for name in Settings.model_fields}


def test_commands_are_those_there_are():
    assert set(re.findall(r"^layerwire ([a-z-]+)", TEXT, flags=re.MULTILINE)) == {*COMMANDS, *OTHERS} - {"demo"}


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_links_and_paths_lead_somewhere(name):
    text = (ROOT / name).read_text()
    links = re.findall(r"\]\((\w[\w./]+)\)", text)
    paths = re.findall(r"`((?:client|server|tests|protos|deploy|docs)/[\w./]+)`", text)
    assert [path for path in links + paths if not (ROOT / path).exists()] == []


def test_make_help_lists_every_verb():
    text = (ROOT / "Makefile").read_text()
    verbs = re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)
    assert verbs
    command = ["make", "--no-print-directory", "help"]  # a make around this one would have it tell directories
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in shown.splitlines()] == verbs.group(1).split()
