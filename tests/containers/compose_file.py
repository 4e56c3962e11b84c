"""docker-compose.yml as data, with the defaults of its variables filled in.

It doesn't judge; the tests beside it do.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
TEXT = FILE.read_text()
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def with_defaults(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: with_defaults(each) for name, each in value.items()}
    if isinstance(value, list):
        return [with_defaults(each) for each in value]
    return VARIABLE.sub(lambda match: match[2] or "", value) if isinstance(value, str) else value


COMPOSE = with_defaults(yaml.safe_load(TEXT))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVERS = ("layerwire", "layerwire-gpu")

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=[f"service {name}" for name in SERVICES])
every_server = pytest.mark.parametrize("server", [SERVICES[name] for name in SERVERS], ids=["on CPU", "on GPUs"])


def services_of_profile(profile: str) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in SERVICES.items() if profile in service.get("profiles", [profile])}


def names_on(network: str, services: dict[str, dict[str, Any]]) -> list[str]:
    """What those services are called on that network, once for each that answers to it."""
    names = []
    for name, service in services.items():
        networks = service["networks"]
        if network in networks:
            aliases = networks[network]["aliases"] if isinstance(networks, dict) else []
            names += {name, *aliases}
    return names


def reachable(asker: str, services: dict[str, dict[str, Any]]) -> list[str]:
    """The names that one service may call, once for each that answers to it."""
    return [name for network in SERVICES[asker]["networks"] for name in names_on(network, services)]


def output_of(command: list[str], **options: Any) -> str:
    """What a command prints that must succeed."""
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500, **options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
