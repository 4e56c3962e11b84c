"""Starts the peers, each with one function, in the environment that `make peers` makes; and asks them.

It knows their command lines and protocols; neither load nor what answers should be.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from layerwire.inference_v2 import open_inference_pb2
from layerwire_bench.workload import Arrays
from tools.benchmarks.driver import GRPC, Post, grpc_body
from tools.benchmarks.peers.functions import FUNCTIONS
from tools.benchmarks.servers import ROOT

Array: TypeAlias = npt.NDArray[np.float32]

FOLDER = Path(os.environ.get("PEERS_FOLDER", ROOT / ".peers"))
PYTHON = FOLDER / "bin" / "python"
START_SECONDS, END_SECONDS = 90.0, 3.0
LARGE_BYTES = 1 << 20  # from which on Triton is faster by HTTP/1.1 than by gRPC, whose frames are small
BATCH = 32
# What mosec waits for a batch to fill; its least. By 3 ms it was slower at 8 callers and no faster at 32.
WAIT_MS = 1
MOSEC, MOSEC_SINGLE, TRITON = "mosec, batching 32", "mosec, no batching", "Triton, Python backend, dynamic batching"
_LENGTH = "Inference-Header-Content-Length"
_MODEL = """import sys

sys.path[:0] = {paths!r}
from tools.benchmarks.peers import triton_model


class TritonPythonModel(triton_model.Model):
    name = {name!r}
"""


@dataclass(frozen=True)
class Peer:
    """A peer that serves.

    Attributes:
        post: what h2load is to send.
        pid: of its first process.
        question: the same call by HTTP/1.1, for those who look at the answer.
    """

    name: str
    post: Post
    pid: int
    question: Post

    def ask(self, expected: Arrays) -> Arrays:
        """The outputs of one call on a connection of its own, in the order, shapes and dtypes of what is expected.

        Raises:
            RuntimeError: the answer is an error.
        """
        address, _, path = self.question.url.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(address, timeout=30)
        try:
            connection.request("POST", f"/{path}", self.question.body.read_bytes(), dict(self.question.headers))
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise RuntimeError(f"{self.name}: status {answer.status}: {body[:200]!r}")
        return _arrays(body[int(answer.headers.get(_LENGTH, 0)) :], expected)


def _arrays(payload: bytes, expected: Arrays) -> Arrays:
    arrays, start = {}, 0
    for name, like in expected.items():
        arrays[name] = np.frombuffer(payload, like.dtype, like.size, start).reshape(like.shape)
        start += like.nbytes
    return arrays


def versions() -> Mapping[str, str]:
    """The peers that are there, with their versions."""
    if not PYTHON.exists():
        return {}
    words = "import importlib.metadata as m; print(m.version('mosec'), m.version('nvidia-pytriton'))"
    run = subprocess.run([str(PYTHON), "-c", words], capture_output=True, text=True)
    if run.returncode != 0:
        return {}
    mosec, triton = run.stdout.split()
    return {"mosec": mosec, "nvidia-pytriton": triton}


@contextlib.contextmanager
def servers(function: str, x: Array, folder: Path) -> Iterator[list[Peer]]:
    """All peers with a function, while they run; `x` is the input of the calls, `folder` a scratch one."""
    body = folder / "mosec.body"
    body.write_bytes(x.tobytes())
    with contextlib.ExitStack() as stack:
        starts = [
            stack.enter_context(_mosec(MOSEC, function, BATCH, body)),
            stack.enter_context(_mosec(MOSEC_SINGLE, function, 1, body)),
            stack.enter_context(_triton(function, x, folder)),
        ]
        peers = []
        for peer in starts:
            if _answers(peer):
                peers.append(peer)
            else:
                sys.stderr.write(f"{peer.name} doesn't serve {function} here and is left out\n")
        yield peers


def _answers(peer: Peer) -> bool:
    """Whether it answers within its time to start."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and Path(f"/proc/{peer.pid}").exists():
        with contextlib.suppress(OSError, RuntimeError, http.client.HTTPException):
            peer.ask({})
            return True
        time.sleep(0.2)
    return False


