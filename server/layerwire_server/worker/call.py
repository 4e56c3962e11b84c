"""A call: from its message to a value that waits in a lane.

It knows messages, plans and weights; neither lanes' order nor devices. All that a caller can get wrong is found here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from layerwire import codec
from layerwire.codec import TensorSpec
from layerwire.errors import InvalidArgumentError, NotFoundError, invalid
from layerwire.v1 import layerwire_pb2, tensor_pb2
from layerwire_server.operators import OPERATORS
from layerwire_server.operators.operator import Merge, Operator, Specs
from layerwire_server.worker import wire
from layerwire_server.worker.lane import Waiting
from layerwire_server.worker.plan import LaneKey, Plan, Plans
from layerwire_server.worker.weights import Weights

MIN_PRIORITY, MAX_PRIORITY = -10, 10
_MERGED_INLINE_BYTES = 1024**2  # larger inline weights aren't worth comparing with others'
_CACHED = 4096
_MOST_KEY_BYTES = 4096

# bytes from the message, stored weights, or nothing where an optional input was left out
Content: TypeAlias = bytes | Weights | None

REQUESTS: dict[str, type[Any]] = {
    "pool": layerwire_pb2.PoolRequest,
    "unpool": layerwire_pb2.UnpoolRequest,
    "linear": layerwire_pb2.LinearRequest,
    "activate": layerwire_pb2.ActivateRequest,
    "convolve": layerwire_pb2.ConvolveRequest,
    "normalize": layerwire_pb2.NormalizeRequest,
}
TENSOR_FIELDS: dict[str, tuple[str, ...]] = {
    family: tuple(
        field.name
        for field in request.DESCRIPTOR.fields
        if field.message_type is not None and field.message_type.full_name == tensor_pb2.Tensor.DESCRIPTOR.full_name
    )
    for family, request in REQUESTS.items()
}


class Options(NamedTuple):
    """A call's CallOptions, checked."""

    timeout_seconds: float = math.inf
    priority: int = 0
    deterministic: bool = False
    return_timing: bool = False


class Call(Waiting):
    """A checked call. `origin` is whoever is to get its answer; `contents` stand one an input of the operator."""

    __slots__ = ("call_id", "contents", "options", "ordinal", "origin", "plan")

    key: LaneKey
    plan: Plan
    contents: list[Content]
    options: Options
    call_id: int
    ordinal: int
    origin: Any  # the Reply that is to get the answer

    @property
    def request(self) -> str:
        """The id of its request in logs."""
        origin = getattr(self, "origin", None)
        return "" if origin is None else str(origin.frame.id)


