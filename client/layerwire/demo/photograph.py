"""A photograph on its way through convolution, batch norm, ReLU, max pooling and unpooling.

It doesn't know who computes: `layers` is a layerwire.Client or torch.nn.functional, which are written alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

POOL = 2
EXTENT = 5  # of the kernels


@dataclass(frozen=True)
class Stage:
    """What a layer gave: its title for people, and values of shape [filters, height, width]."""

    title: str
    values: torch.Tensor


def load() -> torch.Tensor:
    """scikit-learn's photograph of a temple. Shape: [3, 427, 640], float32 in [0, 1]."""
    from sklearn.datasets import load_sample_image

    pixels = np.asarray(load_sample_image("china.jpg"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def kernels() -> dict[str, torch.Tensor]:
    """Four filters by what they answer to. Shape of each: [3, 5, 5], float32."""
    axis = torch.linspace(-1, 1, EXTENT)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    bell = torch.exp(-(x**2 + y**2) / 0.5)
    spots = (1 - (x**2 + y**2) / 0.5) * bell
    grey = torch.full((3, 1, 1), 1 / 3)
    warm = torch.tensor([1.0, 0.0, -1.0]).reshape(3, 1, 1)
    return {
        "vertical edges": grey * (x * bell),
        "horizontal edges": grey * (y * bell),
        "spots and lines": grey * (spots - spots.mean()),
        "red against blue": warm * bell / bell.sum(),
    }


def stages(layers: Any, photograph: torch.Tensor, weight: torch.Tensor) -> list[Stage]:
    """The photograph after each layer.

    Args:
        layers: what has conv2d, batch_norm, relu, max_pool2d and max_unpool2d.
        photograph: [3, H, W].
        weight: [filters, 3, 5, 5].
    """
    edges = layers.conv2d(photograph[None], weight, padding=EXTENT // 2)
    scaled_edges = layers.batch_norm(edges, None, None, training=True)
    positive = layers.relu(scaled_edges)
    maxima, indices = layers.max_pool2d(positive, POOL, return_indices=True)
    maxima_in_place = layers.max_unpool2d(maxima, indices, POOL, output_size=positive.shape[2:])
    titles = ("convolution", "batch norm", "ReLU", "max pooling, 2 x 2", "max unpooling")
    values = (edges, scaled_edges, positive, maxima, maxima_in_place)
    return [Stage(title, value[0]) for title, value in zip(titles, values, strict=True)]


def difference(remote: list[Stage], local: list[Stage]) -> float:
    """The largest absolute difference between two ways through the same layers."""
    return max(float((here.values - there.values).abs().max()) for here, there in zip(remote, local, strict=True))
