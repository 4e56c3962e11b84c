"""Turns calls of the activations of torch.nn.functional into Requests; `activate` takes their name as an argument.

It knows their messages; neither channels nor torch.
"""

from __future__ import annotations

from typing import Any, SupportsFloat, SupportsIndex

from layerwire.calls.activate_axis import AxisCalls
from layerwire.calls.arguments import flag, number, outplace, seed_of
from layerwire.calls.request import Answer_co, Request, TensorLike
from layerwire.errors import invalid
from layerwire.v1 import operators_pb2 as messages

_FIELDS = messages.ActivateOperator.DESCRIPTOR.fields
ACTIVATIONS = frozenset(field.name for field in _FIELDS)


def _plain_operator(name: str) -> messages.ActivateOperator:
    operator = messages.ActivateOperator()
    getattr(operator, name).SetInParent()
    return operator


# Operators without parameters, one shared message each: these are the calls that come by the ten thousand a second.
_PLAIN = {
    field.name: _plain_operator(field.name) for field in _FIELDS if field.message_type and not field.message_type.fields
}


class ActivateCalls(AxisCalls[Answer_co]):
    """Every activation, by method and by name."""

    def activate(self, input: TensorLike, name: str, /, **parameters: Any) -> Answer_co:
        """The activation of that name: `activate(x, "leaky_relu", negative_slope=0.2)` is `leaky_relu(x, 0.2)`.

        Shape: that of the activation, mostly any -> the same
        """
        if not isinstance(name, str):
            raise TypeError(f"activate: name must be a string, got {type(name).__name__}")
        if name not in ACTIVATIONS:
            raise invalid("activate", "name", f'must be one of {", ".join(sorted(ACTIVATIONS))}, got "{name[:40]}"')
        answer: Answer_co = getattr(self, name)(input, **parameters)
        return answer

    def _plain(self, function: str, input: TensorLike, timeout: float | None) -> Answer_co:
        return self.call(Request("activate", _PLAIN[function], {"input": input}, ("output",), function, timeout))

    def relu(self, input: TensorLike, inplace: bool = False, *, timeout: float | None = None) -> Answer_co:
        """max(x, 0).

        Shape: any -> the same
        """
        outplace("relu", inplace)
        return self._plain("relu", input, timeout)

    def relu6(self, input: TensorLike, inplace: bool = False, *, timeout: float | None = None) -> Answer_co:
        """min(max(x, 0), 6).

        Shape: any -> the same
        """
        outplace("relu6", inplace)
        return self._plain("relu6", input, timeout)

    def threshold(
        self,
        input: TensorLike,
        threshold: SupportsFloat,
        value: SupportsFloat,
        inplace: bool = False,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """x where x > threshold, value elsewhere.

        Shape: any -> the same
        """
        outplace("threshold", inplace)
        message = messages.Threshold(
            threshold=number("threshold", "threshold", threshold), value=number("threshold", "value", value)
        )
        return self._activate("threshold", messages.ActivateOperator(threshold=message), input, timeout)

    def hardtanh(
        self,
        input: TensorLike,
        min_val: SupportsFloat = -1.0,
        max_val: SupportsFloat = 1.0,
        inplace: bool = False,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """x clipped to [min_val, max_val].

        Shape: any -> the same
        """
        outplace("hardtanh", inplace)
        message = messages.Hardtanh(
            min_val=number("hardtanh", "min_val", min_val), max_val=number("hardtanh", "max_val", max_val)
        )
        return self._activate("hardtanh", messages.ActivateOperator(hardtanh=message), input, timeout)

    def hardswish(self, input: TensorLike, inplace: bool = False, *, timeout: float | None = None) -> Answer_co:
        """x * hardsigmoid(x).

        Shape: any -> the same
        """
        outplace("hardswish", inplace)
        return self._plain("hardswish", input, timeout)

    def hardsigmoid(self, input: TensorLike, inplace: bool = False, *, timeout: float | None = None) -> Answer_co:
        """x / 6 + 1 / 2 clipped to [0, 1].

        Shape: any -> the same
        """
        outplace("hardsigmoid", inplace)
        return self._plain("hardsigmoid", input, timeout)

    def elu(
        self, input: TensorLike, alpha: SupportsFloat = 1.0, inplace: bool = False, *, timeout: float | None = None
    ) -> Answer_co:
        """x where x > 0, alpha * (exp(x) - 1) elsewhere.

        Shape: any -> the same
        """
        outplace("elu", inplace)
        message = messages.Elu(alpha=number("elu", "alpha", alpha))
        return self._activate("elu", messages.ActivateOperator(elu=message), input, timeout)

    def selu(self, input: TensorLike, inplace: bool = False, *, timeout: float | None = None) -> Answer_co:
        """scale * (max(0, x) + min(0, alpha * (exp(x) - 1))) with the constants of Klambauer et al. 2017.

        Shape: any -> the same
        """
        outplace("selu", inplace)
        return self._plain("selu", input, timeout)

    def celu(
        self, input: TensorLike, alpha: SupportsFloat = 1.0, inplace: bool = False, *, timeout: float | None = None
    ) -> Answer_co:
        """max(0, x) + min(0, alpha * (exp(x / alpha) - 1)).

        Shape: any -> the same
        """
        outplace("celu", inplace)
        message = messages.Celu(alpha=number("celu", "alpha", alpha))
        return self._activate("celu", messages.ActivateOperator(celu=message), input, timeout)

    def leaky_relu(
        self,
        input: TensorLike,
        negative_slope: SupportsFloat = 0.01,
        inplace: bool = False,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """x where x > 0, negative_slope * x elsewhere.

        Shape: any -> the same
        """
        outplace("leaky_relu", inplace)
        message = messages.LeakyRelu(negative_slope=number("leaky_relu", "negative_slope", negative_slope))
        return self._activate("leaky_relu", messages.ActivateOperator(leaky_relu=message), input, timeout)

    def prelu(self, input: TensorLike, weight: TensorLike, *, timeout: float | None = None) -> Answer_co:
        """x where x > 0, weight * x elsewhere; `weight` is one value, or one a channel (axis 1).

        Shape: any -> the same
        """
        tensors = {"input": input, "weight": weight}
        return self.call(Request("activate", _PLAIN["prelu"], tensors, ("output",), "prelu", timeout))

    def rrelu(
        self,
        input: TensorLike,
        lower: SupportsFloat = 1.0 / 8,
        upper: SupportsFloat = 1.0 / 3,
        training: bool = False,
        inplace: bool = False,
        *,
        seed: SupportsIndex | None = None,
        timeout: float | None = None,
    ) -> Answer_co:
        """Leaky ReLU whose slopes are drawn from [lower, upper] in training, and are their mean else.

        The slope of element i depends on (seed, i) alone; `seed` None draws a fresh one.

        Shape: any -> the same
        """
        outplace("rrelu", inplace)
        message = messages.Rrelu(
            lower=number("rrelu", "lower", lower),
            upper=number("rrelu", "upper", upper),
            training=flag("rrelu", "training", training),
        )
        if training:
            message.seed = seed_of("rrelu", seed)
        return self._activate("rrelu", messages.ActivateOperator(rrelu=message), input, timeout)

    def gelu(self, input: TensorLike, approximate: str = "none", *, timeout: float | None = None) -> Answer_co:
        """x * Phi(x), the normal distribution function; `approximate` "tanh" for its approximation.

        Shape: any -> the same
        """
        message = messages.Gelu(approximate=_text("gelu", "approximate", approximate))
        return self._activate("gelu", messages.ActivateOperator(gelu=message), input, timeout)

    def silu(self, input: TensorLike, inplace: bool = False, *, timeout: float | None = None) -> Answer_co:
        """x * sigmoid(x).

        Shape: any -> the same
        """
        outplace("silu", inplace)
        return self._plain("silu", input, timeout)

    def mish(self, input: TensorLike, inplace: bool = False, *, timeout: float | None = None) -> Answer_co:
        """x * tanh(softplus(x)).

        Shape: any -> the same
        """
        outplace("mish", inplace)
        return self._plain("mish", input, timeout)

    def softplus(
        self,
        input: TensorLike,
        beta: SupportsFloat = 1.0,
        threshold: SupportsFloat = 20.0,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """log(1 + exp(beta x)) / beta, x itself where beta x > threshold.

        Shape: any -> the same
        """
        message = messages.Softplus(
            beta=number("softplus", "beta", beta), threshold=number("softplus", "threshold", threshold)
        )
        return self._activate("softplus", messages.ActivateOperator(softplus=message), input, timeout)

    def softsign(self, input: TensorLike, *, timeout: float | None = None) -> Answer_co:
        """x / (1 + |x|).

        Shape: any -> the same
        """
        return self._plain("softsign", input, timeout)

    def logsigmoid(self, input: TensorLike, *, timeout: float | None = None) -> Answer_co:
        """log(sigmoid(x)).

        Shape: any -> the same
        """
        return self._plain("logsigmoid", input, timeout)

    def tanhshrink(self, input: TensorLike, *, timeout: float | None = None) -> Answer_co:
        """x - tanh(x).

        Shape: any -> the same
        """
        return self._plain("tanhshrink", input, timeout)

    def softshrink(self, input: TensorLike, lambd: SupportsFloat = 0.5, *, timeout: float | None = None) -> Answer_co:
        """x moved towards 0 by lambd, 0 where |x| <= lambd.

        Shape: any -> the same
        """
        message = messages.Softshrink(lambd=number("softshrink", "lambd", lambd))
        return self._activate("softshrink", messages.ActivateOperator(softshrink=message), input, timeout)

    def hardshrink(self, input: TensorLike, lambd: SupportsFloat = 0.5, *, timeout: float | None = None) -> Answer_co:
        """x, 0 where |x| <= lambd.

        Shape: any -> the same
        """
        message = messages.Hardshrink(lambd=number("hardshrink", "lambd", lambd))
        return self._activate("hardshrink", messages.ActivateOperator(hardshrink=message), input, timeout)

    def tanh(self, input: TensorLike, *, timeout: float | None = None) -> Answer_co:
        """Hyperbolic tangent.

        Shape: any -> the same
        """
        return self._plain("tanh", input, timeout)

    def sigmoid(self, input: TensorLike, *, timeout: float | None = None) -> Answer_co:
        """1 / (1 + exp(-x)).

        Shape: any -> the same
        """
        return self._plain("sigmoid", input, timeout)


def _text(function: str, name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{function}: {name} must be a string, got {type(value).__name__}")
    return value
