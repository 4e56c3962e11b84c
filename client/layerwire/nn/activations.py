"""The activations of torch.nn as remote modules.

It knows their namesakes and the SDK's methods; neither channels nor autograd.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from layerwire.nn.module import Remote


class RemoteReLU(Remote, nn.ReLU, function="relu"):
    """torch.nn.ReLU, computed by a server."""


class RemoteReLU6(Remote, nn.ReLU6, function="relu6"):
    """torch.nn.ReLU6, computed by a server."""


class RemoteLeakyReLU(Remote, nn.LeakyReLU, function="leaky_relu"):
    """torch.nn.LeakyReLU, computed by a server."""


class RemotePReLU(Remote, nn.PReLU, function="prelu"):
    """torch.nn.PReLU, computed by a server."""


class RemoteELU(Remote, nn.ELU, function="elu"):
    """torch.nn.ELU, computed by a server."""


class RemoteSELU(Remote, nn.SELU, function="selu"):
    """torch.nn.SELU, computed by a server."""


class RemoteCELU(Remote, nn.CELU, function="celu"):
    """torch.nn.CELU, computed by a server."""


class RemoteGELU(Remote, nn.GELU, function="gelu"):
    """torch.nn.GELU, computed by a server."""


class RemoteSiLU(Remote, nn.SiLU, function="silu"):
    """torch.nn.SiLU, computed by a server."""


class RemoteMish(Remote, nn.Mish, function="mish"):
    """torch.nn.Mish, computed by a server."""


class RemoteSigmoid(Remote, nn.Sigmoid, function="sigmoid"):
    """torch.nn.Sigmoid, computed by a server."""


class RemoteLogSigmoid(Remote, nn.LogSigmoid, function="logsigmoid"):
    """torch.nn.LogSigmoid, computed by a server."""


class RemoteHardsigmoid(Remote, nn.Hardsigmoid, function="hardsigmoid"):
    """torch.nn.Hardsigmoid, computed by a server."""


class RemoteTanh(Remote, nn.Tanh, function="tanh"):
    """torch.nn.Tanh, computed by a server."""


class RemoteTanhshrink(Remote, nn.Tanhshrink, function="tanhshrink"):
    """torch.nn.Tanhshrink, computed by a server."""


class RemoteHardtanh(Remote, nn.Hardtanh, function="hardtanh"):
    """torch.nn.Hardtanh, computed by a server."""


class RemoteHardswish(Remote, nn.Hardswish, function="hardswish"):
    """torch.nn.Hardswish, computed by a server."""


class RemoteHardshrink(Remote, nn.Hardshrink, function="hardshrink"):
    """torch.nn.Hardshrink, computed by a server."""


class RemoteSoftshrink(Remote, nn.Softshrink, function="softshrink"):
    """torch.nn.Softshrink, computed by a server."""


class RemoteSoftplus(Remote, nn.Softplus, function="softplus"):
    """torch.nn.Softplus, computed by a server."""


class RemoteSoftsign(Remote, nn.Softsign, function="softsign"):
    """torch.nn.Softsign, computed by a server."""


class RemoteThreshold(Remote, nn.Threshold, function="threshold"):
    """torch.nn.Threshold, computed by a server."""


class RemoteGLU(Remote, nn.GLU, function="glu"):
    """torch.nn.GLU, computed by a server."""


class RemoteSoftmax(Remote, nn.Softmax, function="softmax"):
    """torch.nn.Softmax, computed by a server."""


class RemoteSoftmin(Remote, nn.Softmin, function="softmin"):
    """torch.nn.Softmin, computed by a server."""


class RemoteLogSoftmax(Remote, nn.LogSoftmax, function="log_softmax"):
    """torch.nn.LogSoftmax, computed by a server."""


class RemoteRReLU(Remote, nn.RReLU, function="rrelu"):
    """torch.nn.RReLU, computed by a server; in training its seed is drawn from torch's default generator."""

    def forward(self, input: Any) -> Any:
        """See Remote."""
        seed = int(torch.randint(1 << 62, ())) if self.training else None
        return self.functional.rrelu(input, self.lower, self.upper, self.training, seed=seed)


class RemoteSoftmax2d(Remote, nn.Softmax2d, function="softmax"):
    """torch.nn.Softmax2d, computed by a server: softmax over the channels of each place."""

    def forward(self, input: Any) -> Any:
        """See Remote; raises ValueError for input that isn't [N, C, H, W] or [C, H, W]."""
        if input.dim() not in (3, 4):
            raise ValueError(f"RemoteSoftmax2d: input must have 3 or 4 axes, got {input.dim()}")
        return self.functional.softmax(input, -3)
