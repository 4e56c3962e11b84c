"""Messages that attacks are made of."""

from __future__ import annotations

import numpy as np

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import operators_pb2
from layerwire.wire.arrays import from_numpy
from tests.attacks.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, frame, header_block, message

FRAME_BYTES = 16384


def blow_up(output_bytes: int) -> pb.PoolRequest:
    """A call of some 30 bytes whose answer is as large as wanted."""
    spread = operators_pb2.AdaptiveAvgPool(spatial_dims=1, output_size=[output_bytes // 4])
    return pb.PoolRequest(
        operator=operators_pb2.PoolOperator(adaptive_avg_pool=spread), input=from_numpy(np.ones((1, 1, 1), np.float32))
    )


def relu(call_id: int, *values: float) -> pb.Call:
    """A call of relu."""
    call = pb.Call(id=call_id)
    call.activate.operator.relu.SetInParent()
    call.activate.input.CopyFrom(from_numpy(np.array(values, np.float32)))
    return call


def stream_request(*calls: pb.Call) -> bytes:
    """A message of Stream."""
    return pb.StreamRequest(calls=pb.Calls(calls=calls)).SerializeToString()


def requests(method: str, body: bytes, count: int) -> bytes:
    """HTTP/2 frames of so many unary requests."""
    block, data = header_block(method), message(body)
    return b"".join(
        frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, data)
        for stream in range(1, 2 * count, 2)
    )


def open_stream(*bodies: bytes) -> bytes:
    """HTTP/2 frames of a Stream RPC with these messages, left open."""
    data = b"".join(map(message, bodies))
    pieces = (data[start : start + FRAME_BYTES] for start in range(0, len(data), FRAME_BYTES))
    return frame(HEADERS, END_HEADERS, 1, header_block("Stream")) + b"".join(frame(DATA, 0, 1, it) for it in pieces)
