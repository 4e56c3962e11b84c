"""An example for each function: the fewest options with which `layerwire bench` can call it.

It knows command lines; neither what options mean nor torch.
"""

from __future__ import annotations

from layerwire_bench.sending.operands import Asked

_SPATIAL = {0: "8,64", 1: "4,4,64", 2: "4,4,16,16", 3: "2,4,8,8,8"}  # by the number of spatial axes
_OPTIONS = {  # function without its number of axes -> what it needs besides --shape
    "max_pool": "--kernel-size 2",
    "avg_pool": "--kernel-size 2",
    "lp_pool": "--norm-type 2 --kernel-size 2",
    "fractional_max_pool": "--kernel-size 2 --output-size 3",
    "adaptive_max_pool": "--output-size 3",
    "adaptive_avg_pool": "--output-size 3",
    "max_unpool": "--kernel-size 2",
    "threshold": "--threshold 0.1 --value 20",
    "unfold": "--kernel-size 3",
    "fold": "--output-size 16 --kernel-size 3",
    "layer_norm": "--normalized-shape 64",
    "rms_norm": "--normalized-shape 64",
    "group_norm": "--num-groups 2",
    "local_response_norm": "--size 3",
}
_SHAPES = {  # likewise -> its --shape, where the usual one doesn't fit
    "unfold": "1,3,16,16",
    "fold": "1,27,196",
    "conv_tbc": "16,2,8",
    "group_norm": "4,4,16",
    "instance_norm": "4,4,16",
    "local_response_norm": "4,4,16",
}


def example(function: str) -> str:
    """Words that follow `layerwire bench ADDRESS`: "max_pool2d --shape 4,4,16,16 --kernel-size 2"."""
    asked = Asked(function, (), {})
    shape = _SHAPES.get(asked.stem) or _SPATIAL[asked.dims]
    return " ".join([function, "--shape", shape, *_OPTIONS.get(asked.stem, "").split()])
