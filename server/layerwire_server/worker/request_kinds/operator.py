"""Resolves a request of one operator: its parameters become the operator, fields of the request its inputs.

It knows the table of operators; nothing of programs or plans' limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layerwire.errors import invalid
from layerwire.v1 import tensor_pb2
from layerwire_server.operators import OPERATORS
from layerwire_server.operators.operator import Operator, Specs
from layerwire_server.worker.plan import Plan
from layerwire_server.worker.request_kinds.inputs import InputReader
from layerwire_server.worker.request_kinds.kind import NativeKind, Resolution, check_key_size, tensors_without_data

_CACHED = 8192  # operators of a family


class OperatorKind(NativeKind):
    """Requests of one family of operators."""

    def __init__(self, family: str, request_type: type[Any], response_type: type[Any]) -> None:
        super().__init__(family, request_type, response_type)
        self.labels = frozenset(f"{name}{dims}" for name in OPERATORS[family] for dims in ("", "1d", "2d", "3d"))
        self._tensor_fields = [
            field.name
            for field in sorted(request_type.DESCRIPTOR.fields, key=lambda field: field.number)
            if field.message_type is not None and field.message_type.full_name == tensor_pb2.Tensor.DESCRIPTOR.full_name
        ]
        # by serialized parameters: the operator, and the tensors that the request has room for and it doesn't take
        self._operators: dict[bytes, tuple[Operator, list[str]]] = {}

    def resolve(self, message: Any, inputs: InputReader) -> Resolution:
        """See RequestKind."""
        operator, excess_fields = self._operator(message.operator)
        for field in excess_fields:
            if message.HasField(field):
                raise operator.invalid(field, "is not taken")
        specs, contents = inputs.from_fields(operator, message)
        return operator, specs, contents

    def operator_and_specs(self, message: Any, inputs: InputReader) -> tuple[Operator, Specs]:
        """See RequestKind."""
        operator, _ = self._operator(message.operator)
        return operator, inputs.specs_from_fields(operator, message)

    def recipe(self, message: Any, plan: Plan) -> bytes:
        """See RequestKind."""
        recipe = self.request_type(operator=message.operator, **tensors_without_data(plan))
        content: bytes = recipe.SerializeToString(deterministic=True)
        return content

    def recipe_tensors(self, message: Any) -> Sequence[tensor_pb2.Tensor]:
        """See RequestKind."""
        return self.tensors(message)

    def tensors(self, message: Any) -> Sequence[tensor_pb2.Tensor]:
        """See NativeKind."""
        return [getattr(message, field) for field in self._tensor_fields if message.HasField(field)]

    def label(self, operator: Operator) -> str:
        """See RequestKind."""
        return operator.title

    def _operator(self, parameters: Any) -> tuple[Operator, list[str]]:
        key = parameters.SerializeToString()
        entry = self._operators.get(key)
        if entry is None:
            check_key_size(key, "operator")
            name = parameters.WhichOneof("operator")
            if name is None:
                raise invalid(self.family, "operator", "is required")
            operator = OPERATORS[self.family][name].from_message(getattr(parameters, name))
            input_names = {role.name for role in operator.inputs}
            entry = operator, [field for field in self._tensor_fields if field not in input_names]
            if len(self._operators) >= _CACHED:
                self._operators.clear()
            self._operators[key] = entry
        return entry
