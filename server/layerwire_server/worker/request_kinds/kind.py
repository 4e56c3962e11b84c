"""What a kind of request is: how it is read, counted, repeated for warm-up, and answered.

It knows messages, plans and the wire's templates; nothing of frames, lanes or devices.

The path of a request through its kind:

    call_options        how the call is to be treated
    resolve             the operator, and spec and content of each of its inputs
    model_and_outputs   for requests that name a model: which it is, and which outputs they want
    recipe              a request like it without data, for warm-up
    write_response      the answer
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias

from layerwire.errors import InvalidArgumentError
from layerwire.v1 import layerwire_pb2, tensor_pb2
from layerwire.wire import framing, protobuf
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.operators.operator import Operator, Specs
from layerwire_server.worker.call import CallGroup, Content, Model, OutputSelection
from layerwire_server.worker.plan import GroupAnswer, Plan
from layerwire_server.worker.request_kinds.inputs import InputReader

MOST_KEY_BYTES = 4096

# the operator that a request asks for, and spec and content of each of its inputs
Resolution: TypeAlias = tuple[Operator, list[TensorSpec | None], list[Content]]
# a message in pieces, data uncopied, and how many bytes they are
Pieces: TypeAlias = tuple[list[bytes | memoryview], int]


class RequestKind(ABC):
    """A kind of request.

    Attributes:
        family: its RPC in lower case, and its field in Call.
        request_type: class of its requests.
        most_bytes: of a request beside its tensors' data; None where it is as many as of any message.
        labels: what its calls are counted under in metrics.
    """

    most_bytes: int | None = None

    def __init__(self, family: str, request_type: type[Any]) -> None:
        self.family = family
        self.request_type = request_type
        self.labels = frozenset((family,))

    @abstractmethod
    def call_options(self, message: Any) -> layerwire_pb2.CallOptions:
        """How the call is to be treated, unchecked.

        Raises:
            InvalidArgumentError: the request doesn't say so in a way that can be read.
        """

    @abstractmethod
    def resolve(self, message: Any, inputs: InputReader) -> Resolution:
        """The operator that the request asks for, and what it brings for each input.

        Raises:
            LayerwireError: InvalidArgumentError, NotFoundError or UnimplementedError.
            CacheMiss: what it needs has to be loaded first.
        """

    def resolve_differentiable(self, message: Any, inputs: InputReader) -> Resolution:
        """The same with an operator whose gradients can be had; raises as `resolve`."""
        return self.resolve(message, inputs)

    def operator_and_specs(self, message: Any, inputs: InputReader) -> tuple[Operator, Specs]:
        """The operator, and what the tensors claim to be, which need no data; for kinds that can be estimated.

        Raises:
            LayerwireError: as `resolve`.
            CacheMiss: as `resolve`.
        """
        raise NotImplementedError(self.family)

    def model_and_outputs(self, message: Any, plan: Plan) -> tuple[Model | None, OutputSelection | None]:
        """The model in whose statistics the call counts, and the outputs that it selects, where it does."""
        return None, None

    def recipe(self, message: Any, plan: Plan) -> bytes:
        """The request without options and data, weights by name spelled out; b"" for what isn't worth warming up."""
        return b""

    def recipe_tensors(self, message: Any) -> Sequence[tensor_pb2.Tensor]:
        """The tensors of a recipe.

        Raises:
            LookupError: requests of this kind aren't warmed up.
        """
        raise LookupError(f"{self.family} has no recipes")

    def label(self, operator: Operator) -> str:
        """Which of `labels` calls of an operator are counted under."""
        return self.family

    @abstractmethod
    def write_response(self, call: CallGroup, outputs: list[memoryview], timing: bytes) -> Pieces:
        """The response of the unary RPC; `timing` is its serialized field, or b""."""


