"""The files that one call passes, from its caller through gateway and worker and back, as ARCHITECTURE.md says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_FILES = 25

# Files that do something to the call, in the order in which it reaches them.
PATH = [
    "layerwire/calls/max_pool.py",
    "layerwire/transport/sessions.py",
    "layerwire/transport/call.py",
    "layerwire/transport/engine.py",
    "layerwire/transport/admission.py",
    "layerwire/transport/connection.py",
    "layerwire/wire/framing.py",
    "layerwire_server/gateway/stream.py",
    "layerwire_server/gateway/admission.py",
    "layerwire_server/gateway/router.py",
    "layerwire_server/gateway/workers.py",
    "layerwire_server/link.py",
    "layerwire_server/worker/loop.py",
    "layerwire_server/worker/answering/reply.py",
    "layerwire_server/worker/reading/decoder.py",
    "layerwire_server/worker/reading/requests.py",
    "layerwire_server/worker/reading/layouts.py",
    "layerwire_server/worker/reading/template.py",
    "layerwire_server/worker/lanes/lanes.py",
    "layerwire_server/worker/dispatcher.py",
    "layerwire_server/worker/lanes/lane.py",
    "layerwire_server/worker/running/execution.py",
    "layerwire_server/worker/running/batch.py",
    "layerwire_server/worker/running/device.py",
    "layerwire_server/operators/pool.py",
]
# What those use, which decides nothing about a call: values, rules and tools that know nothing of where it goes.
TOOLS = {
    "layerwire/calls/arguments.py",  # checks of single arguments
    "layerwire/transport/background.py",  # whether the engine's thread is of this process
    "layerwire/transport/deadlines.py",  # the line of deadlines that each call adds to
    "layerwire/transport/frame_interval.py",  # when frames wait for company
    "layerwire/transport/retry.py",  # the budget that each call adds to
    "layerwire/transport/templates.py",  # what the call and its answer have in common with others
    "layerwire/wire/arrays.py",
    "layerwire/wire/protobuf.py",
    "layerwire_server/gateway/completions.py",  # what gRPC has done
    "layerwire_server/gateway/message_bytes.py",  # counters
    "layerwire_server/gateway/pending.py",  # the frame as the router keeps it
    "layerwire_server/gateway/quarantine.py",  # empty but after deaths
    "layerwire_server/gateway/server_call.py",  # an RPC of gRPC's
    "layerwire_server/gateway/stream_messages.py",  # answers that come together are one message
    "layerwire_server/metrics.py",
    "layerwire_server/operators/spatial.py",
    "layerwire_server/worker/call.py",  # calls that are alike, as one value
    "layerwire_server/worker/lanes/fair_shares.py",
    "layerwire_server/worker/lanes/pace.py",
    "layerwire_server/worker/lanes/waiting_work.py",
    "layerwire_server/worker/measures.py",
    "layerwire_server/worker/reading/parse_limits.py",  # looks at large messages only
    "layerwire_server/worker/tensors.py",
}

SCRIPT = """
import asyncio, json, math, os, sys, tempfile, threading
from pathlib import Path

import numpy as np

import layerwire, layerwire_server
from layerwire_server.gateway import workers
from layerwire_server.link import Link
from layerwire_server.metrics import Metrics
from layerwire_server.worker import dispatcher
from layerwire_server.worker.running.device import open_device
from tests.gateway.conftest import Rig
from tests.worker.conftest import worker_loop

files = {}  # in the order of the first call
recording = threading.Event()
roots = [os.path.dirname(package.__path__[0]) + "/" for package in (layerwire, layerwire_server)]

def note(frame, event, _):
    if event == "call" and recording.is_set():
        name = frame.f_code.co_filename
        for root in roots:
            if name.startswith(root):
                files.setdefault(name.removeprefix(root))

async def settle():
    for _ in range(200):  # what the calls before leave to be done
        await asyncio.sleep(0)

def call(address, loop):
    sys.setprofile(note)
    with layerwire.Client(address) as lw:
        x = np.ones((1, 1, 4, 4), np.float32)
        for _ in range(2):  # makes the connection, plan and templates
            lw.max_pool2d(x, 2)
        asyncio.run_coroutine_threadsafe(settle(), loop).result()
        recording.set()
        lw.max_pool2d(x, 2)
        recording.clear()

async def main():
    workers._TICK_SECONDS = 3600.0  # canaries are no part of a call
    dispatcher.INLINE_SECONDS = math.inf  # on a busy machine the batch would go to another thread
    with tempfile.TemporaryDirectory() as name:
        rig = Rig(Path(name), 1, {"canary_interval_seconds": "60"})
        loop, _ = worker_loop(open_device("cpu", 1), Metrics(), Path(name) / "worker")
        await asyncio.get_running_loop().create_unix_server(lambda: Link(loop, 1 << 27), rig.child.worker_path(0))
        await rig.start(False)
        await rig.wait_for_health("", True)
        sys.setprofile(note)
        await asyncio.to_thread(call, rig.address, asyncio.get_running_loop())
        sys.setprofile(None)
    print(json.dumps(list(files)), flush=True)
    os._exit(0)  # nothing here is worth an orderly end

threading.setprofile(note)  # for the client's own thread
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def files():
    run = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_a_call_passes_these_files(files):
    assert [file for file in files if file not in TOOLS] == PATH
    assert set(files) - set(PATH) == TOOLS


def test_they_are_few():
    assert len(PATH) <= MOST_FILES


def test_the_architecture_names_them_in_order():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    section = text.partition("## The path of one call")[2].partition("\n\n**")[0]
    rows = re.findall(r"^\| \d+ \| `([^`]+)` \|", section, re.MULTILINE)
    assert rows == PATH


@pytest.mark.parametrize("file", PATH)
def test_the_first_line_says_what_it_does_to_a_call(file):
    folder = "client" if file.startswith("layerwire/") else "server"
    line = (ROOT / folder / file).read_text().partition("\n")[0]
    assert re.search(r"\b(calls?|requests?|batch(es)?|answers?|frames?|results?)\b", line.lower()), line
