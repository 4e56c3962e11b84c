"""Makes calls of a frame's requests; all that a caller can get wrong shows here.

It knows kinds of request, templates and plans; neither lanes' order nor devices.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from google.protobuf.message import DecodeError

from layerwire.errors import InternalError, InvalidArgumentError, LayerwireError, invalid
from layerwire.v1 import layerwire_pb2
from layerwire.wire import framing
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.link import Frame, request_id
from layerwire_server.operators.operator import Merge
from layerwire_server.worker import tensors
from layerwire_server.worker.call import CallGroup, Content, Model, Options, OutputSelection, content_slices
from layerwire_server.worker.client_memory import ClientMemories
from layerwire_server.worker.plan import LaneKey, Plan, Plans
from layerwire_server.worker.reading.large_data import NONE, LargeData
from layerwire_server.worker.reading.layouts import Layouts
from layerwire_server.worker.reading.requests import GroupBytes, Request, neighbours_as_one, requests_of
from layerwire_server.worker.reading.template import Template, Templates, column_mark, template_of
from layerwire_server.worker.request_kinds import KINDS, NATIVE_KINDS
from layerwire_server.worker.request_kinds.inputs import InputReader
from layerwire_server.worker.request_kinds.kind import MOST_KEY_BYTES, NativeKind, RequestKind, check_key_size
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.weights_cache import CacheMiss, ProgramWeights, Weights

log = logging.getLogger(__name__)

MIN_PRIORITY, MAX_PRIORITY = -10, 10
_MERGED_INLINE_BYTES = 1024**2  # larger inline weights aren't worth comparing with others'
_CACHED = 4096


class Failure(NamedTuple):
    """Requests that are wrong, and how."""

    request: Request
    error: LayerwireError


CallsAndFailures: TypeAlias = "list[CallGroup | Failure]"


class CallDecoder:
    """Makes calls of requests.

    Args:
        plans: the worker's plans.
        catalog: its weights and programs.
        deterministic: whether all calls are.
        memories: of clients of this host.

    Attributes:
        memories: the argument.
    """

    def __init__(
        self, plans: Plans, catalog: Catalog, *, deterministic: bool, memories: ClientMemories | None = None
    ) -> None:
        self._plans = plans
        self._catalog = catalog
        self._inputs = InputReader(catalog)
        self._templates = Templates(catalog)
        self.memories = memories or ClientMemories()
        self._layouts = Layouts()
        self._deterministic = deterministic
        self._options: dict[bytes, Options] = {b"": Options(deterministic=deterministic)}

    def requests(self, frame: Frame) -> list[tuple[Request, bool]]:
        """The requests of a frame that are owed an answer, each with whether it is quarantined.

        Raises:
            InvalidArgumentError: the frame as a whole is wrong.
        """
        return neighbours_as_one(requests_of(frame, self._layouts))

    def calls(self, request: Request, frame: Frame) -> CallsAndFailures:
        """What waits of a request: its calls together, those apart that can't, and those that are wrong.

        Raises:
            CacheMiss: what it needs has to be loaded first.
        """
        try:
            if request.group is not None:
                return self._of_group(request, request.group, frame)
            if request.kind is None:
                return [Failure(request, InvalidArgumentError("stream: request is required", field="request"))]
            call = self.decode(request.kind, request.message, frame.arrived, frame.deadline, request.large)
        except LayerwireError as error:
            return [Failure(request, error)]
        except CacheMiss:
            raise
        except Exception:
            error_id = secrets.token_hex(8)
            log.exception(
                "call can't be decoded", extra={"fields": {"error_id": error_id, "request": request_id(frame.frame)}}
            )
            subject = "stream" if request.kind is None else request.kind.family
            return [Failure(request, InternalError(f"{subject}: failed, error id {error_id}", error_id=error_id))]
        call.ids, call.ordinal = request.ids, request.ordinal
        if request.content is not None and isinstance(request.kind, NativeKind):
            self._layouts.learn(request.kind, request.message, frame.family, request.content, call.plan)
        return [call]

    def decode(
        self, kind: RequestKind, message: Any, arrival_time: float, deadline: float, large: LargeData = NONE
    ) -> CallGroup:
        """The call of a request; `large` is what its message has marks for.

        Raises:
            LayerwireError: InvalidArgumentError, NotFoundError or UnimplementedError.
            CacheMiss: what it needs has to be loaded first.
        """
        options, plan, contents, model_and_outputs = self._resolve(kind, message)
        contents = large.restore(contents)
        for index, (content, role) in enumerate(zip(contents, plan.operator.inputs, strict=True)):
            if isinstance(content, Weights) and not role.shared:
                contents[index] = bytes(tensors.to_bytes(content.host))
        _check_contents(plan, contents)
        key = self._key(plan, contents)
        return _group(plan, contents, options, model_and_outputs, key, arrival_time, deadline)

    def _resolve(
        self, kind: RequestKind, message: Any
    ) -> tuple[Options, Plan, list[Content], tuple[Model | None, OutputSelection | None]]:
        options = self._checked_options(kind.call_options(message))
        operator, specs, contents = kind.resolve(message, self._inputs)
        plan = self._plans.get(operator, tuple(specs), options.deterministic)
        if plan.recipe is None:
            recipe = kind.recipe(message, plan)
            plan.recipe = recipe if len(recipe) <= MOST_KEY_BYTES else b""
        return options, plan, contents, kind.model_and_outputs(message, plan)

    # groups

    def _of_group(self, request: Request, group: GroupBytes, frame: Frame) -> CallsAndFailures:
        if request.fault:
            raise InvalidArgumentError(request.fault, field="ids")
        template = self._templates.get(group.template)
        if template is None:
            template = self._new_template(group.template)
        room = None
        if group.shared is not None:
            group.data = self._shared_data(template, group.shared)
            room = self.memories.room(group.shared) if group.count == 1 else None
        _check_columns(template, group)
        contents, plan = template.contents(group.data, self._catalog), template.plan
        if request.count < group.count:
            contents = _own_part(template, contents, request.start, request.start + request.count)
        model_and_outputs = template.model, template.output_selection
        key = template.key or plan.key
        whole = _group(plan, contents, template.options, model_and_outputs, key, frame.arrived, frame.deadline)
        whole.ids, whole.ordinal, whole.count = request.ids, request.ordinal, request.count
        whole.is_grouped, whole.room = request.is_grouped, room
        if not template.is_joint:
            return [self._single(template, whole, request, index) for index in range(request.count)]
        if template.has_values_to_check:
            return _right_and_wrong(whole, request)
        return [whole]

    def _shared_data(self, template: Template, shared: layerwire_pb2.SharedData) -> list[bytes | memoryview]:
        """Data in a client's memory; copied where what is found of them must still hold when they are used."""
        data: list[bytes | memoryview] = [*self.memories.data(shared)]
        return data if template.is_value_free else [bytes(piece) for piece in data]

    def _new_template(self, content: bytes) -> Template:
        """Opens a template.

        Raises:
            LayerwireError: it is none, or as `decode`.
            CacheMiss: as `decode`.
        """
        call = layerwire_pb2.Call()
        try:
            call.ParseFromString(content)
        except DecodeError:
            raise InvalidArgumentError("the template is no Call", field="template") from None
        field = call.WhichOneof("request")
        if field is None:
            raise InvalidArgumentError("stream: request is required", field="request")
        if call.id:
            raise InvalidArgumentError(f"stream: template must have no id, got {call.id}", field="template")
        kind, message = NATIVE_KINDS[field], getattr(call, field)
        column = 0
        for tensor in kind.tensors(message):
            if tensor.data:
                rule = f"must have no data, got {len(tensor.data)} bytes"
                raise InvalidArgumentError(f"stream: template {rule}", field="template")
            if tensor.WhichOneof("content") != "name":
                tensor.data = column_mark(column)
                column += 1
        options, plan, contents, model_and_outputs = self._resolve(kind, message)
        brings_weights = any(
            role.shared and isinstance(source, bytes)
            for role, source in zip(plan.operator.inputs, contents, strict=True)
        )
        key = None if brings_weights else self._key(plan, contents)
        template = template_of(plan, options, model_and_outputs, contents, key, self._catalog)
        self._templates.put(content, template)
        return template

    def _single(self, template: Template, whole: CallGroup, request: Request, index: int) -> CallGroup | Failure:
        """One call of a group whose calls wait singly."""
        call = whole.part(0, whole.count)
        call.contents = _own_part(template, whole.contents, index, index + 1)
        call.ids, call.count, call.ordinal = request.part(index, index + 1).ids, 1, request.ordinal + index
        try:
            _check_contents(call.plan, call.contents)
        except LayerwireError as error:
            return Failure(request.part(index, index + 1), error)
        call.key = template.key or self._key(call.plan, call.contents)
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

    def _key(self, plan: Plan, contents: Sequence[Content]) -> LaneKey:
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


