"""docker-compose.yml as compose implementations read it, with and without each profile; and one server at a time.

It starts no container. LAYERWIRE_DOCKER_COMPOSE names a Docker Compose that isn't `docker compose` or on the path.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.containers.compose_file import FILE, ROOT, SERVERS, SERVICES, TEXT, output_of, reachable, services_of_profile

OLDEST_COMPOSE = (2, 20)  # `required` of depends_on
ALWAYS = {"prometheus", "grafana"}

# Flags, COMPOSE_PROFILES of the shell (None: .env's is left) -> what is on in Docker Compose.
PROFILES = {
    "no profile": ([], None, {"layerwire"}),
    "profile cpu": (["--profile", "cpu"], None, {"layerwire"}),
    "profile gpu": (["--profile", "gpu"], None, {"layerwire-gpu"}),
    "profile gpu by variable": ([], "gpu", {"layerwire-gpu"}),
    "profile load": (["--profile", "load"], None, {"load"}),
    "profile gpu and load": (["--profile", "gpu", "--profile", "load"], None, {"layerwire-gpu", "load"}),
    "profile cpu and load by variable": ([], "cpu,load", {"layerwire", "load"}),
}
# podman-compose adds flags to .env's profiles.
PODMAN_PROFILES = PROFILES | {
    "profile gpu": (["--profile", "gpu"], "", {"layerwire-gpu"}),
    "profile load": (["--profile", "load"], None, {"layerwire", "load"}),
    "profile gpu and load": (["--profile", "load"], "gpu", {"layerwire-gpu", "load"}),
}


def profile_cases(cases: dict[str, tuple[list[str], str | None, set[str]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("flags", "variable", "on"), cases.values(), ids=cases)


def environment(variable: str | None, *paths: Path) -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if name != "COMPOSE_PROFILES"}
    variables["PATH"] = os.pathsep.join([*map(str, paths), variables["PATH"]])
    return variables if variable is None else variables | {"COMPOSE_PROFILES": variable}


# What compose implementations make of it


def schema_verdict(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_compose_specification_allows_it():
    verdict = schema_verdict(FILE)
    assert verdict.returncode == 0, verdict.stdout


def test_compose_specification_refuses_a_misspelt_key(tmp_path):
    file = tmp_path / "docker-compose.yml"
    file.write_text(TEXT.replace("read_only:", "readonly:"))
    assert "'readonly' was unexpected" in schema_verdict(file).stdout


@pytest.fixture
def podman(tmp_path: Path) -> Path:
    """A folder with a podman that knows its version, all that `podman-compose config` asks of it."""
    program = tmp_path / "podman"
    program.write_text("#!/bin/sh\necho podman version 5.0.0\n")
    program.chmod(0o755)
    return tmp_path


@profile_cases(PODMAN_PROFILES)
def test_podman_compose_reads_it(podman, flags, variable, on):
    command = [sys.executable, "-m", "podman_compose", *flags, "config", "--services"]
    services = output_of(command, env=environment(variable, podman))
    assert set(services.split()) == ALWAYS | on


def docker_compose() -> tuple[list[str], str]:
    """Docker Compose's command, and why there is none."""
    path = os.environ.get("LAYERWIRE_DOCKER_COMPOSE")
    candidates = [[path]] if path else [["docker", "compose"], ["docker-compose"]]
    reason = "no Docker Compose: Debian's package docker-compose of trixie or later has it"
    for command in candidates:
        if shutil.which(command[0]) is None:
            continue
        ran = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
        version = re.match(r"v?(\d+)\.(\d+)", ran.stdout)
        if ran.returncode == 0 and version and (int(version[1]), int(version[2])) >= OLDEST_COMPOSE:
            return command, ""
        if version:
            reason = f"{' '.join(command)} is {version[0]}, and the file is for {OLDEST_COMPOSE[0]}.{OLDEST_COMPOSE[1]}"
    return [], reason


DOCKER_COMPOSE, NO_DOCKER_COMPOSE = docker_compose()
with_docker_compose = pytest.mark.skipif(not DOCKER_COMPOSE, reason=NO_DOCKER_COMPOSE)


@pytest.mark.debian
@with_docker_compose
@profile_cases(PROFILES)
def test_docker_compose_reads_it(flags, variable, on):
    services = output_of([*DOCKER_COMPOSE, *flags, "config", "--services"], env=environment(variable))
    assert set(services.split()) == ALWAYS | on


@pytest.mark.debian
@with_docker_compose
def test_docker_compose_takes_its_variables():
    variables = {"SERVER_CPUS": "6", "SERVER_MEMORY": "24g", "BENCH_USER": "1234:99"}
    flags = ["--profile", "cpu", "--profile", "load"]
    read = yaml.safe_load(output_of([*DOCKER_COMPOSE, *flags, "config"], env=environment(None) | variables))["services"]
    limits = read["layerwire"]["deploy"]["resources"]["limits"]
    assert (float(limits["cpus"]), int(limits["memory"])) == (6, 24 * 2**30)
    assert read["load"]["user"] == "1234:99"


# One server at a time, under one name


@pytest.mark.parametrize("profile", ["cpu", "gpu"], ids=["profile cpu", "profile gpu"])
def test_a_profile_has_one_server_and_no_port_twice(profile):
    services = services_of_profile(profile)
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports)) == 4
    for asker in ("prometheus", "load"):
        assert reachable(asker, services).count("layerwire") == 1


def test_both_servers_at_once_are_refused():
    one, other = (SERVICES[name] for name in SERVERS)
    assert one["container_name"] == other["container_name"]
    assert one["ports"] == other["ports"]


def test_cpu_is_the_default():
    lines = [line for line in (ROOT / ".env").read_text().splitlines() if not line.startswith("#")]
    assert lines == ["COMPOSE_PROFILES=cpu"]


def test_gpu_is_reserved_and_asked_for():
    (device,) = SERVICES["layerwire-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert SERVICES["layerwire-gpu"]["environment"]["LAYERWIRE_DEVICE"] == "cuda"
    assert "reservations" not in SERVICES["layerwire"]["deploy"]["resources"]
