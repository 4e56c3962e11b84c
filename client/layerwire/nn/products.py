"""The linear layers and convolutions of torch.nn as remote modules, and its sliding blocks.

It knows their namesakes and the SDK's methods; neither channels nor autograd.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn import functional as F

from layerwire.nn.module import Remote


# fmt: off
class RemoteLinear(Remote, nn.Linear, function="linear"): ...
class RemoteBilinear(Remote, nn.Bilinear, function="bilinear"): ...
class RemoteCosineSimilarity(Remote, nn.CosineSimilarity, function="cosine_similarity"): ...
class RemoteFold(Remote, nn.Fold, function="fold"): ...
class RemoteUnfold(Remote, nn.Unfold, function="unfold"): ...
# fmt: on


class _Conv(Remote):
    """Convolutions of all dimensions."""

    def forward(self, input: Any) -> Any:
        """See Remote."""
        module: Any = self
        padding = module.padding
        if module.padding_mode != "zeros":
            input = F.pad(input, module._reversed_padding_repeated_twice, mode=module.padding_mode)  # noqa: SLF001
            padding = 0
        return super().forward(input, padding=padding)


class RemoteConv1d(_Conv, nn.Conv1d, function="conv1d"):
    """torch.nn.Conv1d, computed by a server; `padding_mode` other than zeros pads here."""


class RemoteConv2d(_Conv, nn.Conv2d, function="conv2d"):
    """torch.nn.Conv2d, computed by a server; `padding_mode` other than zeros pads here."""


class RemoteConv3d(_Conv, nn.Conv3d, function="conv3d"):
    """torch.nn.Conv3d, computed by a server; `padding_mode` other than zeros pads here."""


class _ConvTranspose(Remote):
    """Transposed convolutions of all dimensions."""

    def forward(self, input: Any, output_size: Any = None) -> Any:
        """See Remote; `output_size` as in torch."""
        module: Any = self
        padding = module._output_padding(  # noqa: SLF001  # torch's own rule
            input,
            output_size,
            module.stride,
            module.padding,
            module.kernel_size,
            len(module.kernel_size),
            module.dilation,
        )
        return super().forward(input, output_padding=padding)


# fmt: off
class RemoteConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d, function="conv_transpose1d"): ...
class RemoteConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d, function="conv_transpose2d"): ...
class RemoteConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d, function="conv_transpose3d"): ...
# fmt: on
