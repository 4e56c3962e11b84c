"""The files of the SDK that one call passes: who follows a call reads these and no others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATH = {
    "calls/max_pool.py",  # arguments -> Request
    "calls/arguments.py",
    "transport/sessions.py",  # caller's thread -> engine's loop, and back
    "transport/background.py",  # whether that loop is of this process
    "transport/call.py",  # Request -> Call, answer -> value
    "wire/arrays.py",
    "wire/framing.py",
    "wire/protobuf.py",
    "transport/engine.py",  # Call -> connection, answer -> its caller
    "transport/admission.py",
    "transport/retry.py",  # what a call adds to the budget of retries
    "transport/connection.py",  # frames
}
SCRIPT = """
import json, sys, threading, time
import numpy as np
import layerwire
from layerwire.v1 import layerwire_pb2 as pb
from tests.transport.fake_server import FakeServer

files = set()
folder = layerwire.__path__[0] + "/"

def note(frame, event, _):
    if event == "call" and frame.f_code.co_filename.startswith(folder):
        files.add(frame.f_code.co_filename.removeprefix(folder))

def answer(stream, call):
    stream.answer(id=call.id, pool=pb.PoolResponse(output=call.pool.input))

threading.setprofile(note)  # for the threads to come: the client's own
with FakeServer(answer) as server, layerwire.Client(server.address) as lw:
    x = np.ones((1, 1, 4, 4), np.float32)
    lw.max_pool2d(x, 2)  # makes the connection and the template
    files.clear()
    sys.setprofile(note)
    lw.max_pool2d(x, 2)
    sys.setprofile(None)
    print(json.dumps(sorted(files)))
"""


def test_a_call_passes_these_files():
    run = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert set(json.loads(run.stdout)) == PATH
