"""Extreme values over every argument of every operator, through the server: none dies, is slow or INTERNAL."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc, operators_pb2
from layerwire.wire import arrays
from tests.operator_cases import Case, cases
from tests.operators.local import message_of, request_of
from tests.through_server.conftest import unary

INTEGERS = [0, 1, -1, -2, 7, 1000, 2**31 - 1, 2**31, 2**32 + 3, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63)]
NUMBERS = [0.0, -0.0, 1.0, -1.0, 1e-320, 1e300, -1e300, math.nan, math.inf, -math.inf, 2.0**31, 2.0**63]
IN_FLIGHT = 16
ALLOWED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}
_LARGEST = {
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
}


def one_case_each() -> list[Case]:
    """A small case of every function, the first of the table."""
    firsts: dict[str, Case] = {}
    for case in cases():
        firsts.setdefault(case.function, case)
    return list(firsts.values())


def values_for(field: FieldDescriptor) -> list[Any]:
    """Extreme values that fit a field's type."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        return [False, True]
    if field.type == FieldDescriptor.TYPE_STRING:
        return ["", "nonsense", "x" * 10_000]
    if field.type == FieldDescriptor.TYPE_ENUM:
        return [0, 1, 2, 99, -1, 2**31 - 1]
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return NUMBERS
    least, most = _LARGEST[field.type]
    return [value for value in INTEGERS if least <= value <= most]


def variants(message: pb.Call) -> Iterator[tuple[str, pb.Call]]:
    """The call with one argument changed at a time: parameters, options, shapes, dtypes."""
    family = message.WhichOneof("request")
    assert family is not None
    name = getattr(message, family).operator.WhichOneof("operator")
    places = {"operator": lambda call: getattr(getattr(call, family).operator, name)}
    for field in getattr(message, family).DESCRIPTOR.fields:
        if field.name not in ("options", "operator") and getattr(message, family).HasField(field.name):
            places[field.name] = lambda call, tensor=field.name: getattr(getattr(call, family), tensor)
    places["options"] = lambda call: getattr(call, family).options
    for place, locate in places.items():
        for field in locate(message).DESCRIPTOR.fields:
            if field.type == FieldDescriptor.TYPE_BYTES or (place != "operator" and field.name == "name"):
                continue
            yield from _changed(message, locate, place, field)


def _changed(message: pb.Call, locate: Any, place: str, field: FieldDescriptor) -> Iterator[tuple[str, pb.Call]]:
    for value in values_for(field):
        for shape in ("one", "last", "many") if field.is_repeated else ("set",):
            call = pb.Call()
            call.CopyFrom(message)
            target = locate(call)
            if shape == "set":
                setattr(target, field.name, value)
            else:
                old = list(getattr(target, field.name))
                new = {"one": [value], "last": [*old[:-1], value], "many": [value] * max(len(old), 2)}[shape]
                del getattr(target, field.name)[:]
                getattr(target, field.name).extend(new)
            yield f"{place}.{field.name}={value} ({shape})", call


SMALL = pb.Call(activate=pb.ActivateRequest(operator=operators_pb2.ActivateOperator(relu=operators_pb2.Relu())))
SMALL.activate.input.CopyFrom(arrays.from_numpy(np.ones(1, np.float32)))


def is_slow(stub: layerwire_pb2_grpc.LayerwireServiceStub, call: pb.Call) -> bool:
    """Whether a call takes long by itself: a busy machine is slow for the smallest call too, made beside it."""

    def seconds(message: pb.Call) -> float:
        start = time.monotonic()
        unary(stub, message).code()
        return time.monotonic() - start

    return all(seconds(call) > max(1, 10 * seconds(SMALL)) for _ in range(3))


def complaints(
    stub: layerwire_pb2_grpc.LayerwireServiceStub, calls: Sequence[tuple[str, pb.Call]]
) -> list[tuple[str, str, str]]:
    """What is wrong with the answers of calls, some of which are in flight at once: their status, or their time."""
    wrong = []
    for first in range(0, len(calls), IN_FLIGHT):
        some = calls[first : first + IN_FLIGHT]
        start = time.monotonic()
        futures: list[Any] = [unary(stub, call) for _, call in some]
        codes = [future.code().name for future in futures]
        late = time.monotonic() - start > 1
        for (what, call), future, code in zip(some, futures, codes, strict=True):
            # DEADLINE_EXCEEDED is right where the variant asks for next to no time
            allowed = ALLOWED | ({"DEADLINE_EXCEEDED"} if "timeout_seconds" in what else set())
            if code not in allowed:
                wrong.append((what, code, future.details()))
            elif late and is_slow(stub, call):
                wrong.append((what, code, "too slow"))
    return wrong


@pytest.mark.parametrize("case", one_case_each(), ids=lambda case: case.function)
def test_extremes_are_answered_at_once(stub: layerwire_pb2_grpc.LayerwireServiceStub, case: Case) -> None:
    calls = list(variants(message_of(request_of(case))))
    random.Random(case.id).shuffle(calls)
    assert len(calls) > 40
    assert complaints(stub, calls) == []


def some_at_once(count: int) -> Iterator[tuple[str, pb.Call]]:
    """Seeded pairs and triples of changes, since one check may hide behind another."""
    chance = random.Random(20261121)
    messages = [message_of(request_of(case)) for case in one_case_each()]
    for _ in range(count):
        call = chance.choice(messages)
        changes = []
        for _ in range(chance.randint(2, 3)):
            what, call = chance.choice(list(variants(call)))
            changes.append(what)
        yield ", ".join(changes), call


def test_extremes_of_a_few_arguments_at_once(stub: layerwire_pb2_grpc.LayerwireServiceStub) -> None:
    assert complaints(stub, list(some_at_once(1500))) == []