class CallDecoder:
    """Makes calls of requests.

    Args:
        plans: the worker's plans.
        weights: gives stored weights by name.
        deterministic: whether all calls are.
    """

    def __init__(self, plans: Plans, weights: Callable[[str], Weights], *, deterministic: bool) -> None:
        self._plans = plans
        self._weights = weights
        self._deterministic = deterministic
        self._operators: dict[tuple[str, bytes], tuple[Operator, tuple[str, ...]]] = {}
        self._specs: dict[tuple[int, tuple[int, ...]], TensorSpec] = {}
        self._options: dict[bytes, Options] = {b"": Options(deterministic=deterministic)}

    def decode(self, family: str, request: Any, arrived: float, deadline: float) -> Call:
        """The call of a request of `family`.

        Raises:
            LayerwireError: InvalidArgumentError or NotFoundError.
        """
        options = self._options_of(request)
        operator, others = self._operator_of(family, request.operator)
        for field in others:
            if request.HasField(field):
                raise operator.invalid(field, "is not taken")
        specs, contents = self._inputs(operator, request)
        plan = self._plans.get(operator, specs, options.deterministic)
        _check_contents(plan, contents)

        call = Call()
        call.plan, call.contents, call.options = plan, contents, options
        call.arrived = arrived
        call.deadline = min(deadline, arrived + options.timeout_seconds)
        call.priority = options.priority
        call.rows, call.nbytes, call.cost = plan.rows, plan.nbytes, plan.cost
        call.key = self._key(plan, contents)
        call.gone = True
        return call

    def estimate(self, request: layerwire_pb2.EstimateRequest) -> layerwire_pb2.EstimateResponse:
        """What a call would cost; its tensors need no data.

        Raises:
            LayerwireError: as `decode`.
        """
        family = request.WhichOneof("request")
        if family is None:
            raise invalid("estimate", "request", "is required")
        inner = getattr(request, family)
        operator, _ = self._operator_of(family, inner.operator)
        specs = tuple(self._claimed_spec(inner, role.name, operator) for role in operator.inputs)
        plan = self._plans.get(operator, specs, deterministic=False)
        return layerwire_pb2.EstimateResponse(
            outputs=[codec.bare(spec) for spec in plan.outputs],
            input_bytes=sum(spec.nbytes for spec in specs if spec is not None),
            output_bytes=sum(spec.nbytes for spec in plan.outputs),
            floating_point_operations=plan.operations,
        )

    def _inputs(self, operator: Operator, request: Any) -> tuple[Specs, list[Content]]:
        """What the request brings for each input of the operator."""
        specs: list[TensorSpec | None] = []
        contents: list[Content] = []
        for role in operator.inputs:
            if not request.HasField(role.name):
                specs.append(None)
                contents.append(None)
                continue
            message = getattr(request, role.name)
            data = message.data
            if not data and message.WhichOneof("content") == "name":
                weights = self._named(message.name, operator, role.name)
                specs.append(weights.spec)
                contents.append(weights if role.shared else bytes(wire.to_bytes(weights.host)))
                continue
            claimed = message.dtype, tuple(message.shape)
            spec = self._specs.get(claimed)
            if spec is None:
                spec = self._specs[claimed] = wire.spec_of(message, operator.title, role.name)
                if len(self._specs) > _CACHED:
                    self._specs.clear()
            specs.append(spec)
            contents.append(data)
        return tuple(specs), contents

    def _claimed_spec(self, request: Any, field: str, operator: Operator) -> Any:
        if not request.HasField(field):
            return None
        message = getattr(request, field)
        if message.WhichOneof("content") == "name":
            return self._named(message.name, operator, field).spec
        return wire.spec_of(message, operator.title, field)

    def _named(self, name: str, operator: Operator, field: str) -> Weights:
        try:
            return self._weights(name)
        except NotFoundError as error:
            raise NotFoundError(f"{operator.title}: {field}: {error}", operator=operator.title, field=field) from None

    def _options_of(self, request: Any) -> Options:
        encoded = request.options.SerializeToString()
        options = self._options.get(encoded)
        if options is None:
            _check_size(encoded, "options")
            options = _checked_options(request.options, deterministic=self._deterministic)
            if len(self._options) >= _CACHED:
                self._options.clear()
            self._options[encoded] = options
        return options

    def _operator_of(self, family: str, message: Any) -> tuple[Operator, tuple[str, ...]]:
        encoded = message.SerializeToString()
        found = self._operators.get((family, encoded))
        if found is None:
            _check_size(encoded, "operator")
            name = message.WhichOneof("operator")
            if name is None:
                raise invalid(family, "operator", "is required")
            operator = OPERATORS[family][name].from_message(getattr(message, name))
            taken = {role.name for role in operator.inputs}
            found = operator, tuple(field for field in TENSOR_FIELDS[family] if field not in taken)
            if len(self._operators) >= _CACHED:
                self._operators.clear()
            self._operators[family, encoded] = found
        return found

    def _key(self, plan: Plan, contents: list[Content]) -> LaneKey:
        """The lane: shared inputs take part by digest, so that equal ones meet."""
        if plan.key.merge is not Merge.ROWS:
            return plan.key
        shared: list[str | bytes | None] = []
        for role, content in zip(plan.operator.inputs, contents, strict=True):
            if not role.shared:
                continue
            if isinstance(content, Weights):
                shared.append(content.digest)
            elif content is None:
                shared.append(None)
            elif len(content) <= _MERGED_INLINE_BYTES:
                shared.append(hashlib.sha256(content).digest())
            else:
                return LaneKey(plan.key.operator, plan.key.merge, 1, plan.key.deterministic)
        return self._plans.lane_key((plan.key, *shared), plan.key) if shared else plan.key


def _check_size(encoded: bytes, field: str) -> None:
    """What is kept as a key must be small; unknown fields could make it as large as a message."""
    if len(encoded) > _MOST_KEY_BYTES:
        raise InvalidArgumentError(f"{field}: must be at most {_MOST_KEY_BYTES} bytes, got {len(encoded)}", field=field)


def _checked_options(message: layerwire_pb2.CallOptions, *, deterministic: bool) -> Options:
    timeout = message.timeout_seconds if message.HasField("timeout_seconds") else math.inf
    if not timeout > 0:
        raise InvalidArgumentError(f"options: timeout_seconds must be above 0, got {timeout}", field="timeout_seconds")
    if not MIN_PRIORITY <= message.priority <= MAX_PRIORITY:
        raise InvalidArgumentError(
            f"options: priority must be {MIN_PRIORITY} to {MAX_PRIORITY}, got {message.priority}", field="priority"
        )
    return Options(timeout, message.priority, message.deterministic or deterministic, message.return_timing)


def _check_contents(plan: Plan, contents: list[Content]) -> None:
    operator = plan.operator
    for index, content in enumerate(contents):
        if type(content) is not bytes:
            continue
        spec = plan.specs[index]
        assert spec is not None
        if len(content) != plan.input_bytes[index] or spec.dtype == wire.BOOL:
            wire.check_data(content, spec, operator.title, operator.inputs[index].name)
    if operator.value_inputs:
        operator.check_values(
            tuple(
                None
                if spec is None or content is None
                else content.host
                if isinstance(content, Weights)
                else wire.to_torch(content, spec)
                for spec, content in zip(plan.specs, contents, strict=True)
            )
        )
