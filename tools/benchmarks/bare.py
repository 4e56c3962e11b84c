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
from torch.nn import functional

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc, tensor_pb2

warnings.filterwarnings("ignore", message="The given buffer is not writable")
WEIGHT = torch.from_numpy(np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32))
BIAS = torch.from_numpy(np.random.default_rng(1).normal(size=512).astype(np.float32))
IMAGE = torch.from_numpy(np.random.default_rng(2).normal(size=(1, 3, 32, 32)).astype(np.float32))


class LeNet(torch.nn.Module):
    """LeCun et al. 1998, figure 2, with ReLU and max pooling. Shape: [N, 3, 32, 32] -> [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 6, 5)
        self.conv2 = torch.nn.Conv2d(6, 16, 5)
        self.fc1 = torch.nn.Linear(400, 120)
        self.fc2 = torch.nn.Linear(120, 84)
        self.fc3 = torch.nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(torch.flatten(x, 1)))
        logits: torch.Tensor = self.fc3(functional.relu(self.fc2(x)))
        return logits


def network() -> LeNet:
    """The same network in every process."""
    torch.manual_seed(3)
    return LeNet().eval()


def _tensor(message: tensor_pb2.Tensor) -> torch.Tensor:
    return torch.frombuffer(message.data, dtype=torch.float32).view(tuple(message.shape))


def _message(tensor: torch.Tensor) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(
        dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=tuple(tensor.shape), data=tensor.numpy().tobytes()
    )


class Bare(layerwire_pb2_grpc.LayerwireServiceServicer):
    """What the benchmarks send: relu, max_pool2d, conv2d, linear with weights of its own, and one network."""

    async def Activate(self, request: pb.ActivateRequest, context: object) -> pb.ActivateResponse:
        with torch.inference_mode():
            return pb.ActivateResponse(output=_message(torch.relu(_tensor(request.input))))

    def __init__(self) -> None:
        self._network = network()

    async def Pool(self, request: pb.PoolRequest, context: object) -> pb.PoolResponse:
        pool = request.operator.max_pool
        with torch.inference_mode():
            output = functional.max_pool2d(_tensor(request.input), *pool.kernel_size)
            return pb.PoolResponse(output=_message(output))

    async def Convolve(self, request: pb.ConvolveRequest, context: object) -> pb.ConvolveResponse:
        padding = tuple(request.operator.conv.padding)
        with torch.inference_mode():
            output = functional.conv2d(_tensor(request.input), _tensor(request.weight), padding=padding)
            return pb.ConvolveResponse(output=_message(output))

    async def Run(self, request: pb.RunRequest, context: object) -> pb.RunResponse:
        with torch.inference_mode():
            return pb.RunResponse(outputs={"output": _message(self._network(_tensor(request.inputs["x"])))})

    async def Linear(self, request: pb.LinearRequest, context: object) -> pb.LinearResponse:
        with torch.inference_mode():
            return pb.LinearResponse(output=_message(torch.nn.functional.linear(_tensor(request.input), WEIGHT, BIAS)))


async def main() -> None:
    """Serves on a free port, which it prints."""
    sizes = ("grpc.max_receive_message_length", "grpc.max_send_message_length")
    server = grpc.aio.server(options=[(name, 64 << 20) for name in sizes])
    layerwire_pb2_grpc.add_LayerwireServiceServicer_to_server(Bare(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready on 127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
