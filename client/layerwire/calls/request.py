"""What a call is before it is bytes, and where all methods that make one end.

It knows the contract's messages; no operator in particular, neither arrays nor channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from google.protobuf.message import Message

from layerwire.calls import tensor_types

Answer_co = TypeVar("Answer_co", covariant=True)

# numpy array, torch tensor, number, nested lists of numbers, or the name of stored weights.
TensorLike: TypeAlias = tensor_types.TensorLike


class Request(NamedTuple):
    """What an operator call asks for, before it is bytes. Its operator may be shared: don't change it."""

    family: str  # "pool": field of Call, and of the answer in Answer
    operator: Message  # PoolOperator, ...; of run and differentiate the request without options and tensors
    tensors: Mapping[str, Any]  # request field -> numpy array, torch tensor, numbers, or name of stored weights
    outputs: tuple[str, ...]  # fields of the family's response that make up the answer, those present; () all of a map
    function: str  # "max_pool2d", for errors
    timeout_seconds: float | None = None  # None: the client's
    of: Request | None = None  # of differentiate: the call whose gradients are wanted


class Family(Generic[Answer_co]):
    """Methods of one family of operators, each of which ends in `call`.

    Args:
        call: what becomes of a request.
    """

    def __init__(self, call: Callable[[Request], Answer_co]) -> None:
        self.call = call


def tensors_by_field(**tensors: TensorLike | None) -> dict[str, Any]:
    """The tensors that are there."""
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
