"""What deploy/ holds for monitoring, read: rules, alerts, the dashboard's panels and their queries.

It knows the files' formats; nothing of a server that runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
GRAFANA = DEPLOY / "grafana"
RUNBOOK = DEPLOY / "RUNBOOK.md"


class Query(NamedTuple):
    """One query of a panel, with variables that Grafana would fill in."""

    panel: str
    reference: str
    expression: str
    legend: str

    def filled_in(self, rate_interval: str, instance: str = ".+") -> str:
        """What Grafana would send."""
        return self.expression.replace("$__rate_interval", rate_interval).replace("$instance", instance)


def rules() -> Iterator[dict[str, Any]]:
    """Every rule, recording or alerting."""
    for path in sorted((PROMETHEUS / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def record_names() -> list[str]:
    """Names of the recording rules."""
    return [rule["record"] for rule in rules() if "record" in rule]


def alerts() -> dict[str, dict[str, Any]]:
    """Alerting rules by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def rule_tests() -> list[Path]:
    """The files of promtool's unit tests."""
    return sorted((PROMETHEUS / "tests").glob("*.yml"))


def dashboard() -> dict[str, Any]:
    """The dashboard as it is in its file."""
    text = (GRAFANA / "dashboards/layerwire.json").read_text()
    contents: dict[str, Any] = json.loads(text)
    return contents


def queries() -> list[Query]:
    """Every query of every panel."""
    return [
        Query(panel["title"], target["refId"], target["expr"], target["legendFormat"])
        for panel in dashboard()["panels"]
        for target in panel["targets"]
    ]


def legend(template: str, labels: dict[str, str]) -> str:
    """A series' name: Grafana's `{{label}}` filled in."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), template).strip()
