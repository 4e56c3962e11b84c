"""Turns calls of the normalisations of torch.nn.functional into Requests.

It knows their messages; neither channels nor torch.
"""

from __future__ import annotations

from typing import SupportsFloat, SupportsIndex

from layerwire.calls.arguments import Size, flag, integer, number, sizes
from layerwire.calls.request import Answer_co, Family, Request, TensorLike, tensors_by_field
from layerwire.errors import invalid
from layerwire.v1 import operators_pb2 as messages

_STATISTICS = ("output", "batch_mean", "batch_var", "running_mean", "running_var")


class NormalizeCalls(Family[Answer_co]):
    """batch_norm, layer_norm, group_norm, instance_norm, rms_norm, local_response_norm, normalize."""

    def batch_norm(
        self,
        input: TensorLike,
        running_mean: TensorLike | None,
        running_var: TensorLike | None,
        weight: TensorLike | None = None,
        bias: TensorLike | None = None,
        training: bool = False,
        momentum: SupportsFloat = 0.1,
        eps: SupportsFloat = 1e-5,
        *,
        return_statistics: bool = False,
        timeout: float | None = None,
    ) -> Answer_co:
        """Normalises each channel by running statistics, or in training by the batch's own; [C] each.

        Unlike torch it changes no argument: in training, `return_statistics` gives the tuple (output, batch_mean,
        batch_var, running_mean, running_var), batch_var biased, the updated running ones only where some were given.

        Shape: [N, C, ...] -> the same
        """
        norm = messages.BatchNorm(
            training=flag("batch_norm", "training", training),
            momentum=number("batch_norm", "momentum", momentum),
            eps=number("batch_norm", "eps", eps),
            return_statistics=flag("batch_norm", "return_statistics", return_statistics),
        )
        operator = messages.NormalizeOperator(batch_norm=norm)
        tensors = tensors_by_field(
            input=input, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var
        )
        outputs = _STATISTICS if return_statistics else ("output",)
        return self.call(Request("normalize", operator, tensors, outputs, "batch_norm", timeout))

    def layer_norm(
        self,
        input: TensorLike,
        normalized_shape: Size,
        weight: TensorLike | None = None,
        bias: TensorLike | None = None,
        eps: SupportsFloat = 1e-5,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Normalises over the last axes; `weight` and `bias` have `normalized_shape`.

        Shape: [..., normalized_shape...] -> the same
        """
        norm = messages.LayerNorm(
            normalized_shape=sizes("layer_norm", "normalized_shape", normalized_shape),
            eps=number("layer_norm", "eps", eps),
        )
        operator = messages.NormalizeOperator(layer_norm=norm)
        tensors = tensors_by_field(input=input, weight=weight, bias=bias)
        return self.call(Request("normalize", operator, tensors, ("output",), "layer_norm", timeout))

    def group_norm(
        self,
        input: TensorLike,
        num_groups: SupportsIndex,
        weight: TensorLike | None = None,
        bias: TensorLike | None = None,
        eps: SupportsFloat = 1e-5,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Normalises over groups of channels of each sample; `weight` and `bias` are [C].

        Shape: [N, C, ...] -> the same
        """
        norm = messages.GroupNorm(
            num_groups=integer("group_norm", "num_groups", num_groups), eps=number("group_norm", "eps", eps)
        )
        operator = messages.NormalizeOperator(group_norm=norm)
        tensors = tensors_by_field(input=input, weight=weight, bias=bias)
        return self.call(Request("normalize", operator, tensors, ("output",), "group_norm", timeout))

    def instance_norm(
        self,
        input: TensorLike,
        running_mean: TensorLike | None = None,
        running_var: TensorLike | None = None,
        weight: TensorLike | None = None,
        bias: TensorLike | None = None,
        use_input_stats: bool = True,
        momentum: SupportsFloat = 0.1,
        eps: SupportsFloat = 1e-5,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Normalises each channel of each sample by its own statistics, or by running ones; [C] each.

        Unlike torch it changes no argument.

        Shape: [N, C, L...] -> the same
        """
        norm = messages.InstanceNorm(
            use_input_stats=flag("instance_norm", "use_input_stats", use_input_stats),
            momentum=number("instance_norm", "momentum", momentum),
            eps=number("instance_norm", "eps", eps),
        )
        operator = messages.NormalizeOperator(instance_norm=norm)
        tensors = tensors_by_field(
            input=input, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var
        )
        return self.call(Request("normalize", operator, tensors, ("output",), "instance_norm", timeout))

    def rms_norm(
        self,
        input: TensorLike,
        normalized_shape: Size,
        weight: TensorLike | None = None,
        eps: SupportsFloat | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Divides by the root mean square over the last axes; `eps` None is the dtype's machine epsilon.

        Shape: [..., normalized_shape...] -> the same
        """
        norm = messages.RmsNorm(
            normalized_shape=sizes("rms_norm", "normalized_shape", normalized_shape),
            eps=None if eps is None else number("rms_norm", "eps", eps),
        )
        operator = messages.NormalizeOperator(rms_norm=norm)
        tensors = tensors_by_field(input=input, weight=weight)
        return self.call(Request("normalize", operator, tensors, ("output",), "rms_norm", timeout))

    def local_response_norm(
        self,
        input: TensorLike,
        size: SupportsIndex,
        alpha: SupportsFloat = 0.0001,
        beta: SupportsFloat = 0.75,
        k: SupportsFloat = 1.0,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """x / (k + alpha / size * sum of x^2 over `size` neighbouring channels)^beta.

        Shape: [N, C, ...] -> the same
        """
        norm = messages.LocalResponseNorm(
            size=integer("local_response_norm", "size", size),
            alpha=number("local_response_norm", "alpha", alpha),
            beta=number("local_response_norm", "beta", beta),
            k=number("local_response_norm", "k", k),
        )
        operator = messages.NormalizeOperator(local_response_norm=norm)
        return self.call(Request("normalize", operator, {"input": input}, ("output",), "local_response_norm", timeout))

    def normalize(
        self,
        input: TensorLike,
        p: SupportsFloat = 2.0,
        dim: SupportsIndex = 1,
        eps: SupportsFloat = 1e-12,
        out: TensorLike | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Divides by the p-norm along one axis: x / max(||x||_p, eps). `out` must be None.

        Shape: any -> the same
        """
        if out is not None:
            raise invalid(
                "normalize", "out", "must be None, for the answer is a new tensor: no server writes in another"
            )
        norm = messages.LpNormalize(
            p=number("normalize", "p", p),
            dim=integer("normalize", "dim", dim),
            eps=number("normalize", "eps", eps),
        )
        operator = messages.NormalizeOperator(normalize=norm)
        return self.call(Request("normalize", operator, {"input": input}, ("output",), "normalize", timeout))
