"""`Differentiate`, the operator that another operator's gradients are: of an operator of the contract or of a program.

It knows operators and torch's autograd; nothing of messages, lanes or devices.

For y = f(x) and the gradients of a scalar by y it gives those by x, the vector-Jacobian product, as
torch.autograd.grad does: sigmoid's factor is y (1 - y), tanh's 1 - y^2, relu's 1 where x > 0 and else 0, leaky_relu's 1
where x > 0 and else negative_slope. The forward pass runs again; nothing is kept from call to call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import torch

from layerwire.errors import InvalidArgumentError
from layerwire.wire.dtypes import DTYPE_NAMES, TensorSpec
from layerwire_server.operators.operator import FLOATS, Input, Merge, Operator, Placement, Specs
from layerwire_server.programs.run import WEIGHTS, Run

_PASSES = 3  # a backward pass is about two forward passes
_NOT_DIFFERENTIABLE = re.compile(r"not differentiable with respect to argument '(\w+)'")


@dataclass(frozen=True)
class Differentiate(Operator):
    """Gradients of an operator.

    Attributes:
        of: the operator.
        grad_outputs: its outputs whose gradients the call brings; the others' are zero.
        grad_inputs: its inputs, or its program's constants, whose gradients the call asks for.
    """

    name = "differentiate"
    family = "differentiate"

    of: Operator
    grad_outputs: tuple[str, ...]
    grad_inputs: tuple[str, ...]

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """Not used: it is made of another operator."""
        raise NotImplementedError(type(message).__name__)

    @property
    def title(self) -> str:
        """See Operator."""
        return f"differentiate {self.of.title}"

    @property
    def inputs(self) -> tuple[Input, ...]:  # type: ignore[override]
        """Those of the operator, then the outputs' gradients."""
        return (*self.of.inputs, *(Input(name) for name in self.grad_outputs))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the inputs whose gradients it gives."""
        return self.grad_inputs

    @property
    def value_inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the operator."""
        return self.of.value_inputs

    def dtypes_on(self, device_type: str) -> frozenset[int]:
        """Those of the operator, as long as they are floating-point; a program knows its own."""
        dtypes = self.of.dtypes_on(device_type)
        return dtypes if isinstance(self.of, Run) else dtypes & FLOATS

    def check(self, specs: Specs) -> None:
        """See Operator."""
        own, gradients = self._split(specs)
        self.of.check(own)
        outputs = dict(zip(self.of.outputs, self.of.infer(own), strict=False))
        for name, gradient in zip(self.grad_outputs, gradients, strict=True):
            output = outputs.get(name)
            if output is None:
                raise self.invalid(name, f"must be an output, one of {', '.join(outputs)}")
            if gradient != output:
                assert gradient is not None
                raise self.invalid(name, f"must have a gradient of {_text_of(output)}, got {_text_of(gradient)}")
        roles = dict(zip((role.name for role in self.of.inputs), own, strict=True))
        constants = self._constants()
        for name in self.grad_inputs:
            spec = constants.get(name) or roles.get(name)
            if spec is None:
                names = ", ".join(
                    [*(role for role, input_spec in roles.items() if input_spec is not None), *constants][:50]
                )
                raise self.invalid("wanted", f"must be inputs of the call, out of {names}, got {name[:200]!r}")
            if spec.dtype not in FLOATS:
                raise self.invalid("wanted", f"must have floating-point dtypes, got {DTYPE_NAMES[spec.dtype]} {name}")

    def infer(self, specs: Specs) -> tuple[TensorSpec, ...]:
        """See Operator."""
        roles = dict(zip((role.name for role in self.of.inputs), specs, strict=False))
        constants = self._constants()
        return tuple(constants.get(name) or roles[name] for name in self.grad_inputs)  # type: ignore[misc]  # checked

    def placement(self, specs: Specs) -> Placement:
        """Alone: gradients of weights are sums over all rows."""
        return Placement(Merge.ALONE, self)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        own, _ = self._split(specs)
        return _PASSES * self.of.operations(own, self.of.infer(own))

    def work(self, specs: Specs, operations: int) -> float:
        """See Operator."""
        own, _ = self._split(specs)
        return _PASSES * self.of.work(own, operations // _PASSES)

    def output_bytes_bound(self, specs: Specs) -> int:
        """See Operator."""
        own, _ = self._split(specs)
        return max(self.of.output_bytes_bound(own), sum(spec.nbytes for spec in self.infer(specs)))

    def footprint_bytes(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator; autograd keeps every value of a program until the backward pass."""
        own, _ = self._split(specs)
        value_bytes = self.of.variant.all_bytes(own) if isinstance(self.of, Run) else 0
        return value_bytes + self.of.footprint_bytes(own, self.of.infer(own)) + super().footprint_bytes(specs, outputs)

    def check_values(self, tensors: tuple[torch.Tensor | None, ...]) -> None:
        """See Operator."""
        self.of.check_values(tensors[: len(self.of.inputs)])

    def run(self, *tensors: Any) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        count = len(self.of.inputs)
        with torch.inference_mode(mode=False), torch.enable_grad():
            try:
                return self._gradients([_normal(tensor) for tensor in tensors[:count]], tensors[count:])
            except RuntimeError as error:
                self._refuse(error)

    def _gradients(self, own: list[Any], gradients: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        leaves: dict[str, torch.Tensor] = {}
        for index, role in enumerate(self.of.inputs):
            if role == WEIGHTS:
                own[index] = self._weights(own[index], leaves)
            elif role.name in self.grad_inputs:
                own[index] = leaves[role.name] = own[index].detach().clone().requires_grad_()
        values = dict(zip(self.of.outputs, self.of.run(*own), strict=False))
        outputs = [
            (values[name], _normal(gradient)) for name, gradient in zip(self.grad_outputs, gradients, strict=True)
        ]
        # Some of torch's backward kernels refuse tensors without elements, whose gradients are zero anyway.
        outputs = [(output, gradient) for output, gradient in outputs if output.requires_grad and output.numel()]
        inputs = [leaves[name] for name in self.grad_inputs]
        results: Sequence[torch.Tensor | None] = [None] * len(inputs)
        if outputs:
            differentiable, by = zip(*outputs, strict=True)
            results = torch.autograd.grad(differentiable, inputs, by, allow_unused=True)
        return tuple(
            torch.zeros_like(leaf) if result is None else result.detach()
            for leaf, result in zip(inputs, results, strict=True)
        )

    def _weights(self, weights: tuple[torch.Tensor, ...], leaves: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        assert isinstance(self.of, Run)
        bound = []
        for (name, _), tensor in zip(self.of.variant.graph.constants, weights, strict=True):
            weight = _normal(tensor)
            if name in self.grad_inputs:
                weight = leaves[name] = weight.detach().clone().requires_grad_()
            bound.append(weight)
        return tuple(bound)

    def _constants(self) -> dict[str, TensorSpec]:
        if not isinstance(self.of, Run):
            return {}
        variant = self.of.variant
        return {name: spec for (name, _), spec in zip(variant.graph.constants, variant.constants, strict=True)}

    def _split(self, specs: Specs) -> tuple[Specs, Specs]:
        count = len(self.of.inputs)
        return specs[:count], specs[count:]

    def _refuse(self, error: RuntimeError) -> NoReturn:
        """Torch has no backward kernel for some dtypes, and differentiates by some inputs not at all."""
        argument = _NOT_DIFFERENTIABLE.search(str(error))
        if argument:
            rule = f"must be inputs that torch differentiates by: not {argument[1]}"
            raise self.invalid("wanted", rule) from None
        if "not implemented" in str(error) and not isinstance(error, torch.OutOfMemoryError):
            rule = "must have a dtype for which torch has the operator's gradient on this device"
            raise InvalidArgumentError(f"{self.title}: input {rule}", operator=self.title, field="input") from None
        raise error


def _normal(tensor: Any) -> Any:
    """A tensor that autograd may keep: those made in inference mode it may not."""
    return tensor.clone() if isinstance(tensor, torch.Tensor) and tensor.is_inference() else tensor


def _text_of(spec: TensorSpec) -> str:
    return f"{DTYPE_NAMES[spec.dtype]} {list(spec.shape)}"
