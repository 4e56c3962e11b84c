"""What of the Dockerfile can be checked without building it: hadolint, and that it agrees with the project's files."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from layerwire.cli import health
from layerwire_server import config

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions() -> list[tuple[str, str]]:
    """The word and the rest of each instruction, on one line."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def rests(word: str) -> list[str]:
    return [rest for other, rest in instructions() if other == word]


def variables() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in rests("ENV") for pair in rest.split())


def hadolint(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("hadolint"), "--no-color", *arguments]
    return subprocess.run(command, capture_output=True, text=True, input=text)


def test_hadolint_finds_nothing():
    result = hadolint(DOCKERFILE)
    assert (result.returncode, result.stdout) == (0, "")
    assert "hadolint ignore" not in DOCKERFILE.read_text()


def test_hadolint_would_find_something():
    result = hadolint("-", text="FROM python\nRUN pip install torch\n")
    assert result.returncode != 0
    assert "DL3006" in result.stdout  # no tag


def test_targets():
    stages = [re.fullmatch(r"(\S+)(?: AS (\S+))?", rest).groups() for rest in rests("FROM")]
    assert {"cpu", "cuda"} <= {name for _, name in stages}
    assert stages[-1] == ("cpu", None), "a build without --target must not fetch CUDA"


def test_the_context_has_what_is_copied():
    context = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = {source for rest in rests("COPY") if "--from=" not in rest for source in rest.split()[:-1]}
    assert sources == context
    assert all((ROOT / path).exists() for path in context)


def test_the_label_has_the_version():
    assert f"VERSION={PROJECT['version']}" in rests("ARG")


def test_the_extras_can_be_listed_as_requirements():
    extras = re.findall(r"extras\['(\w+)'\]", DOCKERFILE.read_text())
    assert set(extras) == {"server", "bench"}
    for extra in extras:  # one that names the project itself would be looked for in an index
        names = {Requirement(text).name for text in PROJECT["optional-dependencies"][extra]}
        assert names and PROJECT["name"] not in names


def test_every_installation_is_constrained():
    steps = [step for rest in rests("RUN") for step in rest.split("&&") if re.search(r"pip\b.* install\b", step)]
    assert len(steps) == 7
    for step in steps:
        assert "--constraint constraints.txt" in step or "--no-index" in step, step


def test_constraints_pin_all_that_is_installed():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {canonicalize_name(line.split("==")[0]) for line in lines if "==" in line}
    queue = {(PROJECT["name"], "server"), (PROJECT["name"], "bench")}
    closure = set()
    while queue:
        name, extra = queue.pop()
        closure.add((name, extra))
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                queue |= {(canonicalize_name(requirement.name), each) for each in ("", *requirement.extras)} - closure
    assert {name for name, _ in closure} - {PROJECT["name"]} - pins == set()
    assert "hatchling" in pins, "the wheel is built with it"


def test_variables_are_settings():
    settings = {name: value for name, value in variables().items() if name.startswith("LAYERWIRE_")}
    assert config.unknown_variables(settings) == {}
    assert [settings["LAYERWIRE_STORE"]] == rests("VOLUME")
    ports = {settings[name].removeprefix("0.0.0.0:") for name in ("LAYERWIRE_LISTEN", "LAYERWIRE_METRICS")}
    assert ports == set(rests("EXPOSE")[0].split())


def test_health_answers_before_it_is_given_up():
    (check,) = rests("HEALTHCHECK")
    given_up_seconds = float(re.search(r"--timeout=(\d+)s", check)[1])
    timeout_seconds = next(each.default for each in health.command.params if each.name == "timeout")
    assert timeout_seconds < given_up_seconds


@pytest.mark.parametrize("word", ["ENTRYPOINT", "CMD"])
def test_words_are_a_list(word):
    assert all(rest.startswith("[") for rest in rests(word)), "a shell between would keep SIGTERM to itself"
