"""Folding: batch norm in evaluation behind a convolution or a matrix product becomes part of its weights.

It knows graphs and operators; torch only to compute the folded weights.

With s = weight / sqrt(running_var + eps), an output channel c of (W, b) followed by the normalisation is that of
(s_c W_c, s_c (b_c - running_mean_c) + bias_c), in exact arithmetic; computed in float64 and rounded once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from layerwire.wire.dtypes import TensorSpec
from layerwire_server.operators.convolve import Conv
from layerwire_server.operators.convolve_transpose import ConvTranspose
from layerwire_server.operators.linear import Linear
from layerwire_server.operators.normalize_running import BatchNorm
from layerwire_server.programs.check import GraphSizes
from layerwire_server.programs.graph import ABSENT, Graph, Recipe, Step, StoredTensor

Load: TypeAlias = Callable[[Recipe], torch.Tensor]  # a stored or inline constant on the CPU


@dataclass(frozen=True)
class Normalisation:
    """The constants of a batch norm."""

    mean: Recipe
    var: Recipe
    weight: Recipe | None
    bias: Recipe | None
    eps: float

    def scale(self, load: Load) -> torch.Tensor:
        """s, in float64."""
        scale = (load(self.var).double() + self.eps).rsqrt()
        return scale if self.weight is None else scale * load(self.weight).double()

    def shift(self, load: Load) -> torch.Tensor:
        """Its bias, in float64."""
        mean = load(self.mean).double()
        return torch.zeros_like(mean) if self.bias is None else load(self.bias).double()


@dataclass(frozen=True)
class FoldedWeight:
    """A weight times the scale of what normalises its outputs; `groups` is 0 where axis 0 is the output channel."""

    weight: Recipe
    by: Normalisation
    groups: int

    def load(self, load: Load) -> torch.Tensor:
        """The tensor, on the CPU."""
        weight, scale = load(self.weight), self.by.scale(load)
        if not self.groups:
            product = weight.double() * scale.reshape(-1, *([1] * (weight.dim() - 1)))
        else:  # transposed: [in_channels, out_channels / groups, ...], and group g of both goes together
            groups = weight.double().reshape(self.groups, -1, *weight.shape[1:])
            product = groups * scale.reshape(self.groups, 1, -1, *([1] * (weight.dim() - 2)))
        return product.reshape(weight.shape).to(weight.dtype)


@dataclass(frozen=True)
class FoldedBias:
    """The bias that goes with a FoldedWeight."""

    bias: Recipe | None
    by: Normalisation
    dtype_of: Recipe

    def load(self, load: Load) -> torch.Tensor:
        """The tensor, on the CPU."""
        mean = load(self.by.mean).double()
        bias = torch.zeros_like(mean) if self.bias is None else load(self.bias).double()
        normalised = (bias - mean) * self.by.scale(load) + self.by.shift(load)
        return normalised.to(load(self.dtype_of).dtype)


def fold_batch_norms(graph: Graph, size: GraphSizes) -> tuple[Graph, Mapping[str, str]]:
    """The graph without the batch norms that can be folded, and for each the node it went into.

    Args:
        graph: the program's.
        size: its specs, at any size.
    """
    reads = Counter(slot for step in graph.steps for slot in step.inputs if slot != ABSENT)
    reads.update(slot for _, slot in graph.outputs)
    writer = {slot: step for step in graph.steps for slot in step.outputs}
    constants = {graph.first_constant + index: recipe for index, (_, recipe) in enumerate(graph.constants)}
    folded_into: dict[str, str] = {}
    products: dict[str, Step] = {}
    extra: list[tuple[str, Recipe]] = []
    for norm in graph.steps:
        product = writer.get(norm.inputs[0])
        if product is None or product.name in products or reads[norm.inputs[0]] > 1:
            continue
        by = _normalisation(norm, constants)
        if by is None or not _goes_with(product, norm, constants, size):
            continue
        folded_into[norm.name] = product.name
        recipes = _recipes(product, by, constants)
        slots = (graph.slots + len(extra), graph.slots + len(extra) + 1)
        extra += [(f"{product.name} folded weight", recipes[0]), (f"{product.name} folded bias", recipes[1])]
        products[product.name] = replace(product, inputs=(product.inputs[0], *slots), outputs=norm.outputs[:1])
    if not folded_into:
        return graph, {}
    steps = tuple(products.get(step.name, step) for step in graph.steps if step.name not in folded_into)
    return _renumber(graph, steps, extra), folded_into


def _normalisation(step: Step, constants: Mapping[int, Recipe]) -> Normalisation | None:
    operator = step.operator
    if not isinstance(operator, BatchNorm) or operator.training or operator.outputs != ("output",):
        return None
    roles = {role.name: slot for role, slot in zip(operator.inputs, step.inputs, strict=True)}
    tensors = {name: roles[name] for name in ("running_mean", "running_var", "weight", "bias")}
    if any(slot not in constants and slot != ABSENT for slot in tensors.values()):
        return None
    mean, var, weight, bias = (constants.get(slot) for slot in tensors.values())
    if mean is None or var is None:
        return None
    return Normalisation(mean, var, weight, bias, operator.eps)


def _goes_with(product: Step, norm: Step, constants: Mapping[int, Recipe], size: GraphSizes) -> bool:
    """Whether the product's output channels are what the norm normalises, and its weights are constants."""
    operator, output = product.operator, size.specs[product.outputs[0]]
    assert output is not None
    if isinstance(operator, Linear):
        axes = 2
    elif isinstance(operator, Conv | ConvTranspose):
        axes = operator.spatial_dims + 2
    else:
        return False
    weight, bias = product.inputs[1:]
    if weight not in constants or (bias != ABSENT and bias not in constants):
        return False
    spec = size.specs[weight]
    mean = size.specs[norm.inputs[[role.name for role in norm.operator.inputs].index("running_mean")]]
    assert spec is not None
    return len(output.shape) == axes and len(spec.shape) == axes and mean is not None and mean.dtype == spec.dtype


