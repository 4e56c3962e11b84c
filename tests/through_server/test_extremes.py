"""Extreme values over every argument of every operator, through the server: none dies, is slow or INTERNAL."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc
from tests.operator_cases import Case, cases
from tests.operators.local import message_of, request_of
from tests.through_server.conftest import unary

INTEGERS = [0, 1, -1, -2, 7, 1000, 2**31 - 1, 2**31, 2**32 + 3, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63)]
NUMBERS = [0.0, -0.0, 1.0, -1.0, 1e-320, 1e300, -1e300, math.nan, math.inf, -math.inf, 2.0**31, 2.0**63]
ALLOWED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}
_LARGEST = {
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
}


def one_case_each() -> list[Case]:
    """A small case of every function, the first of the table."""
    found: dict[str, Case] = {}
    for case in cases():
        found.setdefault(case.function, case)
    return list(found.values())


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


def ask(stub: layerwire_pb2_grpc.LayerwireServiceStub, call: pb.Call) -> tuple[grpc.StatusCode, float, str]:
    """Status, seconds and words of an answer; a slow one is asked for again, for a busy machine is slow by itself."""
    for _ in range(3):
        start = time.monotonic()
        future: Any = unary(stub, call)
        code, details = future.code(), future.details()
        seconds = time.monotonic() - start
        if seconds < 1:
            break
    return code, seconds, details


@pytest.mark.parametrize("case", one_case_each(), ids=lambda case: case.function)
def test_extremes_are_answered_at_once(stub: layerwire_pb2_grpc.LayerwireServiceStub, case: Case) -> None:
    calls = list(variants(message_of(request_of(case))))
    random.Random(case.id).shuffle(calls)
    assert len(calls) > 40
    wrong = []
    for what, call in calls:
        code, seconds, details = ask(stub, call)
        # DEADLINE_EXCEEDED is right where the variant asks for next to no time
        allowed = ALLOWED | ({"DEADLINE_EXCEEDED"} if "timeout_seconds" in what else set())
        if code.name not in allowed or seconds > 1:
            wrong.append((what, code.name, details, seconds))
    assert not wrong


def test_extremes_of_a_few_arguments_at_once(stub: layerwire_pb2_grpc.LayerwireServiceStub) -> None:
    """Seeded pairs and triples of changes, since one check may hide behind another."""
    chance = random.Random(20261121)
    messages = [message_of(request_of(case)) for case in one_case_each()]
    wrong = []
    for _ in range(1500):
        call = chance.choice(messages)
        changes = []
        for _ in range(chance.randint(2, 3)):
            what, call = chance.choice(list(variants(call)))
            changes.append(what)
        code, seconds, details = ask(stub, call)
        if code.name not in ALLOWED | {"DEADLINE_EXCEEDED"} or seconds > 1:
            wrong.append((changes, code.name, details, seconds))
    assert not wrong
