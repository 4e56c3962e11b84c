"""scikit-learn's handwritten digits and a small CNN for them: trained here with torch, run layer by layer anywhere.

It doesn't know who computes a layer: `layers` is torch.nn.functional, a layerwire.Client or an AsyncClient, which are
written alike.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch.nn import functional

SEED = 20
EPOCHS = 25
BATCH = 64
HELD_OUT = 450  # of 1,797

Weights: TypeAlias = Mapping[str, Any]  # tensors, or names of tensors that a server holds
Layer: TypeAlias = Callable[[Any, torch.Tensor], Any]  # of `layers` and x; gives a tensor, or what it gives there


class Digits(NamedTuple):
    """Images [N, 1, 8, 8] in [0, 1] and their labels [N]."""

    images: torch.Tensor
    labels: torch.Tensor


def load() -> tuple[Digits, Digits]:
    """The digits to train with and those held out, the same at every call."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.float32)[:, None] / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))
    images, labels = images[order], torch.from_numpy(bunch.target)[order]
    return Digits(images[HELD_OUT:], labels[HELD_OUT:]), Digits(images[:HELD_OUT], labels[:HELD_OUT])


def initial() -> dict[str, torch.Tensor]:
    """Weights to start from: He et al. 2015 for those that ReLU follows."""
    generator = torch.Generator().manual_seed(SEED)

    def uniform(*shape: int) -> torch.Tensor:
        fan_in = torch.Size(shape[1:]).numel()
        values: torch.Tensor = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        return values.requires_grad_()

    weights = {"conv1.weight": uniform(16, 1, 3, 3), "conv2.weight": uniform(32, 16, 3, 3)}
    for name, channels in (("norm1", 16), ("norm2", 32)):
        weights[f"{name}.weight"] = torch.ones(channels, requires_grad=True)
        weights[f"{name}.bias"] = torch.zeros(channels, requires_grad=True)
        weights[f"{name}.running_mean"] = torch.zeros(channels)
        weights[f"{name}.running_var"] = torch.ones(channels)
    for name, outputs, inputs in (("linear1", 64, 128), ("linear2", 10, 64)):
        weights[f"{name}.weight"] = uniform(outputs, inputs)
        weights[f"{name}.bias"] = torch.zeros(outputs, requires_grad=True)
    return weights


def network(weights: Weights, *, training: bool = False) -> list[Layer]:
    """The layers in order. Shape: [N, 1, 8, 8] -> [N, 10], logits."""

    def convolution(name: str) -> Layer:
        return lambda layers, x: layers.conv2d(x, weights[f"{name}.weight"], padding=1)

    def normalization(name: str) -> Layer:
        parts = [weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return lambda layers, x: layers.batch_norm(x, *parts, training=training)

    def linear(name: str) -> Layer:
        return lambda layers, x: layers.linear(x.flatten(1), weights[f"{name}.weight"], weights[f"{name}.bias"])

    return [
        convolution("conv1"),
        normalization("norm1"),
        lambda layers, x: layers.relu(x),
        lambda layers, x: layers.max_pool2d(x, 2),
        convolution("conv2"),
        normalization("norm2"),
        lambda layers, x: layers.relu(x),
        lambda layers, x: layers.max_pool2d(x, 2),
        linear("linear1"),
        lambda layers, x: layers.gelu(x),
        linear("linear2"),
    ]


def module(weights: Weights) -> torch.nn.Sequential:
    """The same network as a torch.nn.Module, in evaluation. Shape: [N, 1, 8, 8] -> [N, 10], logits."""
    nn = torch.nn
    layers = {
        "conv1": nn.Conv2d(1, 16, 3, padding=1, bias=False),
        "norm1": nn.BatchNorm2d(16),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(16, 32, 3, padding=1, bias=False),
        "norm2": nn.BatchNorm2d(32),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "linear1": nn.Linear(128, 64),
        "gelu": nn.GELU(),
        "linear2": nn.Linear(64, 10),
    }
    network = nn.Sequential(OrderedDict(layers)).eval()
    network.load_state_dict(dict(weights), strict=False)  # but for num_batches_tracked, which evaluation doesn't use
    return network


def train(digits: Digits, progress: Callable[[], None]) -> dict[str, torch.Tensor]:
    """Trained weights, the same at every call on one machine; calls `progress` after each of EPOCHS epochs."""
    weights = initial()
    parameters = [weight for weight in weights.values() if weight.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=1e-2)
    layers = network(weights, training=True)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(digits.images), generator=generator).split(BATCH):
            x = digits.images[rows]
            for layer in layers:
                x = layer(functional, x)
            loss = functional.cross_entropy(x, digits.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        progress()
    return {name: weight.detach() for name, weight in weights.items()}


def run(layers: Any, weights: Weights, images: torch.Tensor) -> list[torch.Tensor]:
    """What each layer of the network gives for images [N, 1, 8, 8]; the last are the logits [N, 10]."""
    outputs = []
    with torch.inference_mode():
        x = images
        for layer in network(weights):
            x = layer(layers, x)
            outputs.append(x)
    return outputs


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The part of logits [N, 10] that are largest at their label."""
    return float((logits.argmax(1) == labels).to(torch.float32).mean())