def _recipes(product: Step, by: Normalisation, constants: Mapping[int, Recipe]) -> tuple[FoldedWeight, FoldedBias]:
    weight, bias = product.inputs[1:]
    groups = product.operator.groups if isinstance(product.operator, ConvTranspose) else 0
    recipe = constants[weight]
    return FoldedWeight(recipe, by, groups), FoldedBias(constants.get(bias), by, recipe)


def _renumber(graph: Graph, steps: tuple[Step, ...], extra: list[tuple[str, Recipe]]) -> Graph:
    """The graph with these steps, its constants those that they read, old and added."""
    outputs = {slot for _, slot in graph.outputs}
    read = {slot for step in steps for slot in step.inputs} | outputs
    constants = [(graph.first_constant + index, *entry) for index, entry in enumerate(graph.constants)]
    constants += [(graph.slots + index, *entry) for index, entry in enumerate(extra)]
    needed = [entry for entry in constants if entry[0] in read]
    order = [*range(len(graph.inputs)), *(slot for slot, _, _ in needed)]
    order += [slot for step in steps for slot in step.outputs]
    place = {slot: index for index, slot in enumerate(order)} | {ABSENT: ABSENT}
    numbered_steps = tuple(
        replace(
            step,
            inputs=tuple(place[slot] for slot in step.inputs),
            outputs=tuple(place[slot] for slot in step.outputs),
        )
        for step in steps
    )
    return Graph(
        graph.inputs,
        tuple((name, recipe) for _, name, recipe in needed),
        numbered_steps,
        tuple((name, place[slot]) for name, slot in graph.outputs),
        len(order),
        {name: place[slot] for name, slot in graph.names.items() if slot in place},
    )


def spec_of(recipe: Recipe, plain: Callable[[Recipe], TensorSpec]) -> TensorSpec:
    """The spec of a recipe, `plain` knowing those that aren't folded."""
    if isinstance(recipe, FoldedWeight):
        return plain(recipe.weight)
    if isinstance(recipe, FoldedBias):
        return TensorSpec(plain(recipe.dtype_of).dtype, plain(recipe.by.mean).shape)
    return plain(recipe)


def needs(recipe: Recipe) -> tuple[StoredTensor, ...]:
    """The stored tensors that a constant is made of."""
    if isinstance(recipe, FoldedWeight):
        parts: tuple[Recipe | None, ...] = (recipe.weight, recipe.by.var, recipe.by.weight)
    elif isinstance(recipe, FoldedBias):
        by = recipe.by
        parts = (recipe.bias, recipe.dtype_of, by.mean, by.var, by.weight, by.bias)
    else:
        parts = (recipe,)
    return tuple(part for part in parts if isinstance(part, StoredTensor))
