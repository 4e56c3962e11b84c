"""The picture of a photograph's stages: a row for each filter, a column for each layer, and a detail enlarged.

It knows matplotlib; nothing of servers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from layerwire.demo.photograph import Stage

INK, PAPER, ACCENT = "#1c2733", "#ffffff", "#e4572e"
SIGNED, POSITIVE = "RdBu_r", "magma"
CLIPPED = 0.995  # the part of the values that decides the range of colours; the rest is glare
DETAIL = (196, 250, 60, 90)  # y, x, height, width in the photograph
DETAIL_ROW = 2  # the filter whose detail is shown


def draw(photograph: torch.Tensor, filters: Mapping[str, torch.Tensor], stages: Sequence[Stage], path: Path) -> None:
    """Writes the picture as PNG.

    Args:
        photograph: [3, H, W] in [0, 1].
        filters: kernel [3, K, K] by what it answers to, in the order of the stages' filters.
        stages: what each layer gave, [filters, H', W'].
        path: where to.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns, rows = len(stages) + 1, len(filters) + 1
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.75 * columns, 1.98 * rows),
        facecolor=PAPER,
        layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.02),
    )
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    _photograph_column(axes[:, 0], photograph, filters)
    for column, stage in enumerate(stages, start=1):
        _stage_column(axes[:, column], stage, round(photograph.shape[1] / stage.values.shape[1]))
    figure.suptitle(
        "One photograph, five layers, each computed by the server", color=INK, fontsize=15, weight="bold", y=1.02
    )
    figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.2)
    plt.close(figure)


def _photograph_column(axes: Any, photograph: torch.Tensor, filters: Mapping[str, torch.Tensor]) -> None:
    from matplotlib.patches import Rectangle

    pixels = photograph.permute(1, 2, 0).numpy()
    y, x, height, width = DETAIL
    for axis, (name, kernel) in zip(axes, filters.items(), strict=False):
        axis.imshow(pixels)
        axis.add_patch(Rectangle((x, y), width, height, fill=False, color=ACCENT, linewidth=1.4))
        axis.set_ylabel(name, color=INK, fontsize=11)
        inset = axis.inset_axes((0.02, 0.03, 0.26, 0.39))
        inset.imshow((kernel / kernel.abs().max() / 2 + 0.5).permute(1, 2, 0).numpy(), interpolation="nearest")
        inset.set_xticks([])
        inset.set_yticks([])
        inset.spines[:].set_color(PAPER)
    axes[0].set_title("photograph and filter", color=INK, fontsize=11)
    axes[-1].imshow(pixels[y : y + height, x : x + width], interpolation="nearest")
    axes[-1].set_ylabel(f"detail of\n{list(filters)[DETAIL_ROW]}", color=ACCENT, fontsize=11)


def _stage_column(axes: Any, stage: Stage, scale: int) -> None:
    has_negatives = bool((stage.values < 0).any())
    for axis, plane in zip(axes, stage.values, strict=False):
        _plane(axis, plane, plane, has_negatives)
    height, width = stage.values.shape[1:]
    axes[0].set_title(f"{stage.title}\n{len(stage.values)} x {height} x {width}", color=INK, fontsize=11)
    y, x, rows, columns = (size // scale for size in DETAIL)
    plane = stage.values[DETAIL_ROW]
    _plane(axes[-1], plane[y : y + rows, x : x + columns], plane, has_negatives)


def _plane(axis: Any, part: torch.Tensor, whole: torch.Tensor, has_negatives: bool) -> None:
    """Draws a plane, or a part of it in the colours of the whole."""
    reach = float(torch.quantile(whole.abs().flatten(), CLIPPED)) or 1.0
    axis.imshow(
        part.numpy(),
        cmap=SIGNED if has_negatives else POSITIVE,
        vmin=-reach if has_negatives else 0,
        vmax=reach,
        interpolation="nearest" if part is not whole else "antialiased",
    )
