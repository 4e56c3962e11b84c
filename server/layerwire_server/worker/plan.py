"""Plans a call before its data is looked at: its checks, shapes, costs and lane, once for each (operator, specs).

It knows operators and the meta device; nothing of messages' data, lanes or devices.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from layerwire.v1 import layerwire_pb2
from layerwire.wire import protobuf
from layerwire.wire.dtypes import ITEMSIZES, TensorSpec
from layerwire.wire.framing import Entry
from layerwire_server.errors import OverLimitError
from layerwire_server.operators.operator import Merge, Operator, Placement, Specs
from layerwire_server.worker.lanes.pace import Pace

ELEMENTWISE_MULTIPLE = 64  # torch's vector tail rounds otherwise than its body: parts are padded to whole vectors
_ELEMENTWISE_ELEMENTS = 32768  # at::internal::GRAIN_SIZE: above it torch splits by threads, and tails come to lie anew
_PLANS = 8192
_PARTS = 2**18  # of all plans' operators: a node of a program takes 1.3 KB, and plans keep it alive
_LANE_KEYS = 65536
_GROUPS = layerwire_pb2.StreamResponse.GROUPS_FIELD_NUMBER

log = logging.getLogger(__name__)


class CallLimits(NamedTuple):
    """What one call may cost."""

    output_bytes: int
    operations: float


class LaneKey:
    """Identity of a lane: equal facts give the same object, so that hashing it costs nothing.

    Attributes:
        operator: what runs on the joined batch.
        merge: how calls are joined.
        max_rows: most rows of a batch, besides the limit for all lanes.
        deterministic: whether bits may depend on nothing but the call: in fixed tiles, or alone and always by eager.
        pace: device seconds that batches took of late.
        kernels: the Tuner's, by size of batches; None before the first batch.
        has_steps: whether one run of the operator calls many kernels.
    """

    __slots__ = ("deterministic", "has_steps", "kernels", "max_rows", "merge", "operator", "pace")

    def __init__(self, operator: Operator, merge: Merge, max_rows: int, deterministic: bool) -> None:
        self.operator = operator
        self.merge = merge
        self.max_rows = max_rows
        self.deterministic = deterministic
        self.has_steps = operator.parts > 1
        self.pace = Pace()
        self.kernels: Any = None


class GroupAnswer(NamedTuple):
    """An AnswerGroup within StreamResponse, with gaps for ids and data.

    Its bytes are gaps[0] + ids + gaps[1] + data[0] + ... + gaps[n] + data[n - 1].

    Attributes:
        call_count: how many calls it answers.
        gaps: what stays.
        outputs: for each piece of data, the place of its output.
        nbytes: of all of it.
        template: the AnswerGroup's field of that name.
        sizes: for each piece of data, how many of its bytes are one call's.
    """

    call_count: int
    gaps: tuple[bytes, ...]
    outputs: tuple[int, ...]
    nbytes: int
    template: bytes
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, template: bytes, outputs: tuple[int, ...], sizes: tuple[int, ...], count: int) -> Self:
        """That of so many calls; `sizes` as the attribute."""
        head = template + protobuf.prefix(2, 8 * count)
        gaps, nbytes = [], len(head) + 8 * count
        for size in sizes:
            gap = protobuf.prefix(3, size * count)
            gaps.append(gap)
            nbytes += len(gap) + size * count
        first = protobuf.prefix(_GROUPS, nbytes)
        return cls(count, (first + head, *gaps), outputs, len(first) + nbytes, template, sizes)


@dataclass(eq=False, slots=True)
class Plan:
    """A call without its data.

    Attributes:
        specs: of the operator's inputs, None for those left out.
        outputs: specs of the outputs; `output_names` are their response fields.
        rows: what the call adds to a batch: rows, or blocks of 64 elements.
        elements: of an elementwise call in a batch: its own, or as many as whole blocks have.
        trailing_shapes: for each input, its shape in a batch without the row axis; None for shared or absent ones.
        input_bytes: for each input, bytes of its data, 0 for absent ones.
        output_bytes: for each output, bytes of its data, and what it takes in a batch's output, blocks filled up.
        operations: floating-point operations.
        cost: its work, by Operator.work.
        nbytes: bytes of inputs and outputs.
        footprint: bytes that it takes on the device while it runs.
        key: the lane, where no shared input takes part in it; else `Plans.lane_key` of it and theirs.
    """

    operator: Operator
    specs: Specs
    placement: Placement
    outputs: tuple[TensorSpec, ...]
    output_names: tuple[str, ...]
    rows: int
    elements: int
    trailing_shapes: tuple[tuple[int, ...] | None, ...]
    input_bytes: tuple[int, ...]
    output_bytes: tuple[tuple[int, int], ...]
    nbytes: int
    footprint: int
    operations: int
    cost: float
    key: LaneKey
    answer_template: Entry | None = None  # once an answer was made
    group_answer: GroupAnswer | None = None  # likewise of a group, as large as the last was
    response: tuple[tuple[bytes, ...], int] | None = None  # likewise by a unary RPC: what stays, and bytes of all
    shared_lane: tuple[list[object], LaneKey] | None = None  # digests of the last call's shared inputs, and its lane
    metrics: Any = None  # the Measures' own, once a batch ran
    recipe: bytes | None = None  # a request without options and data, for warm-up; b"" where that can't be


class Plans:
    """The plans of a worker, least recently used ones forgotten.

    Args:
        limits: what one call may cost.
        device_type: "cpu" or "cuda".
    """

    def __init__(self, limits: CallLimits, device_type: str) -> None:
        self._limits = limits
        self._device_type = device_type
        self._plans: OrderedDict[Hashable, Plan] = OrderedDict()
        self._parts = 0
        self._keys: OrderedDict[Hashable, LaneKey] = OrderedDict()

    def get(self, operator: Operator, specs: Specs, deterministic: bool) -> Plan:
        """The plan of a call.

        Raises:
            InvalidArgumentError: it can't run, or costs more than a call may.
        """
        facts = (operator, specs, deterministic)
        plan = self._plans.get(facts)
        if plan is not None:
            self._plans.move_to_end(facts)
        else:
            plan = self._plans[facts] = self._make(operator, specs, deterministic)
            self._parts += operator.parts
            while len(self._plans) > _PLANS or self._parts > _PARTS:
                _, oldest = self._plans.popitem(last=False)
                self._parts -= oldest.operator.parts
        return plan

    def lane_key(self, facts: tuple[Hashable, ...], like: LaneKey) -> LaneKey:
        """The one key of these facts; made like `like` if it is new."""
        key = self._keys.get(facts)
        if key is not None:
            self._keys.move_to_end(facts)
        else:
            key = self._keys[facts] = LaneKey(like.operator, like.merge, like.max_rows, like.deterministic)
            if len(self._keys) > _LANE_KEYS:
                self._keys.popitem(last=False)
        return key

    def _make(self, operator: Operator, specs: Specs, deterministic: bool) -> Plan:
        operator.check_inputs(specs, self._device_type)
        operator.check(specs)
        self._check_output_bytes(operator, operator.output_bytes_bound(specs), "up to ")
        outputs = operator.infer(specs)
        self._check_output_bytes(operator, sum(spec.nbytes for spec in outputs))
        operations = operator.operations(specs, outputs)
        work = operator.work(specs, operations)
        if work > self._limits.operations:
            most = f"{self._limits.operations:.2g}"
            rule = f"takes work of {work:.2g} operations, over the server's --max-call-operations {most}"
            raise OverLimitError("operations", operator.title, "input", rule)
        return self._place(operator, specs, outputs, operations, deterministic)

    def _check_output_bytes(self, operator: Operator, nbytes: int, precision: str = "") -> None:
        most = self._limits.output_bytes
        if nbytes > most:
            rule = f"gives {precision}{nbytes} bytes, over the server's --max-output-bytes {most}"
            raise OverLimitError("output_bytes", operator.title, "input", rule)

    def _place(
        self, operator: Operator, specs: Specs, outputs: tuple[TensorSpec, ...], operations: int, deterministic: bool
    ) -> Plan:
        first = specs[0]
        assert first is not None
        placement = operator.placement(specs)
        if deterministic and operator.alone_if_deterministic:
            placement = placement._replace(merge=Merge.ALONE)
        placement, rows, max_rows = _merge(placement, first)
        tile = placement.operator.tile_rows if deterministic and placement.merge is Merge.ROWS else None
        is_deterministic = tile is not None or (deterministic and operator.alone_if_deterministic)
        trailing_shapes, alike = _batchable(operator, specs, placement)
        facts = (placement.operator, placement.merge, alike, is_deterministic) + (
            (trailing_shapes,) if placement.merge is Merge.ROWS else ()
        )
        input_bytes = tuple(0 if spec is None else spec.nbytes for spec in specs)
        elements = math.prod(first.shape) if first.dtype in operator.exact_dtypes else rows * ELEMENTWISE_MULTIPLE
        is_flat = placement.merge is Merge.ELEMENTWISE
        output_bytes = tuple(
            (spec.nbytes, elements * ITEMSIZES[spec.dtype] if is_flat else spec.nbytes) for spec in outputs
        )
        return Plan(
            operator=operator,
            specs=specs,
            placement=placement,
            outputs=outputs,
            output_names=operator.outputs[: len(outputs)],
            rows=rows,
            elements=elements,
            trailing_shapes=trailing_shapes,
            input_bytes=input_bytes,
            output_bytes=output_bytes,
            nbytes=sum(input_bytes) + sum(spec.nbytes for spec in outputs),
            footprint=operator.footprint_bytes(specs, outputs),
            operations=operations,
            cost=operator.work(specs, operations),
            key=self.lane_key(facts, LaneKey(placement.operator, placement.merge, max_rows, is_deterministic)),
        )


def _merge(placement: Placement, first: TensorSpec) -> tuple[Placement, int, int]:
    """How a call is merged, given its size; its rows; and most rows of a batch."""
    elements = math.prod(first.shape)
    if placement.merge is Merge.ROWS:
        return placement, math.prod(first.shape[: placement.axes]), 2**31
    if placement.merge is Merge.ELEMENTWISE and elements <= _ELEMENTWISE_ELEMENTS:
        return placement, -(-elements // ELEMENTWISE_MULTIPLE), _ELEMENTWISE_ELEMENTS // ELEMENTWISE_MULTIPLE
    return placement._replace(merge=Merge.ALONE), 1, 1


def _batchable(
    operator: Operator, specs: Specs, placement: Placement
) -> tuple[tuple[tuple[int, ...] | None, ...], tuple[Hashable, ...]]:
    """For each input, its shape in a batch, and what of it must be alike throughout a batch."""
    own = [spec is not None and not role.shared for role, spec in zip(operator.inputs, specs, strict=True)]
    trailing_shapes = tuple(
        spec.shape[placement.axes :] if spec is not None and is_own else None
        for spec, is_own in zip(specs, own, strict=True)
    )
    # Shared inputs count whole: equal bytes of another shape are other weights.
    alike = tuple(spec.dtype if spec is not None and is_own else spec for spec, is_own in zip(specs, own, strict=True))
    return trailing_shapes, alike
