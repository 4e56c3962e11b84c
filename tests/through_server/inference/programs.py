"""Programs that the tests here put under a name, and what they give."""

from __future__ import annotations

import itertools

import grpc
import numpy as np

from layerwire.v1 import operators_pb2, program_pb2, store_pb2, store_pb2_grpc, tensor_pb2
from layerwire.wire import arrays, dtypes
from tests.served import PATIENCE_SECONDS

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
FEATURES, CLASSES = 6, 3
WEIGHT = np.arange(CLASSES * FEATURES, dtype=np.float32).reshape(CLASSES, FEATURES) / 10
BIAS = np.array([1, -2, 3], np.float32)


def _dtype(name: str) -> tensor_pb2.DataType:
    return tensor_pb2.DataType.Name(dtypes.DTYPES[name])


def _input(name: str, dtype: str, *shape: int) -> program_pb2.ProgramInput:
    return program_pb2.ProgramInput(name=name, dtype=_dtype(dtype), shape=shape)


def _node(name: str, inputs: dict[str, str], **operator: object) -> program_pb2.Node:
    fields = [program_pb2.NodeInput(field=field, value=value) for field, value in inputs.items()]
    return program_pb2.Node(name=name, inputs=fields, **operator)


def _transform(**operator: object) -> program_pb2.TransformOperator:
    return program_pb2.TransformOperator(**operator)


def _output(name: str, value: str) -> program_pb2.ProgramOutput:
    return program_pb2.ProgramOutput(name=name, value=value)


def identity(dtype: str) -> program_pb2.Program:
    """Gives [n, 2] back."""
    return program_pb2.Program(
        inputs=[_input("x", dtype, -1, 2)],
        nodes=[_node("same", {"input": "x"}, transform=_transform(identity=program_pb2.Identity()))],
        outputs=[_output("y", "same")],
    )


def linear(scale: float = 1.0) -> program_pb2.Program:
    """[n, 6] to [n, 3]: relu(x W^T + b), the weights in the program."""
    operator = operators_pb2.LinearOperator(linear=operators_pb2.Linear())
    return program_pb2.Program(
        inputs=[_input("x", "float32", -1, FEATURES)],
        constants=[
            program_pb2.Constant(name="weight", tensor=arrays.from_numpy(WEIGHT * np.float32(scale))),
            program_pb2.Constant(name="bias", tensor=arrays.from_numpy(BIAS)),
        ],
        nodes=[
            _node("scores", {"input": "x", "weight": "weight", "bias": "bias"}, linear=operator),
            _node("rectified", {"input": "scores"}, activate=operators_pb2.ActivateOperator(relu=operators_pb2.Relu())),
        ],
        outputs=[_output("y", "rectified")],
    )


def pair() -> program_pb2.Program:
    """Two inputs of [n, 4] to their sum and difference."""
    return program_pb2.Program(
        inputs=[_input("a", "float32", -1, 4), _input("b", "float32", -1, 4)],
        nodes=[
            _node("plus", {"input": "a", "other": "b"}, transform=_transform(add=program_pb2.Add())),
            _node("minus", {"input": "a", "other": "b"}, transform=_transform(subtract=program_pb2.Subtract())),
        ],
        outputs=[_output("sum", "plus"), _output("difference", "minus")],
    )


def square(nodes: int) -> program_pb2.Program:
    """[256, 256] times itself again and again: calls of it can't be joined, and take as long as there are nodes."""
    names = ["x", *(f"power{index}" for index in range(nodes))]
    matmul = program_pb2.Matmul()
    return program_pb2.Program(
        inputs=[_input("x", "float32", 256, 256)],
        nodes=[
            _node(name, {"input": before, "other": "x"}, transform=_transform(matmul=matmul))
            for before, name in itertools.pairwise(names)
        ],
        outputs=[_output("y", names[-1])],
    )


PROGRAMS: dict[str, list[program_pb2.Program]] = {
    "linear": [linear(), linear(2.0)],
    "pair": [pair()],
    "short": [square(1)],
    "long": [square(600)],
    **{f"identity-{dtype}": [identity(dtype)] for dtype in DTYPES},
}


def put(address: str) -> None:
    """Puts all programs in the server's store, several versions of some, the first one the default."""
    with grpc.insecure_channel(address) as channel:
        stub = store_pb2_grpc.StoreServiceStub(channel)  # type: ignore[no-untyped-call]
        for name, versions in PROGRAMS.items():
            for number, program in enumerate(versions):
                request = store_pb2.PutProgramRequest(name=name, program=program, keep_default_version=number > 0)
                stub.PutProgram(request, timeout=PATIENCE_SECONDS)


def expected(x: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """What `linear` gives."""
    return np.maximum(x @ (WEIGHT * np.float32(scale)).T + BIAS, 0)