def _group(
    plan: Plan,
    contents: list[Content],
    options: Options,
    model_and_outputs: tuple[Model | None, OutputSelection | None],
    key: LaneKey,
    arrival_time: float,
    deadline: float,
) -> CallGroup:
    call = CallGroup()
    call.plan, call.contents, call.options, call.key = plan, contents, options, key
    call.model, call.output_selection = model_and_outputs
    call.arrival_time = arrival_time
    call.deadline = deadline
    if options.timeout_seconds != math.inf:
        call.deadline = min(deadline, arrival_time + options.timeout_seconds)
    call.priority = options.priority
    call.rows, call.nbytes, call.footprint, call.cost = plan.rows, plan.nbytes, plan.footprint, plan.cost
    call.ids, call.ordinal, call.count, call.is_grouped, call.is_gone = b"", 0, 1, False, True
    call.caller = call.reply = call.room = None
    call.order, call.seconds, call.wait_seconds = 0, 0.0, 0.0
    return call


def _own_part(template: Template, contents: Sequence[Content], start: int, stop: int) -> list[Content]:
    """The contents of some of the calls; rows that all have by name stay whole."""
    parts = content_slices(contents, template.plan.input_bytes, start, stop)
    return [
        part if isinstance(source, int) else content
        for part, content, source in zip(parts, contents, template.sources, strict=True)
    ]


