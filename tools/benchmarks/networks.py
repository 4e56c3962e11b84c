"""What the compared servers have of their own: weights of a linear layer, an image, and two networks.

It knows torch and numpy alone, since peers' servers import it in environments of their own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

WEIGHT = torch.from_numpy(np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32))
BIAS = torch.from_numpy(np.random.default_rng(1).normal(size=512).astype(np.float32))
IMAGE = torch.from_numpy(np.random.default_rng(2).normal(size=(1, 3, 32, 32)).astype(np.float32))


class LeNet(nn.Module):
    """LeCun et al. 1998, figure 2, with ReLU and max pooling. Shape: [N, 3, 32, 32] -> [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(torch.flatten(x, 1)))
        logits: torch.Tensor = self.fc3(functional.relu(self.fc2(x)))
        return logits


def lenet() -> LeNet:
    """The same network in every process."""
    torch.manual_seed(3)
    return LeNet().eval()


def small_cnn() -> nn.Sequential:
    """Convolution of 3 to 16 channels, batch norm, ReLU, pooling, linear. Shape: [N, 3, 32, 32] -> [N, 10].

    The same in every process; its running statistics differ from channel to channel.
    """
    torch.manual_seed(4)
    norm = nn.BatchNorm2d(16)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.uniform_(-0.1, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
    layers = nn.Conv2d(3, 16, 3, padding=1), norm, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4096, 10)
    return nn.Sequential(*layers).eval()


def deep_cnn() -> nn.Sequential:
    """Five convolutions on little data, so that the server is the bottleneck. Shape: [N, 3, 16, 16] -> [N, 10]."""
    torch.manual_seed(5)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(4), nn.Flatten(), nn.Linear(1024, 10)).eval()
