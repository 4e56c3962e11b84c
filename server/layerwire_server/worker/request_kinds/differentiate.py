"""Resolves a request of gradients: another request, with the gradients of its outputs as further inputs.

It knows the kinds of request that have gradients; nothing of how gradients are computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layerwire.errors import invalid
from layerwire.v1 import layerwire_pb2, tensor_pb2
from layerwire.wire import framing
from layerwire_server.operators.operator import Input
from layerwire_server.programs.gradient import Differentiate
from layerwire_server.worker.request_kinds.inputs import InputReader
from layerwire_server.worker.request_kinds.kind import NativeKind, Resolution

MAX_WANTED = 1024
_SHOWN = 50


class DifferentiateKind(NativeKind):
    """Requests of gradients.

    Args:
        kinds: those that can be differentiated, by their fields in DifferentiateRequest.
    """

    def __init__(self, kinds: Mapping[str, NativeKind]) -> None:
        super().__init__("differentiate", layerwire_pb2.DifferentiateRequest, layerwire_pb2.DifferentiateResponse)
        self._kinds = kinds

    def call_options(self, message: Any) -> layerwire_pb2.CallOptions:
        """Those of the request that is differentiated."""
        kind, inner = self._inner(message)
        return kind.call_options(inner)

    def tensors(self, message: Any) -> Sequence[tensor_pb2.Tensor]:
        """See NativeKind: those of the request that is differentiated come first."""
        kind, inner = self._inner(message)
        gradients = message.output_gradients
        return [*kind.tensors(inner), *(gradients[name] for name in sorted(gradients))]

    def resolve(self, message: Any, inputs: InputReader) -> Resolution:
        """See RequestKind."""
        kind, inner = self._inner(message)
        if not 1 <= len(message.wanted) <= MAX_WANTED or len(set(message.wanted)) < len(message.wanted):
            rule = f"must be 1 to {MAX_WANTED} names, each once, got {len(message.wanted)}"
            raise invalid("differentiate", "wanted", rule)
        operator, specs, contents = kind.resolve_differentiable(inner, inputs)
        if not message.output_gradients:
            raise invalid("differentiate", "output_gradients", "must have at least one")
        output_names = tuple(name for name in operator.outputs if name in message.output_gradients)
        gradient = Differentiate(operator, output_names, tuple(message.wanted))
        for name in message.output_gradients:
            if name not in output_names:
                among = ", ".join(operator.outputs[:_SHOWN])
                raise gradient.invalid("output_gradients", f"must be among {among}, got {name[:200]!r}")
        roles = [Input(name) for name in output_names]
        more_specs, more_contents = inputs.from_map(gradient, roles, message.output_gradients, "output_gradients")
        return gradient, specs + more_specs, contents + more_contents

    def _inner(self, message: Any) -> tuple[NativeKind, Any]:
        field = message.WhichOneof("request")
        if field is None:
            raise invalid("differentiate", "request", "is required")
        return self._kinds[field], getattr(message, field)

    def _slot(self, output_name: str) -> framing.Slot:
        return framing.MapEntry(self._field_numbers["gradients"], output_name)