def _check_columns(template: Template, group: GroupBytes) -> None:
    plan, count = template.plan, group.count
    if len(group.data) != len(template.columns):
        rule = f"must have a piece for each of {len(template.columns)} tensors without a name, got {len(group.data)}"
        raise invalid(plan.operator.title, "data", rule)
    for place, nbytes, piece in zip(template.columns, template.column_bytes, group.data, strict=True):
        if len(piece) != nbytes * count:
            spec, name = plan.specs[place], plan.operator.inputs[place].name
            assert spec is not None
            if len(piece) % count:
                rule = f"must have {spec.nbytes} bytes of data for each of {count} calls, got {len(piece)}"
                raise invalid(plan.operator.title, name, rule)
            tensors.check_length(len(piece) // count, spec, plan.operator.title, name)


def _right_and_wrong(calls: CallGroup, request: Request) -> CallsAndFailures:
    """A group without the calls whose values are wrong, in pieces that follow each other, and those."""
    plan = calls.plan
    is_joint = calls.count == 1 or plan.key.merge is Merge.ROWS or not plan.operator.value_inputs
    if is_joint:
        try:
            _check_contents(plan, calls.contents, calls.count)
        except InvalidArgumentError as error:
            if calls.count == 1:
                return [Failure(request, error)]
        else:
            return [calls]
    return list(_pieces(calls, request))


def _pieces(calls: CallGroup, request: Request) -> Iterator[CallGroup | Failure]:
    start = 0
    for index in range(calls.count):
        try:
            _check_contents(calls.plan, content_slices(calls.contents, calls.plan.input_bytes, index, index + 1))
        except InvalidArgumentError as error:
            if start < index:
                yield calls.part(start, index)
            yield Failure(request.part(index, index + 1), error)
            start = index + 1
    if start < calls.count:
        yield calls.part(start, calls.count)


def _check_contents(plan: Plan, contents: Sequence[Content], count: int = 1) -> None:
    """Checks the data of so many calls.

    Raises:
        InvalidArgumentError: something is wrong with one of them; of several it isn't told which.
    """
    operator = plan.operator
    for index, content in enumerate(contents):
        if not isinstance(content, bytes | memoryview):
            continue
        spec = plan.specs[index]
        assert spec is not None
        if len(content) != plan.input_bytes[index] * count:
            tensors.check_length(len(content), spec, operator.title, operator.inputs[index].name)
        if spec.dtype == tensors.BOOL:
            tensors.check_bools(content, operator.title, operator.inputs[index].name)
    if operator.value_inputs:
        operator.check_values(
            tuple(
                None
                if spec is None or content is None or isinstance(content, ProgramWeights)
                else content.host
                if isinstance(content, Weights)
                else tensors.to_torch(content, spec if count == 1 else _joint_spec(plan, index, spec, count))
                for index, (spec, content) in enumerate(zip(plan.specs, contents, strict=True))
            )
        )


def _joint_spec(plan: Plan, index: int, spec: TensorSpec, count: int) -> TensorSpec:
    """The spec of an input of so many calls of a lane that joins rows."""
    trailing_shape = plan.trailing_shapes[index]
    return spec if trailing_shape is None else TensorSpec(spec.dtype, (plan.rows * count, *trailing_shape))
