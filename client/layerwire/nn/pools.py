"""The pools and unpools of torch.nn as remote modules.

It knows their namesakes and the SDK's methods; neither channels nor autograd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layerwire.nn.module import Remote


class _MaxPool(Remote):
    """Max pools of all kinds, which give a tensor, or with `return_indices` a pair."""

    if TYPE_CHECKING:  # as torch's own: an attribute decides

        def __call__(self, *inputs: torch.Tensor, **kwargs: Any) -> Any: ...


# fmt: off
class RemoteMaxPool1d(_MaxPool, nn.MaxPool1d, function="max_pool1d"): ...
class RemoteMaxPool2d(_MaxPool, nn.MaxPool2d, function="max_pool2d"): ...
class RemoteMaxPool3d(_MaxPool, nn.MaxPool3d, function="max_pool3d"): ...
class RemoteAvgPool1d(Remote, nn.AvgPool1d, function="avg_pool1d"): ...
class RemoteAvgPool2d(Remote, nn.AvgPool2d, function="avg_pool2d"): ...
class RemoteAvgPool3d(Remote, nn.AvgPool3d, function="avg_pool3d"): ...
class RemoteLPPool1d(Remote, nn.LPPool1d, function="lp_pool1d"): ...
class RemoteLPPool2d(Remote, nn.LPPool2d, function="lp_pool2d"): ...
class RemoteLPPool3d(Remote, nn.LPPool3d, function="lp_pool3d"): ...
class RemoteAdaptiveMaxPool1d(_MaxPool, nn.AdaptiveMaxPool1d, function="adaptive_max_pool1d"): ...
class RemoteAdaptiveMaxPool2d(_MaxPool, nn.AdaptiveMaxPool2d, function="adaptive_max_pool2d"): ...
class RemoteAdaptiveMaxPool3d(_MaxPool, nn.AdaptiveMaxPool3d, function="adaptive_max_pool3d"): ...
class RemoteAdaptiveAvgPool1d(Remote, nn.AdaptiveAvgPool1d, function="adaptive_avg_pool1d"): ...
class RemoteAdaptiveAvgPool2d(Remote, nn.AdaptiveAvgPool2d, function="adaptive_avg_pool2d"): ...
class RemoteAdaptiveAvgPool3d(Remote, nn.AdaptiveAvgPool3d, function="adaptive_avg_pool3d"): ...
# fmt: on


class _MaxUnpool(Remote):
    """Unpools of all dimensions."""

    def forward(self, input: Any, indices: Any, output_size: Any = None) -> Any:
        """See Remote; `output_size` as in torch."""
        return super().forward(input, indices, output_size=output_size)


# fmt: off
class RemoteMaxUnpool1d(_MaxUnpool, nn.MaxUnpool1d, function="max_unpool1d"): ...
class RemoteMaxUnpool2d(_MaxUnpool, nn.MaxUnpool2d, function="max_unpool2d"): ...
class RemoteMaxUnpool3d(_MaxUnpool, nn.MaxUnpool3d, function="max_unpool3d"): ...
# fmt: on


class RemoteFractionalMaxPool2d(_MaxPool, nn.FractionalMaxPool2d, function="fractional_max_pool2d"):
    """torch.nn.FractionalMaxPool2d, computed by a server; samples are drawn here, as torch draws them."""

    def forward(self, input: Any) -> Any:
        """See Remote."""
        module: Any = self
        samples = module._random_samples  # noqa: SLF001  # torch's own name
        return super().forward(input, _random_samples=_samples(input, 2) if samples is None else samples)


class RemoteFractionalMaxPool3d(_MaxPool, nn.FractionalMaxPool3d, function="fractional_max_pool3d"):
    """torch.nn.FractionalMaxPool3d, computed by a server; samples are drawn here, as torch draws them."""

    def forward(self, input: Any) -> Any:
        """See Remote."""
        module: Any = self
        samples = module._random_samples  # noqa: SLF001  # torch's own name
        return super().forward(input, _random_samples=_samples(input, 3) if samples is None else samples)


def _samples(input: torch.Tensor, spatial_dims: int) -> torch.Tensor:
    rows = 1 if input.dim() == spatial_dims + 1 else input.size(0)
    channels = input.size(-1 - spatial_dims)
    return torch.rand(rows, channels, spatial_dims, dtype=input.dtype, device=input.device)
