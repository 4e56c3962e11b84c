"""Random numbers by counter: number i of a seed is a function of (seed, i), on every device, in any company.

It knows integers and torch; nothing of what the numbers are for.

The generator is SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), as in
Vigna's public-domain splitmix64.c: its state moves by a constant, so that its i-th output is a hash of
seed + i * constant. All of it is int64 arithmetic that wraps around, which CPU and CUDA do alike.
"""

from __future__ import annotations

import torch

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def bits(seed: int, count: int, device: torch.device) -> torch.Tensor:
    """The first `count` outputs of SplitMix64 from `seed`, 0 to 2**64 - 1, as int64 numbers of the same 64 bits."""
    state = torch.arange(1, count + 1, dtype=torch.int64, device=device)
    state.mul_(_as_int64(_GOLDEN)).add_(_as_int64(seed))
    state.bitwise_xor_(_shift_right(state, 30)).mul_(_as_int64(_FIRST))
    state.bitwise_xor_(_shift_right(state, 27)).mul_(_as_int64(_SECOND))
    return state.bitwise_xor_(_shift_right(state, 31))


def uniform(seed: int, count: int, device: torch.device) -> torch.Tensor:
    """Float64 numbers in [0, 1): multiples of 2**-53."""
    return _shift_right(bits(seed, count, device), 11).to(torch.float64).mul_(2.0**-53)


def gumbel(seed: int, count: int, device: torch.device) -> torch.Tensor:
    """Float64 numbers of the standard Gumbel distribution, -log(-log(u)); always finite."""
    # u is an odd multiple of 2**-53: never 0, never 1, and exact.
    u = _shift_right(bits(seed, count, device), 12).to(torch.float64).add_(0.5).mul_(2.0**-52)
    return u.log_().neg_().log_().neg_()


def _shift_right(state: torch.Tensor, places: int) -> torch.Tensor:
    """A logical shift to the right; torch's own fills with the sign."""
    return (state >> places).bitwise_and_((1 << (64 - places)) - 1)


def _as_int64(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
