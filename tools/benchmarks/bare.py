"""The server to compare with: bare grpc.aio that parses the same messages, calls torch for each, and answers.

It is what a careful engineer writes in an afternoon: asyncio, raw bytes rather than repeated floats, no batching.
"""

from __future__ import annotations

import asyncio
import sys
import warnings

import grpc
import torch
from torch.nn import functional

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc, tensor_pb2
from tools.benchmarks import networks

warnings.filterwarnings("ignore", message="The given buffer is not writable")
_DTYPES = {torch.float32: tensor_pb2.DATA_TYPE_FLOAT32, torch.int64: tensor_pb2.DATA_TYPE_INT64}


def _tensor(message: tensor_pb2.Tensor) -> torch.Tensor:
    return torch.frombuffer(message.data, dtype=torch.float32).view(tuple(message.shape))


def _message(tensor: torch.Tensor) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(dtype=_DTYPES[tensor.dtype], shape=tuple(tensor.shape), data=tensor.numpy().tobytes())


class Bare(layerwire_pb2_grpc.LayerwireServiceServicer):
    """What the benchmarks send: relu, max_pool2d, conv2d, linear with weights of its own, and two networks."""

    def __init__(self) -> None:
        self._networks = {"lenet": networks.lenet(), "small-cnn": networks.small_cnn()}

    async def Activate(self, request: pb.ActivateRequest, context: object) -> pb.ActivateResponse:
        with torch.inference_mode():
            return pb.ActivateResponse(output=_message(torch.relu(_tensor(request.input))))

    async def Pool(self, request: pb.PoolRequest, context: object) -> pb.PoolResponse:
        pool = request.operator.max_pool
        with torch.inference_mode():
            x, size = _tensor(request.input), tuple(pool.kernel_size)
            if not pool.return_indices:
                return pb.PoolResponse(output=_message(functional.max_pool2d(x, size)))
            output, indices = functional.max_pool2d(x, size, return_indices=True)
            return pb.PoolResponse(output=_message(output), indices=_message(indices))

    async def Convolve(self, request: pb.ConvolveRequest, context: object) -> pb.ConvolveResponse:
        padding = tuple(request.operator.conv.padding)
        with torch.inference_mode():
            output = functional.conv2d(_tensor(request.input), _tensor(request.weight), padding=padding)
            return pb.ConvolveResponse(output=_message(output))

    async def Run(self, request: pb.RunRequest, context: object) -> pb.RunResponse:
        network = self._networks[request.name]
        with torch.inference_mode():
            (x,) = request.inputs.values()
            return pb.RunResponse(outputs={"output": _message(network(_tensor(x)))})

    async def Linear(self, request: pb.LinearRequest, context: object) -> pb.LinearResponse:
        with torch.inference_mode():
            return pb.LinearResponse(
                output=_message(functional.linear(_tensor(request.input), networks.WEIGHT, networks.BIAS))
            )


async def main() -> None:
    """Serves on a free port, which it prints."""
    torch.set_num_threads(1)  # beside a client on the same cores, more of them spin while they wait for each other
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
