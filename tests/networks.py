"""Networks built from torch.nn, small enough for tests, each with an example input.

They know torch alone. `NETWORKS` has a maker for each: it gives a seeded module in evaluation, with running statistics
that differ from channel to channel, and the shapes of its inputs without the batch axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


def mlp():
    return nn.Sequential(
        nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 4), nn.Softmax(dim=1)
    )


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = x.view(x.size(0), -1)
        x = F.relu(self.fc1(x))
        return self.fc3(F.relu(self.fc2(x)))


class Vgg(nn.Module):
    def __init__(self, widths=(8, 16, 32)):
        super().__init__()
        layers, channels = [], 3
        for width in widths:
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(channels * 4, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, 10), nn.LogSoftmax(dim=-1)
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class BasicBlock(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """He et al. 2015; `width` 64 is the original."""

    def __init__(self, width=64, classes=1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = width
        for stage in range(4):
            wide, stride = width << stage, 1 if stage == 0 else 2
            layer = nn.Sequential(BasicBlock(channels, wide, stride), BasicBlock(wide, wide, 1))
            setattr(self, f"layer{stage + 1}", layer)
            channels = wide
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InvertedResidual(nn.Module):
    def __init__(self, channels, width, stride, expand):
        super().__init__()
        hidden = channels * expand
        self.residual = stride == 1 and channels == width
        self.conv = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x):
        scale = x.mean((2, 3), keepdim=True)
        scale = F.hardsigmoid(self.fc2(F.silu(self.fc1(scale))))
        return x * scale.expand_as(x)


class MobileNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            InvertedResidual(8, 8, 1, 2),
            SqueezeExcite(8),
            InvertedResidual(8, 16, 2, 3),
        )
        self.classifier = nn.Linear(16, 5)

    def forward(self, x):
        return self.classifier(self.features(x).mean([2, 3]))


class ShuffleUnitV1(nn.Module):
    """Zhang et al. 2017: the shuffle written out as view, transpose, view, and once more as nn.ChannelShuffle."""

    def __init__(self, channels=12, groups=3):
        super().__init__()
        self.groups = groups
        self.compress = nn.Conv2d(channels, channels, 1, groups=groups)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.shuffle = nn.ChannelShuffle(groups)
        self.expand = nn.Conv2d(channels, channels, 1, groups=groups)

    def forward(self, x):
        y = F.relu(self.bn1(self.compress(x)))
        n, c, h, w = y.size()
        y = y.view(n, self.groups, c // self.groups, h, w)
        y = torch.transpose(y, 1, 2).contiguous().view(n, -1, h, w)
        y = self.shuffle(self.bn2(self.depthwise(y)))
        return F.relu(x + self.expand(y))


class ShuffleUnitV2(nn.Module):
    """Ma et al. 2018."""

    def __init__(self, channels=8):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False),
            nn.BatchNorm2d(half),
        )

    def forward(self, x):
        left, right = x.chunk(2, dim=1)
        return torch.channel_shuffle(torch.cat((left, self.branch(right)), dim=1), 2)


class SegNet(nn.Module):
    """Badrinarayanan et al. 2015: unpooling by the indices of the encoder's pools; odd sizes included."""

    def __init__(self):
        super().__init__()
        self.encoder1, self.encoder2 = self.stage(3, 6), self.stage(6, 8)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.decoder2, self.decoder1 = self.stage(8, 6), self.stage(6, 4)

    @staticmethod
    def stage(channels, width):
        return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    def forward(self, x):
        size1 = (x := self.encoder1(x)).size()
        x, indices1 = self.pool(x)
        size2 = (x := self.encoder2(x)).size()
        x, indices2 = self.pool(x)
        x = self.decoder2(self.unpool(x, indices2, output_size=size2))
        return self.decoder1(self.unpool(x, indices1, output_size=size1))


class UNet(nn.Module):
    """Ronneberger et al. 2015, with transposed convolutions, and pads where sizes don't agree."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = SegNet.stage(1, 4), SegNet.stage(4, 8)
        self.bottom = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, padding_mode="reflect"), nn.ELU())
        self.up2, self.up1 = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.join2, self.join1 = SegNet.stage(16, 8), SegNet.stage(8, 4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.up2(self.bottom(F.max_pool2d(second, 2)))
        x = self.join2(torch.cat([second, self.padded_like(x, second)], dim=1))
        x = self.join1(torch.cat([first, self.padded_like(self.up1(x), first)], dim=1))
        return torch.sigmoid(self.head(x))

    @staticmethod
    def padded_like(x, like):
        high, wide = like.shape[2] - x.shape[2], like.shape[3] - x.shape[3]
        return F.pad(x, [wide // 2, wide - wide // 2, high // 2, high - high // 2])


def cnn3d():
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(4, 8, (1, 3, 3), groups=2),
        nn.InstanceNorm3d(8, affine=True),
        nn.LeakyReLU(0.2),
        nn.AvgPool3d((2, 1, 1), ceil_mode=True),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


class TemporalBlock(nn.Module):
    """Bai et al. 2018: causal, dilated, weight-normalised."""

    def __init__(self, channels, width, dilation):
        super().__init__()
        self.left = 2 * dilation
        conv = nn.Conv1d(channels, width, 3, padding=self.left, dilation=dilation)
        self.conv = nn.utils.parametrizations.weight_norm(conv)
        self.norm, self.slope = nn.GroupNorm(2, width), nn.PReLU(width)
        self.residual = nn.Conv1d(channels, width, 1) if channels != width else nn.Identity()

    def forward(self, x):
        y = self.conv(x)[:, :, : -self.left].contiguous()
        return F.relu(self.slope(self.norm(y)) + self.residual(x))


class Temporal(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(TemporalBlock(3, 8, 1), TemporalBlock(8, 8, 2))
        self.pool = nn.AdaptiveMaxPool1d(4)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.pool(self.blocks(x)).transpose(1, 2))[:, -1]


class Network(NamedTuple):
    """How to make one, and the shapes of its inputs without the batch axis."""

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]


NETWORKS: dict[str, Network] = {
    "mlp": Network(mlp, ((20,),)),
    "lenet": Network(LeNet, ((1, 32, 32),)),
    "vgg": Network(Vgg, ((3, 32, 32),)),
    "resnet18-narrow": Network(lambda: ResNet18(8, 10), ((3, 64, 64),)),
    "mobilenet": Network(MobileNet, ((3, 32, 32),)),
    "shuffle-v1": Network(ShuffleUnitV1, ((12, 9, 7),)),
    "shuffle-v2": Network(ShuffleUnitV2, ((8, 6, 5),)),
    "segnet": Network(SegNet, ((3, 13, 18),)),
    "unet": Network(UNet, ((1, 22, 21),)),
    "cnn3d": Network(cnn3d, ((1, 8, 9, 10),)),
    "temporal": Network(Temporal, ((3, 24),)),
}


def build(make, seed=0):
    """A seeded module in evaluation whose running statistics and scales differ from channel to channel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make()
        for name, tensor in [*module.named_buffers(), *module.named_parameters()]:
            if tensor.is_floating_point() and tensor.ndim == 1 and "bias" not in name:
                low, high = (-0.3, 0.3) if "mean" in name else (0.5, 1.5)
                tensor.data.uniform_(low, high)
    return module.eval()


def inputs(network, rows, seed=1, dtype=torch.float32):
    """Inputs of `rows` rows for a network."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, *shape, generator=generator).to(dtype) for shape in network.shapes]
