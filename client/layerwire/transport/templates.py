"""What calls that are alike have in common, and what their answers have: each spelled out or read once for all of them.

It knows the contract and arrays; neither single calls nor where they go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

from google.protobuf import message_factory
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from layerwire.errors import InternalError, LayerwireError, from_status
from layerwire.transport.options import Options, Timed, Timing
from layerwire.v1 import layerwire_pb2 as messages
from layerwire.wire import arrays, framing
from layerwire.wire.dtypes import TensorSpec
from layerwire.wire.framing import Entry, MapEntry
from layerwire.wire.protobuf import field, prefix

Tensor = TypeVar("Tensor")


_FIELDS: Mapping[str, Any] = messages.Call.DESCRIPTOR.fields_by_name
REQUESTS: dict[str, Any] = {
    name: message_factory.GetMessageClass(field.message_type)
    for name, field in _FIELDS.items()
    if field.message_type is not None
}
# Families that take tensors by key, and the map; and those that answer with a map.
_MAP_FIELDS = {"run": "inputs", "differentiate": "output_gradients"}
MAPS = {"run": "outputs", "differentiate": "gradients"}
_WEIGHTS = frozenset({"weight", "bias", "running_mean", "running_var"})  # one for all calls of a batch


class NamedTensors(dict[str, Tensor]):
    """Tensors by name, as `run` and `differentiate` return them.

    Attributes:
        version: of a stored program, the version that ran.
    """

    version: int | None = None


class Signature(NamedTuple):
    """What stays when a call is repeated with other data.

    Attributes:
        family: field of Call.
        head: the operator; of run and differentiate the request without its tensors and options.
        tensors: where each stands, by field or key, and its spec or name.
        of: of differentiate: family and head of the call it is of, and how many of the tensors are that call's.
    """

    family: str
    head: bytes
    tensors: tuple[tuple[str, arrays.Spec | str], ...]
    of: tuple[str, bytes, int] | None = None


# Signature, serialized options, function, outputs and maker of a CallTemplate.
TemplateKey: TypeAlias = tuple[tuple[Any, ...], bytes, str, tuple[str, ...], arrays.Maker]


class CallTemplate:
    """What calls that are alike have in common, and how their answers become values.

    Attributes:
        signature: operator and tensors' specs.
        function: its name, for errors.
        outputs: fields of the response that make up a value; () all of a map.
        make: makes the arrays of answers.
        options: those it was made with; others of the same bytes may differ from them in the timeout.
        entry: the call's bytes.
        shares_inputs: whether it brings weights along, which other calls may have others of.
        answer_sizes: bytes of each tensor of the last large answer, which tell how much room the next one takes.
    """

    __slots__ = ("answer_sizes", "entry", "function", "make", "options", "outputs", "shares_inputs", "signature")

    def __init__(
        self,
        signature: Signature,
        entry: Entry,
        options: Options,
        function: str,
        outputs: tuple[str, ...],
        make: arrays.Maker,
    ) -> None:
        self.signature = signature
        self.entry = entry
        self.options = options
        self.function = function
        self.outputs = outputs
        self.make = make
        self.answer_sizes: tuple[int, ...] = ()
        family, _, tensors, of = signature
        own = tensors if of is None else tensors[: of[2]]
        self.shares_inputs = (family if of is None else of[0]) != "run" and any(
            name in _WEIGHTS and not isinstance(content, str) for name, content in own
        )

    def values(self, answer: AnswerTemplate, count: int, data: Sequence[bytes | memoryview]) -> list[Any]:
        """What so many calls return: arrays, tuples of them, NamedTensors, or Timed.

        Raises:
            LayerwireError: the answer is an error, or can't be read.
        """
        family = self.signature.family
        if answer.result != family:
            raise self.error(answer)
        if len(data) != len(answer.tensors):
            raise arrays.disagreement()
        make = self.make
        columns = {name: make(spec, count, piece) for (name, spec), piece in zip(answer.tensors, data, strict=True)}
        values: list[Any]
        if family in MAPS:
            values = [NamedTensors() for _ in range(count)]
            for name in self.outputs or columns:
                for value, row in zip(values, _column(columns, name), strict=True):
                    value[name] = row
            for value in values:
                value.version = answer.version
        elif len(self.outputs) == 1:
            values = _column(columns, self.outputs[0])
        else:
            rows = [columns[name] for name in self.outputs if name in columns]
            values = list(zip(*rows, strict=True)) if rows else [()] * count
        if self.options.timing:
            timing = answer.timing
            return [Timed(value, timing) for value in values]
        return values

    def error(self, answer: AnswerTemplate) -> LayerwireError:
        """The error that an answer is."""
        if answer.result != "status":
            return InternalError(f"{self.function}: the server answered with something else", operator=self.function)
        error = from_status(status_pb2.Status.FromString(answer.message.status.SerializeToString()))
        error.operator = error.operator or self.function
        return error


def _column(columns: Mapping[str, list[Any]], name: str) -> list[Any]:
    column = columns.get(name)
    if column is None:
        raise arrays.disagreement()
    return column


_templates: dict[TemplateKey, CallTemplate] = {}
_MAX_TEMPLATES = 8192


def call_template(key: TemplateKey, options: Options) -> CallTemplate:
    """The template of calls, made once. The key holds what it is made of, and of the options their bytes."""
    template = _templates.get(key)
    if template is None:
        signature, wire_options, function, outputs, make = key
        signature = Signature(*signature)
        entry = call_entry(signature, wire_options)
        template = CallTemplate(signature, entry, options, function, outputs, make)
        if len(_templates) >= _MAX_TEMPLATES:
            _templates.clear()
        _templates[key] = template
    return template


class AnswerTemplate:
    """What answers that are alike have in common: all but their ids and their tensors' data.

    Attributes:
        message: the Answer.
        result: which of its results it has.
        tensors: name and spec of each tensor, in the order of a group's data.
        version: of a program's answer, the version that ran.
    """

    __slots__ = ("message", "result", "tensors", "version")

    def __init__(self, message: messages.Answer) -> None:
        self.message = message
        self.result = message.WhichOneof("result")
        response = self.response
        pairs: list[tuple[str, Any]] = []
        if self.result in MAPS:
            pairs = sorted(getattr(response, MAPS[self.result]).items())
        elif self.result is not None and self.result != "status":
            pairs = [(field.name, value) for field, value in response.ListFields() if field.name != "timing"]
        self.tensors: list[tuple[str, arrays.Spec]] = [
            (name, (tensor.dtype, tuple(tensor.shape))) for name, tensor in pairs
        ]
        self.version: int | None = getattr(response, "version", None)

    @property
    def response(self) -> Any:
        """The message of its result."""
        return None if self.result is None else getattr(self.message, self.result)

    @property
    def timing(self) -> Timing:
        """Where the time of the calls went."""
        return Timing.from_message(self.response.timing)


@lru_cache(maxsize=8192)
def answer_template(payload: bytes) -> AnswerTemplate:
    """The template of a group of answers; one without result if it is none."""
    try:
        return AnswerTemplate(messages.Answer.FromString(payload))
    except DecodeError:
        return AnswerTemplate(messages.Answer())


def single_answer(payload: memoryview) -> tuple[int, AnswerTemplate, list[bytes]]:
    """An answer by itself: its id, the rest, and its tensors' data; raises DecodeError if it is none."""
    message = messages.Answer.FromString(payload)  # type: ignore[arg-type]  # any buffer will do
    template = AnswerTemplate(message)
    response = template.response
    if template.result in MAPS:
        response = getattr(response, MAPS[template.result])
        return message.id, template, [response[name].data for name, _ in template.tensors]
    return message.id, template, [getattr(response, name).data for name, _ in template.tensors]


