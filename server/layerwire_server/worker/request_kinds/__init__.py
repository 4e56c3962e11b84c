"""THE table of the kinds of request: what is done to a request depends on its kind here, and nowhere else.

Four classes: an operator's, a program's, a gradient's, and a model's in the Open Inference Protocol. Each family of
operators is a kind of its own.
"""

from __future__ import annotations

from layerwire.v1 import layerwire_pb2
from layerwire_server.link import Family
from layerwire_server.operators import OPERATORS
from layerwire_server.worker.request_kinds.differentiate import DifferentiateKind
from layerwire_server.worker.request_kinds.infer import InferKind
from layerwire_server.worker.request_kinds.kind import NativeKind, RequestKind
from layerwire_server.worker.request_kinds.operator import OperatorKind
from layerwire_server.worker.request_kinds.run import RunKind

_MESSAGES = {
    "pool": (layerwire_pb2.PoolRequest, layerwire_pb2.PoolResponse),
    "unpool": (layerwire_pb2.UnpoolRequest, layerwire_pb2.UnpoolResponse),
    "linear": (layerwire_pb2.LinearRequest, layerwire_pb2.LinearResponse),
    "activate": (layerwire_pb2.ActivateRequest, layerwire_pb2.ActivateResponse),
    "convolve": (layerwire_pb2.ConvolveRequest, layerwire_pb2.ConvolveResponse),
    "normalize": (layerwire_pb2.NormalizeRequest, layerwire_pb2.NormalizeResponse),
}
_FORWARD: dict[str, NativeKind] = {
    **{family: OperatorKind(family, *_MESSAGES[family]) for family in OPERATORS},
    "run": RunKind(),
}

# By their fields in Call, which are the families of their operators.
NATIVE_KINDS: dict[str, NativeKind] = {**_FORWARD, "differentiate": DifferentiateKind(_FORWARD)}
KINDS: dict[str, RequestKind] = {**NATIVE_KINDS, "infer": InferKind()}
KINDS_BY_RPC: dict[Family, RequestKind] = {Family[family.upper()]: kind for family, kind in KINDS.items()}
