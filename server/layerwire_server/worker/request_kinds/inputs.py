"""Reads what a request brings for each input: dtype and shape as claimed, data uncopied, weights by name.

It knows messages and the catalog; nothing of plans or lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layerwire.errors import NotFoundError
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.operators.operator import Input, Operator, Specs
from layerwire_server.worker.call import Content
from layerwire_server.worker.tensors import spec_of
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.weights_cache import Weights

_CACHED = 4096


class InputReader:
    """Reads inputs.

    Attributes:
        catalog: the argument.

    Args:
        catalog: gives stored weights by name.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._specs: dict[tuple[int, tuple[int, ...]], TensorSpec] = {}

    def from_fields(self, operator: Operator, message: Any) -> tuple[list[TensorSpec | None], list[Content]]:
        """Spec and content of each input, which is a field of the request.

        Raises:
            LayerwireError: InvalidArgumentError or NotFoundError.
            CacheMiss: weights that it names aren't in memory.
        """
        specs: list[TensorSpec | None] = []
        contents: list[Content] = []
        for role in operator.inputs:
            if not message.HasField(role.name):
                specs.append(None)
                contents.append(None)
                continue
            tensor = getattr(message, role.name)
            data = tensor.data
            content: Content = data
            spec = self._specs.get((tensor.dtype, tuple(tensor.shape))) if data else None
            if spec is None:  # else what nearly all are: looked up here, since each call pays for it
                spec, content = self._tensor(operator, role, tensor)
            specs.append(spec)
            contents.append(content)
        return specs, contents

    def from_map(
        self, operator: Operator, roles: Sequence[Input], tensors: Any, field: str
    ) -> tuple[list[TensorSpec | None], list[Content]]:
        """Spec and content of each of some inputs, which are entries of a map field.

        Raises:
            LayerwireError: as `from_fields`; InvalidArgumentError also if the map has others.
            CacheMiss: as `from_fields`.
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
            among = ", ".join(role.name for role in roles)
            raise operator.invalid(field, f"must be among {among}, got {other[:200]!r}")
        return specs, contents

    def specs_from_fields(self, operator: Operator, message: Any) -> Specs:
        """What each input claims to be, without looking at data; raises as `from_fields`."""
        return tuple(
            self._spec(operator, role.name, getattr(message, role.name)) if message.HasField(role.name) else None
            for role in operator.inputs
        )

    def specs_from_map(self, operator: Operator, roles: Sequence[Input], tensors: Any) -> Specs:
        """The same of entries of a map field."""
        return tuple(
            self._spec(operator, role.name, tensors[role.name]) if role.name in tensors else None for role in roles
        )

    def _spec(self, operator: Operator, field: str, tensor: Any) -> TensorSpec:
        if tensor.WhichOneof("content") == "name":
            return self._weights(tensor.name, operator, field).spec
        return spec_of(tensor, operator.title, field)

    def _tensor(self, operator: Operator, role: Input, tensor: Any) -> tuple[TensorSpec, Content]:
        data = tensor.data
        if not data and tensor.WhichOneof("content") == "name":
            weights = self._weights(tensor.name, operator, role.name)
            return weights.spec, weights
        claim = tensor.dtype, tuple(tensor.shape)
        spec = self._specs.get(claim)
        if spec is None:
            spec = self._specs[claim] = spec_of(tensor, operator.title, role.name)
            if len(self._specs) > _CACHED:
                self._specs.clear()
        return spec, data

    def _weights(self, name: str, operator: Operator, field: str) -> Weights:
        try:
            return self.catalog.weights(name)
        except NotFoundError as error:
            title = operator.title
            raise NotFoundError(f"{title}: {field}: {error}", operator=title, field=field) from None
