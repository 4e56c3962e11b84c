"""From a request's message to the operator that it asks for, and what it brings for each of its inputs.

It knows messages, operators and the catalog; nothing of options, plans or lanes.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from layerwire.errors import InvalidArgumentError, invalid
from layerwire.inference_v2 import open_inference_pb2
from layerwire.v1 import layerwire_pb2, tensor_pb2
from layerwire.wire import dtypes
from layerwire_server.operators import OPERATORS
from layerwire_server.operators.operator import Input, Operator, Specs
from layerwire_server.programs.gradient import Differentiate
from layerwire_server.programs.run import Run
from layerwire_server.worker.call import Content, Model, Wanted
from layerwire_server.worker.reading import inference
from layerwire_server.worker.reading.inputs import Inputs
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.weights_cache import Absent

MAX_WANTED = 1024
MOST_KEY_BYTES = 4096
_CACHED = 4096
_SHOWN = 50

REQUESTS: dict[str, type[Any]] = {
    "pool": layerwire_pb2.PoolRequest,
    "unpool": layerwire_pb2.UnpoolRequest,
    "linear": layerwire_pb2.LinearRequest,
    "activate": layerwire_pb2.ActivateRequest,
    "convolve": layerwire_pb2.ConvolveRequest,
    "normalize": layerwire_pb2.NormalizeRequest,
    "run": layerwire_pb2.RunRequest,
    "differentiate": layerwire_pb2.DifferentiateRequest,
    "infer": open_inference_pb2.ModelInferRequest,
}
TENSOR_FIELDS: dict[str, tuple[str, ...]] = {
    family: tuple(
        field.name
        for field in REQUESTS[family].DESCRIPTOR.fields
        if field.message_type is not None and field.message_type.full_name == tensor_pb2.Tensor.DESCRIPTOR.full_name
    )
    for family in OPERATORS
}


class Asked(NamedTuple):
    """What a request asks for: an operator, and what is brought for each of its inputs."""

    operator: Operator
    specs: list[dtypes.TensorSpec | None]
    contents: list[Content]
    model: Model | None = None
    wanted: Wanted | None = None


class RequestReader:
    """Reads requests.

    Args:
        catalog: the worker's weights and programs.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._inputs = Inputs(catalog)
        self._operators: dict[tuple[str, bytes], tuple[Operator, tuple[str, ...]]] = {}

    def read(self, family: str, request: Any) -> Asked:
        """What a request of `family` asks for.

        Raises:
            LayerwireError: InvalidArgumentError or NotFoundError.
            Absent: what it needs has to be brought first.
        """
        if family == "differentiate":
            return self._gradient(request)
        if family == "infer":
            return self._inference(request)
        return self._asked(family, request)

    def claimed(self, family: str, request: Any) -> tuple[Operator, Specs]:
        """The operator that a request asks for, and what its tensors claim to be; they need no data.

        Raises:
            LayerwireError: as `read`.
            Absent: as `read`.
        """
        if family != "run":
            operator, _ = self._operator_of(family, request.operator)
            return operator, self._inputs.claimed(operator, request)
        run = self._run_of(request)
        specs = (*self._inputs.claimed_in_map(run, run.inputs[:-1], request.inputs), None)
        self._know(run, specs)
        return run, specs

    def _asked(self, family: str, request: Any) -> Asked:
        if family == "run":
            run = self._run_of(request)
            named = request.WhichOneof("program") == "name"
            return self._run(run, request)._replace(model=Model(request.name, run.version) if named else None)
        operator, others = self._operator_of(family, request.operator)
        for field in others:
            if request.HasField(field):
                raise operator.invalid(field, "is not taken")
        return Asked(operator, *self._inputs.of_fields(operator, request))

    def _run(self, run: Run, request: Any) -> Asked:
        specs, contents = self._inputs.of_map(run, run.inputs[:-1], request.inputs, "inputs")
        self._know(run, (*specs, None))
        bound = self._catalog.bound(run)
        return Asked(run, [*specs, None], [*contents, bound])

    def _inference(self, request: open_inference_pb2.ModelInferRequest) -> Asked:
        version, program = self._catalog.program(request.model_name, inference.version_of(request.model_version))
        wanted, intermediates = inference.outputs_of(program, request)
        run = program.operator(version, intermediates)
        specs, contents = inference.inputs_of(run, request)
        self._know(run, (*specs, None))
        asked = Asked(run, [*specs, None], [*contents, self._catalog.bound(run)])
        return asked._replace(model=Model(request.model_name, version), wanted=Wanted(request.id, wanted))

    def _run_of(self, request: Any, *, unfolded: bool = False) -> Run:
        which = request.WhichOneof("program")
        if which is None:
            raise invalid("run", "program", "is required")
        if which == "name":
            asked = request.version if request.HasField("version") else None
            version, program = self._catalog.program(request.name, asked)
        elif request.HasField("version"):
            raise invalid("run", "version", f"goes with a program's name, got {request.version} with a definition")
        else:
            version, program = 0, self._catalog.definition(request.definition)
        wanted = tuple(request.intermediates)
        return program.plain_operator(version, wanted) if unfolded else program.operator(version, wanted)

    @staticmethod
    def _know(run: Run, specs: Specs) -> None:
        """Lets a program that has to be sized for these inputs be sized on another thread."""
        given = tuple(spec for spec in specs if spec is not None)
        if len(given) + 1 == len(specs) and not run.variant.is_known(given):
            run.check(specs)
            raise Absent(lambda: asyncio.to_thread(run.variant.learn, given))

    def _gradient(self, request: Any) -> Asked:
        family = request.WhichOneof("request")
        if family is None:
            raise invalid("differentiate", "request", "is required")
        if not 1 <= len(request.wanted) <= MAX_WANTED or len(set(request.wanted)) < len(request.wanted):
            rule = f"must be 1 to {MAX_WANTED} names, each once, got {len(request.wanted)}"
            raise invalid("differentiate", "wanted", rule)
        inner = getattr(request, family)
        unfolded = self._run_of(inner, unfolded=True) if family == "run" else None
        asked = self._asked(family, inner) if unfolded is None else self._run(unfolded, inner)
        if not request.output_gradients:
            raise invalid("differentiate", "output_gradients", "must have at least one")
        given = tuple(name for name in asked.operator.outputs if name in request.output_gradients)
        operator = Differentiate(asked.operator, given, tuple(request.wanted))
        for name in request.output_gradients:
            if name not in given:
                among = ", ".join(asked.operator.outputs[:_SHOWN])
                raise operator.invalid("output_gradients", f"must be among {among}, got {name[:200]!r}")
        roles = [Input(name) for name in given]
        specs, contents = self._inputs.of_map(operator, roles, request.output_gradients, "output_gradients")
        return Asked(operator, asked.specs + specs, asked.contents + contents)

    def _operator_of(self, family: str, message: Any) -> tuple[Operator, tuple[str, ...]]:
        encoded = message.SerializeToString()
        found = self._operators.get((family, encoded))
        if found is None:
            check_size(encoded, "operator")
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


def check_size(encoded: bytes, field: str) -> None:
    """What is kept as a key must be small; unknown fields could make it as large as a message."""
    if len(encoded) > MOST_KEY_BYTES:
        raise InvalidArgumentError(f"{field}: must be at most {MOST_KEY_BYTES} bytes, got {len(encoded)}", field=field)
