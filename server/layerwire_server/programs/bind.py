"""Binding: a program's constants as tensors, folded ones computed, and those elements checked that nodes look at.

It knows graphs and torch's CPU tensors; nothing of stores or devices.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from layerwire_server.operators.operator import TORCH_DTYPES
from layerwire_server.programs.fold import FoldedBias, FoldedWeight
from layerwire_server.programs.graph import ABSENT, Inline, Recipe, StoredTensor
from layerwire_server.programs.run import check_values
from layerwire_server.programs.variant import Variant


def bind(variant: Variant, tensors: Mapping[StoredTensor, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The constants of a variant's graph, in order, on the CPU.

    Raises:
        InvalidArgumentError: naming a node that can't take the elements of its weights.
    """

    def load(recipe: Recipe) -> torch.Tensor:
        if isinstance(recipe, FoldedWeight | FoldedBias):
            return recipe.load(load)
        return _inline(recipe) if isinstance(recipe, Inline) else tensors[recipe]

    graph = variant.graph
    bound = tuple(load(recipe) for _, recipe in graph.constants)
    constants = dict(enumerate(bound, graph.first_constant))
    for step in variant.checked_once:
        check_values(step, [constants[slot] if slot in constants else _shape(variant, slot) for slot in step.inputs])
    return bound


def _shape(variant: Variant, slot: int) -> torch.Tensor | None:
    """What a check may know of a value that calls bring."""
    spec = None if slot == ABSENT else variant.sizes[0].specs[slot]
    return None if spec is None else torch.empty(spec.shape, dtype=TORCH_DTYPES[spec.dtype], device="meta")


def _inline(recipe: Inline) -> torch.Tensor:
    dtype = TORCH_DTYPES[recipe.spec.dtype]
    if not recipe.data:
        return torch.empty(recipe.spec.shape, dtype=dtype)
    return torch.frombuffer(bytearray(recipe.data), dtype=dtype).view(recipe.spec.shape).clone()
