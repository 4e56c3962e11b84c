"""Turns a frame's bytes into requests and each request into a call; all that a caller can get wrong shows here.

It knows frames, kinds of request and plans; neither lanes' order nor devices.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from layerwire.errors import InternalError, InvalidArgumentError, LayerwireError, invalid
from layerwire.v1 import layerwire_pb2
from layerwire.wire import framing
from layerwire_server.errors import OverLimitError
from layerwire_server.link import MAX_CALLS, QUARANTINED, Frame, Kind
from layerwire_server.operators.operator import Merge
from layerwire_server.worker import tensors
from layerwire_server.worker.call import Call, Content, Options
from layerwire_server.worker.plan import LaneKey, Plan, Plans
from layerwire_server.worker.reading import parse_limits
from layerwire_server.worker.request_kinds import KINDS, KINDS_BY_RPC
from layerwire_server.worker.request_kinds.inputs import InputReader
from layerwire_server.worker.request_kinds.kind import MOST_KEY_BYTES, RequestKind, check_key_size
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.weights_cache import CacheMiss, ProgramWeights, Weights

log = logging.getLogger(__name__)

MIN_PRIORITY, MAX_PRIORITY = -10, 10
_MERGED_INLINE_BYTES = 1024**2  # larger inline weights aren't worth comparing with others'
_CACHED = 4096


class Request(NamedTuple):
    """A request in its frame; without a kind if it asks for nothing."""

    ordinal: int
    call_id: int
    kind: RequestKind | None
    message: Any


def parse(message: Any, payload: bytes | memoryview, most_bytes: int | None = None) -> Any:
    """The message with the payload's fields, if it has at most so many bytes beside its tensors' data.

    Raises:
        InvalidArgumentError: the payload is no such message, or would become far larger by parsing.
    """
    parse_limits.check(message.DESCRIPTOR, payload, most_bytes or parse_limits.MESSAGE_BYTES)
    try:
        message.ParseFromString(payload)
    except DecodeError:
        raise InvalidArgumentError(f"the message is no {message.DESCRIPTOR.name}") from None
    return message


def requests_of(frame: Frame) -> list[tuple[Request, bool]]:
    """The requests of a frame that are owed an answer, each with whether it is quarantined.

    Raises:
        InvalidArgumentError: the frame as a whole is wrong.
    """
    every = _requests(frame)
    if not frame.ordinals:
        return [(request, False) for request in every]
    quarantine = {ordinal & ~QUARANTINED for ordinal in frame.ordinals if ordinal & QUARANTINED}
    answers = {ordinal for ordinal in frame.ordinals if not ordinal & QUARANTINED}
    return [(request, request.ordinal in quarantine) for request in every if request.ordinal not in answers]


def _requests(frame: Frame) -> list[Request]:
    if frame.kind is Kind.UNARY:
        kind = KINDS_BY_RPC[frame.family]
        return [Request(0, 0, kind, parse(kind.request_type(), frame.payload, kind.most_bytes))]
    calls = parse(layerwire_pb2.StreamRequest(), frame.payload).calls.calls
    if len(calls) > MAX_CALLS:
        rule = f"must be at most {MAX_CALLS} a message, got {len(calls)}"
        raise OverLimitError("message_calls", "stream", "calls", rule)
    return [_request(ordinal, call) for ordinal, call in enumerate(calls)]


def _request(ordinal: int, call: layerwire_pb2.Call) -> Request:
    field = call.WhichOneof("request")
    if field is None:
        return Request(ordinal, call.id, None, None)
    return Request(ordinal, call.id, KINDS[field], getattr(call, field))


class CallDecoder:
    """Makes calls of requests.

    Args:
        plans: the worker's plans.
        catalog: its weights and programs.
        deterministic: whether all calls are.
    """

    def __init__(self, plans: Plans, catalog: Catalog, *, deterministic: bool) -> None:
        self._plans = plans
        self._inputs = InputReader(catalog)
        self._deterministic = deterministic
        self._options: dict[bytes, Options] = {b"": Options(deterministic=deterministic)}

    def call_or_error(self, request: Request, frame: Frame) -> Call | LayerwireError:
        """The call, or what is wrong with it.

        Raises:
            CacheMiss: what it needs has to be loaded first.
        """
        kind = request.kind
        if kind is None:
            return InvalidArgumentError("stream: request is required", field="request")
        try:
            call = self.decode(kind, request.message, frame.arrived, frame.deadline)
        except LayerwireError as error:
            return error
        except CacheMiss:
            raise
        except Exception:
            error_id = secrets.token_hex(8)
            log.exception("call can't be decoded", extra={"fields": {"error_id": error_id, "request": frame.id}})
            return InternalError(f"{kind.family}: failed, error id {error_id}", error_id=error_id)
        call.call_id, call.ordinal = request.call_id, request.ordinal
        return call

    def decode(self, kind: RequestKind, message: Any, arrival_time: float, deadline: float) -> Call:
        """The call of a request.

        Raises:
            LayerwireError: InvalidArgumentError, NotFoundError or UnimplementedError.
            CacheMiss: what it needs has to be loaded first.
        """
        options = self._checked_options(kind.call_options(message))
        operator, specs, contents = kind.resolve(message, self._inputs)
        plan = self._plans.get(operator, tuple(specs), options.deterministic)
        _check_contents(plan, contents)
        if plan.recipe is None:
            recipe = kind.recipe(message, plan)
            plan.recipe = recipe if len(recipe) <= MOST_KEY_BYTES else b""

        call = Call()
        call.plan, call.contents, call.options = plan, contents, options
        call.model, call.output_selection = kind.model_and_outputs(message, plan)
        call.arrival_time = arrival_time
        call.deadline = min(deadline, arrival_time + options.timeout_seconds)
        call.priority = options.priority
        call.rows, call.nbytes, call.footprint, call.cost = plan.rows, plan.nbytes, plan.footprint, plan.cost
        call.key = self._key(plan, contents)
        call.is_gone = True
        return call

    def estimate(self, request: layerwire_pb2.EstimateRequest) -> layerwire_pb2.EstimateResponse:
        """What a call would cost; its tensors need no data.

        Raises:
            LayerwireError: as `decode`.
            CacheMiss: as `decode`.
        """
        field = request.WhichOneof("request")
        if field is None:
            raise invalid("estimate", "request", "is required")
        operator, specs = KINDS[field].operator_and_specs(getattr(request, field), self._inputs)
        plan = self._plans.get(operator, specs, deterministic=False)
        return layerwire_pb2.EstimateResponse(
            outputs=[framing.bare(spec) for spec in plan.outputs],
            input_bytes=sum(spec.nbytes for spec in specs if spec is not None),
            output_bytes=sum(spec.nbytes for spec in plan.outputs),
            floating_point_operations=plan.operations,
        )

    def _checked_options(self, message: layerwire_pb2.CallOptions) -> Options:
        key = message.SerializeToString()
        options = self._options.get(key)
        if options is None:
            check_key_size(key, "options")
            options = _check_options(message, deterministic=self._deterministic)
            if len(self._options) >= _CACHED:
                self._options.clear()
            self._options[key] = options
        return options

    def _key(self, plan: Plan, contents: list[Content]) -> LaneKey:
        """The lane: shared inputs take part by digest, so that equal ones meet. A program is its weights already."""
        if plan.key.merge is not Merge.ROWS:
            return plan.key
        digests: list[object] = []
        for role, content in zip(plan.operator.inputs, contents, strict=True):
            if not role.shared:
                continue
            if isinstance(content, Weights):
                digests.append(content.digest)
            elif content is None:
                digests.append(None)
            elif isinstance(content, ProgramWeights):
                return plan.key
            elif len(content) <= _MERGED_INLINE_BYTES:
                digests.append(hashlib.sha256(content).digest())
            else:
                return LaneKey(plan.key.operator, plan.key.merge, 1, plan.key.deterministic)
        if not digests:
            return plan.key
        if plan.shared_lane is None or plan.shared_lane[0] != digests:  # calls mostly come with the last one's weights
            plan.shared_lane = digests, self._plans.lane_key((plan.key, *digests), plan.key)
        return plan.shared_lane[1]


def _check_options(message: layerwire_pb2.CallOptions, *, deterministic: bool) -> Options:
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
                if spec is None or content is None or isinstance(content, ProgramWeights)
                else content.host
                if isinstance(content, Weights)
                else tensors.to_torch(content, spec)
                for spec, content in zip(plan.specs, contents, strict=True)
            )
        )
