"""What calls take for tensors, as types: arrays of numpy, tensors of torch, numbers, names of stored weights.

It must not know torch, which users may not have: a tensor of torch is what has a `cpu` that gives one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Tensor_co = TypeVar("Tensor_co", covariant=True)


class TorchTensor(Protocol[Tensor_co]):
    """A torch.Tensor, or what is one besides, such as torch.nn.Parameter; the type argument is torch.Tensor."""

    def cpu(self) -> Tensor_co:
        """The same in main memory."""


class TorchDType(Protocol):
    """A torch.dtype."""

    @property
    def is_floating_point(self) -> bool:
        """Whether it has fractions."""


Numbers: TypeAlias = float | np.generic | Sequence["Numbers | npt.NDArray[Any]"]
# What is answered with arrays of numpy: one of them, a number, nested lists of numbers, or the name of stored weights.
ArrayLike: TypeAlias = npt.NDArray[Any] | Numbers | str
TensorLike: TypeAlias = ArrayLike | TorchTensor[Any]
# A torch dtype, what numpy takes for one, or its name.
DTypeLike: TypeAlias = npt.DTypeLike | TorchDType