@lru_cache(maxsize=8192)
def call_entry(signature: Signature, options: bytes) -> Entry:
    """The bytes of calls of a signature; `options` is the serialized options field."""
    family, head, tensors, of = signature
    number = _FIELDS[family].number
    if of is None:
        return framing.entry(number, _head(family, head, options), _slots(family, tensors))
    inner_family, inner_head, count = of
    slots, outer_slots = _slots(inner_family, tensors[:count]), _slots(family, tensors[count:])
    inner_options = _head(inner_family, inner_head, options)
    inner, inner_length = framing.literals(inner_options, slots)
    outer, outer_length = framing.literals(b"", outer_slots, head)
    inner_number = REQUESTS[family].DESCRIPTOR.fields_by_name[inner_family].number
    tag = prefix(inner_number, inner_length)
    gaps = (tag + inner[0], *inner[1:-1], inner[-1] + outer[0], *outer[1:])
    if len(inner) == 1:  # the call has no data of its own
        gaps = (tag + inner[0] + outer[0], *outer[1:])
    bare = field(inner_number, framing.without_data(inner_options, slots))
    bare += framing.without_data(b"", outer_slots, head)
    columns = framing.columns(slots)
    columns += tuple((len(columns) + place, nbytes) for place, nbytes in framing.columns(outer_slots))
    return framing.entry_of(number, gaps, len(tag) + inner_length + outer_length, bare, columns)


def _head(family: str, head: bytes, options: bytes) -> bytes:
    """What comes before the tensors: options, and operator or what stands in its place."""
    if family in _MAP_FIELDS:
        return options + head
    return options + prefix(REQUESTS[family].DESCRIPTOR.fields_by_name["operator"].number, len(head)) + head


def _slots(family: str, tensors: tuple[tuple[str, arrays.Spec | str], ...]) -> framing.Tensors:
    fields = REQUESTS[family].DESCRIPTOR.fields_by_name
    map_field = _MAP_FIELDS.get(family)
    number = 0 if map_field is None else fields[map_field].number
    return [
        (
            fields[name].number if map_field is None else MapEntry(number, name),
            content if isinstance(content, str) else TensorSpec(*content),
        )
        for name, content in tensors
    ]
