"""A Prometheus of one's own: the project's configuration and rules on a server's /metrics, in a hurry.

It knows Prometheus' flags and HTTP interface; nothing of what is asked for.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.monitoring.deploy_files import PROMETHEUS

_START_SECONDS = 20.0
_LISTENING = re.compile(r'msg="Listening on" address=(\S+)')
_READY = "ready to receive web requests"


class Pace(NamedTuple):
    """How much faster than deployed: what is scraped every `scrape`, with rates over `window`."""

    scrape: str = "1s"  # a page may take half a second: a busy worker is waited for
    window: str = "8s"
    patience: str = "1s"  # what alerts wait


class Series(NamedTuple):
    """One series of an answer, with times in seconds since the epoch."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


class Prometheus:
    """One that runs."""

    def __init__(self, address: str) -> None:
        self.address = address

    def query(self, expression: str) -> list[Series]:
        """The value of an expression now: series of one point each."""
        return [_series(each["metric"], [each["value"]]) for each in self._ask("query", query=expression)["result"]]

    def query_range(self, expression: str, start: float, end: float, step_seconds: float) -> list[Series]:
        """The values of an expression over time."""
        answer = self._ask("query_range", query=expression, start=start, end=end, step=step_seconds)
        return [_series(each["metric"], each["values"]) for each in answer["result"]]

    def rules(self) -> list[dict[str, Any]]:
        """All rules, with their health."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def _ask(self, what: str, **values: object) -> dict[str, Any]:
        form = urllib.parse.urlencode(values).encode() if values else None
        try:
            with urllib.request.urlopen(f"http://{self.address}/api/v1/{what}", form, timeout=30) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{values}: {error.read().decode()}") from None
        return data


def _series(labels: dict[str, str], points: list[tuple[float, str]]) -> Series:
    return Series(labels, [(moment, float(value)) for moment, value in points])


def configure(directory: Path, target: str, pace: Pace) -> Path:
    """Writes the project's configuration and rules with another target and shorter times; returns where."""
    text = (PROMETHEUS / "prometheus.yml").read_text().replace("layerwire:9464", target)
    path = directory / "prometheus.yml"
    path.write_text(re.sub(r"(scrape_interval|scrape_timeout|evaluation_interval): \w+", rf"\1: {pace.scrape}", text))
    (directory / "rules").mkdir()
    for rules in (PROMETHEUS / "rules").glob("*.yml"):
        text = re.sub(r"\[\d+m\]", f"[{pace.window}]", rules.read_text())
        (directory / "rules" / rules.name).write_text(re.sub(r"for: \d+m", f"for: {pace.patience}", text))
    return path


@contextmanager
def start_prometheus(directory: Path, target: str, pace: Pace | None = None) -> Iterator[Prometheus]:
    """A Prometheus that scrapes `target`, host:port, for as long as the context lasts."""
    configuration, log = configure(directory, target, pace or Pace()), directory / "prometheus.log"
    command = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={directory / 'data'}"]
    with log.open("wb") as errors:
        process = subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], stdout=errors, stderr=errors)
        try:
            yield Prometheus(_address(process, log))
        finally:
            process.terminate()
            process.wait(20)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address that it tells in its log once it is ready."""
    patience = time.monotonic() + _START_SECONDS
    while time.monotonic() < patience and process.poll() is None:
        text = log.read_text()
        address = _LISTENING.search(text)
        if address and _READY in text:
            return address[1]
        time.sleep(0.05)  # a file has no event that tells it has grown
    raise AssertionError(f"prometheus did not start:\n{log.read_text()}")
