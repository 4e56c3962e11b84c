"""docker-compose.yml: each service is held tight, and is promised only what the tree has.

It starts no container, and leaves how the file is read to test_compose.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from layerwire_server import config
from layerwire_server.supervisor import supervisor
from tests.containers.compose_file import (
    COMPOSE,
    ROOT,
    SERVERS,
    SERVICES,
    TEXT,
    VARIABLE,
    every_server,
    every_service,
    output_of,
    reachable,
    services_of_profile,
)

DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
PROMETHEUS = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
BUILT = {name: service for name, service in SERVICES.items() if "build" in service}
PULLED = {name: service for name, service in SERVICES.items() if "build" not in service}
_SECRET = re.compile(r"passw|secret_key|token|api_?key|credential", re.IGNORECASE)


@every_service
def test_may_do_little(service):
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not {"cap_add", "privileged", "devices", "network_mode", "pid", "ipc", "userns_mode"} & service.keys()
    assert not str(service.get("user", "1")).startswith(("0", "root"))


@every_service
def test_has_limits(service):
    limits = service["deploy"]["resources"]["limits"]
    assert float(limits["cpus"]) > 0
    assert re.fullmatch(r"\d+[mg]", limits["memory"])
    assert limits["pids"] > 0
    assert re.fullmatch(r"\d+m", service["shm_size"])
    assert all("size=" in each for each in service["tmpfs"])
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@every_service
def test_publishes_to_this_machine_alone(service):
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", SERVICES, ids=[f"service {name}" for name in SERVICES])
def test_restarts_unless_it_is_a_command(name):
    assert SERVICES[name]["restart"] == ("no" if name == "load" else "unless-stopped")


@every_service
def test_waits_for_health(service):
    for name, condition in service.get("depends_on", {}).items():
        assert condition["condition"] == "service_healthy"
        assert condition.get("required", True) == (name not in SERVERS)
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_starts_in_order():
    waits = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    assert waits["prometheus"] == waits["load"] == set(SERVERS)
    assert waits["grafana"] == {"prometheus"}


@every_server
def test_is_given_longer_than_the_drain_takes(server):
    settings = config.load({})
    drain_seconds = settings.lame_duck_seconds + settings.grace_seconds
    ends_seconds = drain_seconds + 3 * supervisor._STOP_ROOM_SECONDS  # gateways, workers, the store's keeping
    assert int(server["stop_grace_period"].removesuffix("s")) > ends_seconds


def test_holds_no_secret():
    variables = [
        (name, value) for service in SERVICES.values() for name, value in service.get("environment", {}).items()
    ]
    assert [name for name, value in variables if _SECRET.search(name) or _SECRET.search(str(value))] == []
    assert "secrets" not in COMPOSE


def test_variables_have_defaults_and_are_explained():
    head = TEXT[: TEXT.index("\nname:")]
    for name, default in VARIABLE.findall(TEXT):
        assert default, name
        assert re.search(rf"\b{name}\b", head), name


# What it promises is there


def bound() -> Iterator[tuple[str, str, str, bool]]:
    """Each mounted path of the tree: service, path, place in the container, read-only."""
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            if isinstance(volume, dict):
                yield name, volume["source"], volume["target"], volume.get("read_only", False)
            elif volume.startswith("."):
                source, target, *flags = volume.split(":")
                yield name, source, target, flags == ["ro"]


def test_mounts_what_the_tree_has():
    assert [source for _, source, _, _ in bound() if not (ROOT / source).exists()] == []
    assert [source for _, source, _, read_only in bound() if not read_only] == ["./bench-output"]


def test_volumes_are_declared_and_used():
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    names = {volume.split(":")[0] for volume in volumes if isinstance(volume, str) and volume[0] != "."}
    assert names == set(COMPOSE["volumes"])
    assert {network for service in SERVICES.values() for network in service["networks"]} == set(COMPOSE["networks"])


def in_tree(service: str, path: str) -> Path:
    """The file of the tree that a service sees at that path."""
    for name, source, target, _ in bound():
        if name == service and (path == target or path.startswith(target + "/")):
            return ROOT / source / path.removeprefix(target).lstrip("/")
    raise AssertionError(f"{service} has nothing mounted at {path}")


@pytest.mark.parametrize("service", BUILT.values(), ids=[f"service {name}" for name in BUILT])
def test_builds_a_target_of_the_dockerfile(service):
    assert service["build"]["dockerfile"] == "deploy/Dockerfile"
    assert re.search(rf"^FROM \S+ AS {service['build']['target']}$", DOCKERFILE, re.MULTILINE)
    assert service["image"] == f"layerwire:{service['build']['target']}"


@pytest.mark.parametrize("service", PULLED.values(), ids=[f"service {name}" for name in PULLED])
def test_pulls_an_exact_version(service):
    assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])


@every_server
def test_agrees_with_the_image(server):
    of_image = dict(re.findall(r"\b(LAYERWIRE_\w+)=(\S+)", DOCKERFILE))
    assert server["volumes"] == [f"store:{of_image['LAYERWIRE_STORE']}"]
    ports = [of_image[name].rpartition(":")[2] for name in ("LAYERWIRE_LISTEN", "LAYERWIRE_METRICS")]
    assert server["ports"] == [f"127.0.0.1:{port}:{port}" for port in ports]
    assert server["healthcheck"]["test"][-1].endswith(f":{ports[0]}")


@every_server
def test_settings_are_the_servers(server, monkeypatch):
    names = {config.variable(name) for name in config.Settings.model_fields}
    assert server["environment"].keys() <= names
    for name, value in server["environment"].items():
        monkeypatch.setenv(name, value)
    assert config.load({}).log_format == "json"


def test_prometheus_finds_its_rules_and_the_server():
    command = SERVICES["prometheus"]["command"]
    (file,) = [word.partition("=")[2] for word in command if word.startswith("--config.file=")]
    assert in_tree("prometheus", file).is_file()
    for pattern in PROMETHEUS["rule_files"]:
        folder = in_tree("prometheus", str(Path(file).parent / pattern)).parent
        assert list(folder.glob(Path(pattern).name))
    (job,) = PROMETHEUS["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert target.split(":")[0] in reachable("prometheus", services_of_profile("cpu"))
    assert f"127.0.0.1:{target.split(':')[1]}:{target.split(':')[1]}" in SERVICES["layerwire"]["ports"]


def test_grafana_finds_its_datasource_and_dashboards():
    grafana = SERVICES["grafana"]
    folder = in_tree("grafana", "/etc/grafana/provisioning")
    (sources,) = [yaml.safe_load(file.read_text()) for file in folder.glob("datasources/*.y*ml")]
    (host,) = re.findall(r"^http://(\w+):9090$", sources["datasources"][0]["url"])
    assert host in reachable("grafana", services_of_profile("cpu"))
    (providers,) = [yaml.safe_load(file.read_text()) for file in folder.glob("dashboards/*.y*ml")]
    folder = providers["providers"][0]["options"]["path"]
    assert list(in_tree("grafana", folder).glob("*.json"))
    assert in_tree("grafana", grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).is_file()


def test_load_is_a_command_of_the_client():
    tini, subreaper, end, program, *words = SERVICES["load"]["entrypoint"]
    assert (tini, subreaper, end, program) == ("tini", "-s", "--", "layerwire")
    client = [sys.executable, "-m", "layerwire.cli", *words]
    assert "--kernel-size" in output_of([*client, *SERVICES["load"]["command"], "--help"])
    options = dict(zip(words[1:-1:2], words[2:-1:2], strict=True))
    assert words[-1] == "layerwire:50051"
    assert options["--metrics"] == "layerwire:9464"
    assert in_tree("load", options["--html"]).parent.is_dir()
