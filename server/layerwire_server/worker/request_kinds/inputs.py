"""What requests bring for the inputs of an operator: dtypes and shapes as claimed, data uncopied, weights by name.

It knows messages and the catalog of weights; nothing of plans, lanes or programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from layerwire.errors import NotFoundError
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.operators.operator import Input, Operator, Specs
from layerwire_server.worker.call import Content
from layerwire_server.worker.tensors import spec_of, to_bytes
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.weights_cache import Weights

_CACHED = 4096

Brought: TypeAlias = tuple[list[TensorSpec | None], list[Content]]


class Inputs:
    """Reads inputs.

    Args:
        catalog: gives stored weights by name.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._specs: dict[tuple[int, tuple[int, ...]], TensorSpec] = {}

    def of_fields(self, operator: Operator, request: Any) -> Brought:
        """Spec and content of each input, which is a field of the request."""
        specs: list[TensorSpec | None] = []
        contents: list[Content] = []
        for role in operator.inputs:
            if not request.HasField(role.name):
                specs.append(None)
                contents.append(None)
                continue
            message = getattr(request, role.name)
            data = message.data
            known = self._specs.get((message.dtype, tuple(message.shape))) if data else None
            if known is not None:  # what nearly all are: told apart here, since each call pays for it
                specs.append(known)
                contents.append(data)
                continue
            spec, content = self._tensor(operator, role, message)
            specs.append(spec)
            contents.append(content)
        return specs, contents

    def of_map(self, operator: Operator, roles: Sequence[Input], tensors: Any, field: str) -> Brought:
        """Spec and content of each of some inputs, which are entries of a map field.

        Raises:
            InvalidArgumentError: the map has others too.
        """
        specs: list[TensorSpec | None] = []
        contents: list[Content] = []
        for role in roles:
            spec, content = None, None
            if role.name in tensors:
                spec, content = self._tensor(operator, role, tensors[role.name])
            specs.append(spec)
            contents.append(content)
        if len(tensors) > sum(spec is not None for spec in specs):
            names = {role.name for role in roles}
            other = next(name for name in tensors if name not in names)
            known = ", ".join(role.name for role in roles)
            raise operator.invalid(field, f"must be among {known}, got {other[:200]!r}")
        return specs, contents

    def claimed(self, operator: Operator, request: Any) -> Specs:
        """What each input claims to be, without looking at data."""
        return tuple(
            self._claimed(operator, role.name, getattr(request, role.name)) if request.HasField(role.name) else None
            for role in operator.inputs
        )

    def claimed_in_map(self, operator: Operator, roles: Sequence[Input], tensors: Any) -> Specs:
        """The same of entries of a map field."""
        return tuple(
            self._claimed(operator, role.name, tensors[role.name]) if role.name in tensors else None for role in roles
        )

    def _claimed(self, operator: Operator, field: str, message: Any) -> TensorSpec:
        if message.WhichOneof("content") == "name":
            return self._named(message.name, operator, field).spec
        return spec_of(message, operator.title, field)

    def _tensor(self, operator: Operator, role: Input, message: Any) -> tuple[TensorSpec, Content]:
        data = message.data
        if not data and message.WhichOneof("content") == "name":
            try:
                weights = self._catalog.weights(message.name)
            except NotFoundError as error:
                raise _not_found(error, operator, role.name) from None
            return weights.spec, weights if role.shared else bytes(to_bytes(weights.host))
        claimed = message.dtype, tuple(message.shape)
        spec = self._specs.get(claimed)
        if spec is None:
            spec = self._specs[claimed] = spec_of(message, operator.title, role.name)
            if len(self._specs) > _CACHED:
                self._specs.clear()
        return spec, data

    def _named(self, name: str, operator: Operator, field: str) -> Weights:
        try:
            return self._catalog.weights(name)
        except NotFoundError as error:
            raise _not_found(error, operator, field) from None


def _not_found(error: NotFoundError, operator: Operator, field: str) -> NotFoundError:
    return NotFoundError(f"{operator.title}: {field}: {error}", operator=operator.title, field=field)
