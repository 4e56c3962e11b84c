"""The server to compare with: bare grpc.aio that parses the same messages, calls torch for each, and answers.

It is what a careful engineer writes in an afternoon: asyncio, raw bytes rather than repeated floats, no batching.
"""

from __future__ import annotations

import asyncio
import sys
import warnings

import grpc
import numpy as np
import torch

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc, tensor_pb2

warnings.filterwarnings("ignore", message="The given buffer is not writable")
WEIGHT = torch.from_numpy(np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32))
BIAS = torch.from_numpy(np.random.default_rng(1).normal(size=512).astype(np.float32))


def _tensor(message: tensor_pb2.Tensor) -> torch.Tensor:
    return torch.frombuffer(message.data, dtype=torch.float32).view(tuple(message.shape))


def _message(tensor: torch.Tensor) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(
        dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=tuple(tensor.shape), data=tensor.numpy().tobytes()
    )


class Bare(layerwire_pb2_grpc.LayerwireServiceServicer):
    """Activate is relu, Linear has weights of its own."""

    async def Activate(self, request: pb.ActivateRequest, context: object) -> pb.ActivateResponse:
        with torch.inference_mode():
            return pb.ActivateResponse(output=_message(torch.relu(_tensor(request.input))))

    async def Linear(self, request: pb.LinearRequest, context: object) -> pb.LinearResponse:
        with torch.inference_mode():
            return pb.LinearResponse(output=_message(torch.nn.functional.linear(_tensor(request.input), WEIGHT, BIAS)))


async def main() -> None:
    """Serves on a free port, which it prints."""
    server = grpc.aio.server()
    layerwire_pb2_grpc.add_LayerwireServiceServicer_to_server(Bare(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready on 127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