@contextlib.contextmanager
def _process(command: list[str], variables: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | variables, stdout=errors, stderr=errors, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it started too
        process.wait()


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def _mosec(name: str, function: str, batch: int, body: Path) -> Iterator[Peer]:
    port = _port()
    command = [str(PYTHON), "-m", "tools.benchmarks.peers.mosec_server"]
    variables = {
        "PYTHONPATH": str(ROOT), "PEER_FUNCTION": function, "PEER_BATCH": str(batch), "PEER_WAIT_MS": str(WAIT_MS),
        "MOSEC_ADDRESS": "127.0.0.1", "MOSEC_PORT": str(port), "MOSEC_LOG_LEVEL": "warning",
        "MOSEC_TIMEOUT": "30000", "MOSEC_MAX_REQUEST_SIZE": str(1 << 28),
    }  # fmt: skip
    with _process(command, variables, body.with_name(f"mosec-{batch}.log")) as process:
        post = Post(f"http://127.0.0.1:{port}/inference", body, http1=True)
        yield Peer(name, post, process.pid, post)


def _config(name: str) -> str:
    """config.pbtxt of a function."""
    function = FUNCTIONS[name]
    outputs = ", ".join(
        f'{{ name: "y{number}" data_type: TYPE_{dtype} dims: {list(shape)} }}'
        for number, (dtype, shape) in enumerate(function.outputs)
    )
    return (
        f'name: "{name}" backend: "python" max_batch_size: {BATCH}\n'
        f'input [ {{ name: "x" data_type: TYPE_FP32 dims: {list(function.shape)} }} ]\n'
        f"output [ {outputs} ]\n"
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
        "dynamic_batching { max_queue_delay_microseconds: 0 }\n"
    )


def _repository(function: str, folder: Path) -> tuple[Path, Path]:
    """Triton's folders of models and of backends: pytriton's wheel has the backend's parts in several places."""
    (site,) = FOLDER.glob("lib/python3*/site-packages")
    triton, version = site / "pytriton/tritonserver", site.parent.name.removeprefix("python")
    model, backend = folder / "models" / function, folder / "backends" / "python"
    (model / "1").mkdir(parents=True)
    backend.mkdir(parents=True)
    for file in (*(triton / "backends/python").iterdir(),
                 triton / "python_backend_stubs" / version / "triton_python_backend_stub"):  # fmt: skip
        (backend / file.name).symlink_to(file)
    paths = [str(ROOT), str(site), str(backend)]
    (model / "1" / "model.py").write_text(_MODEL.format(paths=paths, name=function))
    (model / "config.pbtxt").write_text(_config(function))
    return model.parent, backend.parent


@contextlib.contextmanager
def _triton(function: str, x: Array, folder: Path) -> Iterator[Peer]:
    http_port, grpc_port = _port(), _port()
    models, backends = _repository(function, folder)
    (site,) = FOLDER.glob("lib/python3*/site-packages")
    command = [
        str(site / "pytriton/tritonserver/bin/tritonserver"), "--model-repository", str(models),
        "--backend-directory", str(backends), "--allow-metrics", "false", "--http-address", "127.0.0.1",
        "--http-port", str(http_port), "--grpc-address", "127.0.0.1", "--grpc-port", str(grpc_port),
    ]  # fmt: skip
    question = _http_post(f"http://127.0.0.1:{http_port}/v2/models/{function}/infer", x, folder / "triton.http")
    post = question if x.nbytes > LARGE_BYTES else _grpc_post(f"127.0.0.1:{grpc_port}", function, x, folder)
    with _process(command, {}, folder / "triton.log") as process:
        yield Peer(TRITON, post, process.pid, question)


def _http_post(url: str, x: Array, body: Path) -> Post:
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    body.write_bytes(head + x.tobytes())
    return Post(url, body, http1=True, headers={_LENGTH: str(len(head))})


def _grpc_post(address: str, function: str, x: Array, folder: Path) -> Post:
    message = open_inference_pb2.ModelInferRequest(model_name=function, raw_input_contents=[x.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=x.shape)
    body = folder / "triton.grpc"
    body.write_bytes(grpc_body(message.SerializeToString()))
    return Post(f"http://{address}/inference.GRPCInferenceService/ModelInfer", body, http1=False, headers=GRPC)
