"""The log: whose lines are in it, and what a line looks like."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SAY = """
import logging, sys
from layerwire_server.child import log
own = log.start(sys.argv[1], "json", process="p")
for name in ("layerwire_server.worker.loop", "grpc._cython.cygrpc", "asyncio"):
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger(name).log(level, "said")
own.info("worker is up", worker=0)
"""
OWN, THEIRS, NAMES = "layerwire_server.worker.loop", ("grpc._cython.cygrpc", "asyncio"), ("debug", "info", "warning")


def lines(level):
    done = subprocess.run([sys.executable, "-c", SAY, level], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize("level", [*NAMES, "error"])
def test_the_level_is_for_our_own_lines_and_others_speak_from_warning_on(level):
    records = [(line["logger"], line["level"]) for line in lines(level) if line["message"] == "said"]
    order = [*NAMES, "error"]
    assert [level_name for name, level_name in records if name == OWN] == order[order.index(level) :]
    for other in THEIRS:
        assert [level_name for name, level_name in records if name == other] == order[max(order.index(level), 2) :]


def test_fields_stand_beside_the_message():
    line = lines("info")[-1]
    del line["time"]
    assert line == {"level": "info", "message": "worker is up", "process": "p", "worker": 0}
