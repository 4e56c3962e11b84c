"""What calls of a group have in common, opened once: operator, plan and options, and where each input comes from.

It knows kinds of request, plans and the catalog; neither frames nor lanes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from layerwire_server.operators.operator import Operator
from layerwire_server.programs.gradient import Differentiate
from layerwire_server.programs.graph import StoredTensor
from layerwire_server.programs.run import Run
from layerwire_server.worker.call import Content, Model, Options, OutputSelection
from layerwire_server.worker.plan import LaneKey, Plan
from layerwire_server.worker.request_kinds.kind import MOST_KEY_BYTES
from layerwire_server.worker.tensors import BOOL, to_bytes
from layerwire_server.worker.weights.catalog import Catalog, Names
from layerwire_server.worker.weights.weights_cache import ProgramWeights, Weights

_TEMPLATES = 8192
_PARTS = 2**18  # of all templates' operators, as of plans

# Where an input comes from: a column of the group's data, the store, the program's weights, or nowhere.
Source: TypeAlias = "int | StoredTensor | Run | None"


@dataclass(eq=False, slots=True)
class Template:
    """What calls of a group have in common.

    Attributes:
        plan: of each.
        options: likewise.
        model: in whose statistics they count.
        output_selection: of the Open Inference Protocol alone.
        sources: of the operator's inputs.
        columns: for each piece of the group's data, whose data it is, by the input's place.
        column_bytes: likewise how many bytes of each call.
        key: the lane; None where it depends on each call's own bytes.
        is_joint: whether calls wait as a group; else weights come with each, or rows by name, and they wait singly.
        has_values_to_check: whether it depends on data if a call is right.
        names: the names that it was made by; None where it depends on none.
        run: its program.
        is_value_free: whether no element of the data decides what is done with them, so that they may change meanwhile.
    """

    plan: Plan
    options: Options
    model: Model | None
    output_selection: OutputSelection | None
    sources: tuple[Source, ...]
    columns: tuple[int, ...]
    column_bytes: tuple[int, ...]
    key: LaneKey | None
    is_joint: bool
    has_values_to_check: bool
    names: Names | None
    run: Run | None
    is_value_free: bool

    def contents(self, data: Sequence[bytes | memoryview], catalog: Catalog) -> list[Content]:
        """What there is for each input, given the data of a group.

        Raises:
            CacheMiss: weights aren't in memory.
        """
        contents: list[Content] = []
        for source, role in zip(self.sources, self.plan.operator.inputs, strict=True):
            if source.__class__ is int:
                contents.append(data[source])
            elif source is None:
                contents.append(None)
            elif isinstance(source, Run):
                contents.append(catalog.program_weights(source))
            else:
                weights = catalog.weights_cache.weights(source)  # type: ignore[arg-type]
                contents.append(weights if role.shared else bytes(to_bytes(weights.host)))
        return contents


class Templates:
    """The templates of a worker by their bytes; the least recently used forgotten.

    Args:
        catalog: the worker's. What was made by names that are others now is made anew.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._templates: OrderedDict[bytes, Template] = OrderedDict()
        self._parts = 0

    def get(self, content: bytes) -> Template | None:
        """The template of these bytes."""
        template = self._templates.get(content)
        if template is None:
            return None
        names = template.names
        if names is not None:
            is_held = template.run is None or self._catalog.hold_program(template.run.digest)
            if names is not self._catalog.names or not is_held:
                self._remove(content)
                return None
        self._templates.move_to_end(content)
        return template

    def put(self, content: bytes, template: Template) -> None:
        """Remembers one, unless it is large: programs may come with a call."""
        if len(content) > MOST_KEY_BYTES:
            return
        if content in self._templates:
            self._remove(content)
        self._templates[content] = template
        self._parts += template.plan.operator.parts
        while len(self._templates) > _TEMPLATES or self._parts > _PARTS:
            self._remove(next(iter(self._templates)))

    def _remove(self, content: bytes) -> None:
        self._parts -= self._templates.pop(content).plan.operator.parts


def template_of(
    plan: Plan,
    options: Options,
    model_and_outputs: tuple[Model | None, OutputSelection | None],
    contents: list[Content],
    key: LaneKey | None,
    catalog: Catalog,
) -> Template:
    """The template of a request in whose tensors the number of each column stands for its data."""
    operator, run = plan.operator, run_of(plan.operator)
    sources = tuple(_source(content, run) for content in contents)
    places = {source: place for place, source in enumerate(sources) if isinstance(source, int)}
    columns = tuple(places[column] for column in range(len(places)))
    is_joint = key is not None and not any(
        isinstance(source, StoredTensor) and not role.shared
        for source, role in zip(sources, operator.inputs, strict=True)
    )
    has_bools = any(spec is not None and spec.dtype == BOOL for spec in plan.specs)
    has_values = has_bools or bool(operator.value_inputs)
    uses_names = run is not None or any(isinstance(source, StoredTensor) for source in sources)
    return Template(
        plan=plan,
        options=options,
        model=model_and_outputs[0],
        output_selection=model_and_outputs[1],
        sources=sources,
        columns=columns,
        column_bytes=tuple(plan.input_bytes[place] for place in columns),
        key=key,
        is_joint=is_joint,
        has_values_to_check=has_values,
        names=catalog.names if uses_names else None,
        run=run,
        is_value_free=key is not None and not has_values and not _has_doubtful_nodes(run),
    )


def _has_doubtful_nodes(run: Run | None) -> bool:
    """Whether a program looks at elements while it runs, as unpooling does at indices."""
    return run is not None and any(step.operator.value_inputs for step in run.variant.graph.steps)


def column_mark(column: int) -> bytes:
    """What stands for a column's data while a template is opened."""
    return (column + 1).to_bytes(4, "little")


def run_of(operator: Operator) -> Run | None:
    """The program that an operator runs, or whose gradients it gives."""
    if isinstance(operator, Differentiate):
        operator = operator.of
    return operator if isinstance(operator, Run) else None


def _source(content: Content, run: Run | None) -> Source:
    if isinstance(content, Weights):
        return content.digest
    if isinstance(content, ProgramWeights):
        return run
    return None if content is None else int.from_bytes(content, "little") - 1
