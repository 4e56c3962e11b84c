"""The normalisations of torch.nn as remote modules, running statistics included.

It knows their namesakes and the SDK's methods; neither channels nor autograd.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from layerwire.nn.module import Remote


# fmt: off
class RemoteLayerNorm(Remote, nn.LayerNorm, function="layer_norm"): ...
class RemoteGroupNorm(Remote, nn.GroupNorm, function="group_norm"): ...
class RemoteRMSNorm(Remote, nn.RMSNorm, function="rms_norm"): ...
class RemoteLocalResponseNorm(Remote, nn.LocalResponseNorm, function="local_response_norm"): ...
# fmt: on


class _BatchNorm(Remote):
    """Batch norms of all dimensions; in training the server tells the updated running statistics."""

    def forward(self, input: Any) -> Any:
        """See Remote."""
        module: Any = self
        module._check_input_dim(input)  # noqa: SLF001  # torch's own rule
        mean, var, weight, bias, eps = (
            module.running_mean, module.running_var, module.weight, module.bias, module.eps
        )  # fmt: skip
        if not self.training and mean is not None:
            return self.functional.batch_norm(input, mean, var, weight, bias, eps=eps)
        if not (self.training and module.track_running_stats and mean is not None):
            return self.functional.batch_norm(input, None, None, weight, bias, training=True, eps=eps)
        module.num_batches_tracked.add_(1)
        momentum = 1.0 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
        before = mean.clone(), var.clone()  # autograd would notice that what it keeps is changed below
        output, _, _, new_mean, new_var = self.functional.batch_norm(
            input, *before, weight, bias, training=True, momentum=momentum, eps=eps, return_statistics=True
        )
        with torch.no_grad():
            mean.copy_(new_mean)
            var.copy_(new_var)
        return output


# fmt: off
class RemoteBatchNorm1d(_BatchNorm, nn.BatchNorm1d, function="batch_norm"): ...
class RemoteBatchNorm2d(_BatchNorm, nn.BatchNorm2d, function="batch_norm"): ...
class RemoteBatchNorm3d(_BatchNorm, nn.BatchNorm3d, function="batch_norm"): ...
# fmt: on


class _InstanceNorm(Remote):
    """Instance norms of all dimensions; running statistics, which few keep, are updated here."""

    def forward(self, input: Any) -> Any:
        """See Remote."""
        return nn.modules.instancenorm._InstanceNorm.forward(self, input)  # type: ignore[arg-type]  # noqa: SLF001

    def _apply_instance_norm(self, input: Any) -> Any:
        module: Any = self
        own = self.training or not module.track_running_stats
        mean, var = module.running_mean, module.running_var
        output = self.functional.instance_norm(
            input, None if own else mean, None if own else var, module.weight, module.bias, own, eps=module.eps
        )
        if own and mean is not None:
            self._track(input.detach(), mean, var, 0.0 if module.momentum is None else module.momentum)
        return output

    @staticmethod
    @torch.no_grad()
    def _track(input: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, momentum: float) -> None:
        """Moves running statistics towards the mean over samples of each one's own; variances are unbiased."""
        own_var, own_mean = torch.var_mean(input.flatten(2), dim=2)
        mean.lerp_(own_mean.mean(0).to(mean.dtype), momentum)
        var.lerp_(own_var.mean(0).to(var.dtype), momentum)


# fmt: off
class RemoteInstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d, function="instance_norm"): ...
class RemoteInstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d, function="instance_norm"): ...
class RemoteInstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d, function="instance_norm"): ...
# fmt: on