class NativeKind(RequestKind):
    """A kind of request of layerwire.v1, which may come in a stream too.

    Args:
        family: see RequestKind.
        request_type: likewise.
        response_type: class of its responses.
    """

    def __init__(self, family: str, request_type: type[Any], response_type: type[Any]) -> None:
        super().__init__(family, request_type)
        self._answer_number: int = layerwire_pb2.Answer.DESCRIPTOR.fields_by_name[family].number
        self._field_numbers: dict[str, int] = {field.name: field.number for field in response_type.DESCRIPTOR.fields}

    def call_options(self, message: Any) -> layerwire_pb2.CallOptions:
        """See RequestKind."""
        options: layerwire_pb2.CallOptions = message.options
        return options

    @abstractmethod
    def tensors(self, message: Any) -> Sequence[tensor_pb2.Tensor]:
        """The tensors of a request in the order of a group's data: by field numbers, those of a map by their keys.

        Raises:
            InvalidArgumentError: what they belong to isn't there.
        """

    def answer_template(self, plan: Plan, timing: bytes) -> framing.Entry:
        """One of a StreamResponse's answers, with gaps for the call's id and data."""
        return framing.entry(self._answer_number, self._head(plan.operator), self._tensors(plan), timing)

    def group_answer(self, plan: Plan, count: int, timing: bytes) -> GroupAnswer:
        """An AnswerGroup to so many calls."""
        tensors = self._tensors(plan)
        places = [_place(slot) for slot, _ in tensors]
        order = tuple(sorted(range(len(places)), key=places.__getitem__))
        body = self._head(plan.operator) + b"".join(_without_data(*tensors[place]) for place in order) + timing
        template = protobuf.field(1, protobuf.field(self._answer_number, body))
        return GroupAnswer.of(template, order, tuple(plan.output_bytes[place][0] for place in order), count)

    def write_response(self, call: CallGroup, outputs: list[memoryview], timing: bytes) -> Pieces:
        """See RequestKind."""
        plan = call.plan
        response = plan.response if not timing else None
        if response is None:
            response = framing.literals(self._head(plan.operator), self._tensors(plan), timing)
            if not timing:
                plan.response = response
        gaps, nbytes = response
        pieces: list[bytes | memoryview] = [gaps[0]]
        for output, gap in zip(outputs, gaps[1:], strict=True):
            pieces += (output, gap)
        return pieces, nbytes

    def _head(self, operator: Operator) -> bytes:
        """Fields of the response besides tensors and timing."""
        return b""

    def _slot(self, output_name: str) -> framing.Slot:
        """Where an output stands in the response."""
        return self._field_numbers[output_name]

    def _tensors(self, plan: Plan) -> framing.Tensors:
        return [(self._slot(name), spec) for name, spec in zip(plan.output_names, plan.outputs, strict=True)]


def _place(slot: framing.Slot) -> tuple[int, bytes]:
    return (slot, b"") if isinstance(slot, int) else (slot.number, slot.key.encode())


def _without_data(slot: framing.Slot, spec: TensorSpec | str) -> bytes:
    assert isinstance(spec, TensorSpec)
    number, key = _place(slot)
    tensor = framing.bare(spec).SerializeToString()
    if isinstance(slot, int):
        return protobuf.field(number, tensor)
    return protobuf.field(number, protobuf.field(1, key) + protobuf.field(2, tensor))


def check_key_size(key: bytes, field: str) -> None:
    """What is kept as a key must be small; unknown fields could make it as large as a message.

    Raises:
        InvalidArgumentError: it is too large.
    """
    if len(key) > MOST_KEY_BYTES:
        raise InvalidArgumentError(f"{field}: must be at most {MOST_KEY_BYTES} bytes, got {len(key)}", field=field)


def tensors_without_data(plan: Plan) -> dict[str, tensor_pb2.Tensor]:
    """The messages of a plan's inputs by name."""
    return {
        role.name: framing.bare(spec)
        for role, spec in zip(plan.operator.inputs, plan.specs, strict=True)
        if spec is not None
    }
