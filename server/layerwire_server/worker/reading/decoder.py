"""From a request's message to a call that may wait in a lane. All that a caller can get wrong is found here.

It knows messages, plans and the catalog; neither lanes' order nor devices.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

from layerwire.errors import InvalidArgumentError, invalid
from layerwire.v1 import layerwire_pb2
from layerwire.wire import framing
from layerwire_server.operators.operator import Merge
from layerwire_server.worker import tensors
from layerwire_server.worker.call import Call, Content, Options
from layerwire_server.worker.plan import LaneKey, Plan, Plans
from layerwire_server.worker.request_kinds import infer as inference
from layerwire_server.worker.request_kinds.operator import MOST_KEY_BYTES, REQUESTS, RequestReader, check_size
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.weights_cache import Bound, Weights

MIN_PRIORITY, MAX_PRIORITY = -10, 10
_MERGED_INLINE_BYTES = 1024**2  # larger inline weights aren't worth comparing with others'
_CACHED = 4096


class CallDecoder:
    """Makes calls of requests.

    Args:
        plans: the worker's plans.
        catalog: its weights and programs.
        deterministic: whether all calls are.
    """

    def __init__(self, plans: Plans, catalog: Catalog, *, deterministic: bool) -> None:
        self._plans = plans
        self._reader = RequestReader(catalog)
        self._deterministic = deterministic
        self._options: dict[bytes, Options] = {b"": Options(deterministic=deterministic)}

    def decode(self, family: str, request: Any, arrived: float, deadline: float) -> Call:
        """The call of a request of `family`.

        Raises:
            LayerwireError: InvalidArgumentError or NotFoundError.
            Absent: what it needs has to be brought first.
        """
        options = self._options_of(family, request)
        asked = self._reader.read(family, request)
        plan = self._plans.get(asked.operator, tuple(asked.specs), options.deterministic)
        _check_contents(plan, asked.contents)
        if plan.recipe is None:
            plan.recipe = _recipe(family, request, plan)

        call = Call()
        call.plan, call.contents, call.options = plan, asked.contents, options
        call.model, call.wanted = asked.model, asked.wanted
        call.arrived = arrived
        call.deadline = min(deadline, arrived + options.timeout_seconds)
        call.priority = options.priority
        call.rows, call.nbytes, call.footprint, call.cost = plan.rows, plan.nbytes, plan.footprint, plan.cost
        call.key = self._key(plan, asked.contents)
        call.gone = True
        return call

    def estimate(self, request: layerwire_pb2.EstimateRequest) -> layerwire_pb2.EstimateResponse:
        """What a call would cost; its tensors need no data.

        Raises:
            LayerwireError: as `decode`.
            Absent: as `decode`.
        """
        family = request.WhichOneof("request")
        if family is None:
            raise invalid("estimate", "request", "is required")
        operator, specs = self._reader.claimed(family, getattr(request, family))
        plan = self._plans.get(operator, specs, deterministic=False)
        return layerwire_pb2.EstimateResponse(
            outputs=[framing.bare(spec) for spec in plan.outputs],
            input_bytes=sum(spec.nbytes for spec in specs if spec is not None),
            output_bytes=sum(spec.nbytes for spec in plan.outputs),
            floating_point_operations=plan.operations,
        )

    def _options_of(self, family: str, request: Any) -> Options:
        if family == "infer":
            return inference.options_of(request, deterministic=self._deterministic)
        if family == "differentiate":
            which = request.WhichOneof("request")
            if which is None:
                raise invalid("differentiate", "request", "is required")
            request = getattr(request, which)
        encoded = request.options.SerializeToString()
        options = self._options.get(encoded)
        if options is None:
            check_size(encoded, "options")
            options = _checked_options(request.options, deterministic=self._deterministic)
            if len(self._options) >= _CACHED:
                self._options.clear()
            self._options[encoded] = options
        return options

    def _key(self, plan: Plan, contents: list[Content]) -> LaneKey:
        """The lane: shared inputs take part by digest, so that equal ones meet. A program is its weights already."""
        if plan.key.merge is not Merge.ROWS:
            return plan.key
        shared: list[object] = []
        for role, content in zip(plan.operator.inputs, contents, strict=True):
            if not role.shared:
                continue
            if isinstance(content, Weights):
                shared.append(content.digest)
            elif content is None:
                shared.append(None)
            elif isinstance(content, Bound):
                return plan.key
            elif len(content) <= _MERGED_INLINE_BYTES:
                shared.append(hashlib.sha256(content).digest())
            else:
                return LaneKey(plan.key.operator, plan.key.merge, 1, plan.key.deterministic)
        if not shared:
            return plan.key
        if plan.shared is None or plan.shared[0] != shared:  # calls mostly come with the weights of the one before
            plan.shared = shared, self._plans.lane_key((plan.key, *shared), plan.key)
        return plan.shared[1]


def _recipe(family: str, request: Any, plan: Plan) -> bytes:
    """The request without options and data, weights by name spelled out; b"" for what isn't worth warming up."""
    bare = {
        role.name: framing.bare(spec)
        for role, spec in zip(plan.operator.inputs, plan.specs, strict=True)
        if spec is not None
    }
    if family == "differentiate" or (family == "run" and request.WhichOneof("program") != "name"):
        return b""
    if family == "infer":  # remembered as the native call that it is
        family, request = "run", inference.as_run(request, plan.operator)
    if family != "run":
        made = REQUESTS[family](operator=request.operator, **bare)
    else:
        made = layerwire_pb2.RunRequest(name=request.name, intermediates=request.intermediates, inputs=bare)
        if request.HasField("version"):
            made.version = request.version
    content: bytes = made.SerializeToString(deterministic=True)
    return content if len(content) <= MOST_KEY_BYTES else b""


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
        if len(content) != plan.input_bytes[index] or spec.dtype == tensors.BOOL:
            tensors.check_data(content, spec, operator.title, operator.inputs[index].name)
    if operator.value_inputs:
        operator.check_values(
            tuple(
                None
                if spec is None or content is None or isinstance(content, Bound)
                else content.host
                if isinstance(content, Weights)
                else tensors.to_torch(content, spec)
                for spec, content in zip(plan.specs, contents, strict=True)
            )
        )
