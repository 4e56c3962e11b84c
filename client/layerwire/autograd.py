"""The operators as differentiable functions of torch tensors: forward and backward are both calls of a server.

It knows the SDK's methods and torch's autograd; neither modules nor clients, but that these have views.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

import torch

from layerwire.calls import Calls, Request
from layerwire.client_methods import BlockingMethods

_BUFFERS = {"running_mean", "running_var"}  # outputs that torch updates in place, and differentiates not


class BlockingClient(Protocol):
    """A Client, or a view of one."""

    def options(self, *, timing: Literal[False]) -> Calls[Any]:
        """Its operators, whose calls return the bare answer."""


class Functional(BlockingMethods):
    """Every operator as a method that torch's autograd can go back through: `Functional(lw).conv2d(x, weight)`.

    What it gives is what the client gives. Where torch records, and a tensor among the arguments requires a gradient,
    `backward` is one call of `differentiate`, which asks for the gradients of those that require one. The server keeps
    nothing between the two: it runs the forward pass again. Gradients of gradients aren't there; torch says so.

    Of `run` the program's inputs can be differentiated by; its constants by `Client.differentiate` only.

    Args:
        client: whose server computes, with the options of a view: `Functional(lw.options(priority=3))`.
    """

    def __init__(self, client: BlockingClient) -> None:
        self._calls = client.options(timing=False)
        super().__init__(partial(_differentiable, self._calls))

    def __deepcopy__(self, memo: Any) -> Functional:
        """Itself: copies of a module go on using the one connection."""
        return self

    def __repr__(self) -> str:
        return f"Functional({self._calls!r})"


def _differentiable(calls: Calls[Any], request: Request) -> Any:
    """The answer of a request, which autograd can go back through if it records."""
    names = tuple(name for name, value in request.tensors.items() if isinstance(value, torch.Tensor))
    tensors = [request.tensors[name] for name in names]
    is_recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if not is_recorded or request.family == "differentiate":
        return calls.call(request)
    record = _RecordedCall(calls, request, names, [])
    outputs: tuple[torch.Tensor, ...] = _RemoteCall.apply(record, *tensors)  # type: ignore[no-untyped-call]
    return record.answer_with(outputs)


class _RecordedCall(NamedTuple):
    """A call that autograd records: the request, which of its tensors are torch's, and its outputs once there are some.

    Attributes:
        calls: whose server computes.
        request: the call as the caller made it.
        names: of its torch tensors.
        answer: what the call returned, with None in place of tensors; one entry when there is one.
    """

    calls: Calls[Any]
    request: Request
    names: tuple[str, ...]
    answer: list[Any]

    def with_tensors(self, tensors: tuple[torch.Tensor, ...]) -> Request:
        """The request with these for its torch tensors."""
        return self.request._replace(tensors={**self.request.tensors, **dict(zip(self.names, tensors, strict=True))})

    def tensors_of(self, answer: Any) -> dict[str, torch.Tensor]:
        """The tensors of an answer by the outputs' names."""
        self.answer.append(answer)
        if isinstance(answer, Mapping):
            return dict(answer)
        several = answer if isinstance(answer, tuple) else (answer,)
        return dict(zip(self.request.outputs, several, strict=False))  # those not given come last

    def answer_with(self, outputs: tuple[torch.Tensor, ...]) -> Any:
        """The answer with these for its tensors."""
        answer = self.answer.pop()
        if isinstance(answer, dict):
            answer.update(zip(answer, outputs, strict=True))
            return answer
        return outputs if isinstance(answer, tuple) else outputs[0]


class _RemoteCall(torch.autograd.Function):
    """One call as autograd sees it."""

    @staticmethod
    def forward(ctx: Any, record: _RecordedCall, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        answer = record.calls.call(record.with_tensors(tensors))
        # What torch makes of bytes is a view, which autograd lets nobody change in place; `data` is none.
        outputs = {name: output.data for name, output in record.tensors_of(answer).items()}
        ctx.record, ctx.outputs = record, tuple(outputs)
        ctx.version = getattr(answer, "version", None)
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        constants = [one for name, one in outputs.items() if name in _BUFFERS or not one.is_floating_point()]
        ctx.mark_non_differentiable(*constants)
        return tuple(outputs.values())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        record: _RecordedCall = ctx.record
        by_name = {name: value for name, value in zip(ctx.outputs, gradients, strict=True) if value is not None}
        is_needed = dict(zip(record.names, ctx.needs_input_grad[1:], strict=True))
        if not by_name:
            return None, *(None for _ in is_needed)
        tensors = ctx.saved_tensors
        request = record.with_tensors(tensors)
        if ctx.version is not None:
            request = _of_version(request, ctx.version)
        inputs = [name for name, needs_gradient in is_needed.items() if needs_gradient]
        answer = record.calls.differentiate(lambda _: request, by_name, inputs, timeout=request.timeout_seconds)
        results: dict[str, torch.Tensor | None] = {
            name: answer[name].to(tensor.device) if is_needed[name] else None
            for name, tensor in zip(is_needed, tensors, strict=True)
        }
        if torch.is_grad_enabled():  # create_graph: going back through the gradients is an error
            once = _OnceDifferentiable.apply(  # type: ignore[no-untyped-call]
                request.function, len(inputs), *(results[name] for name in inputs), *tensors
            )
            results.update(zip(inputs, once, strict=True))
        return None, *results.values()


class _OnceDifferentiable(torch.autograd.Function):
    """Gradients that depend on tensors in a way that autograd can't go back through."""

    @staticmethod
    def forward(ctx: Any, function: str, count: int, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.function = function
        return tuple(tensor.data for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> NoReturn:
        raise RuntimeError(f"{ctx.function}: a server has no gradients of gradients")


def _of_version(request: Request, version: int) -> Request:
    """The same run of the version that gave the outputs, wherever the name points by now."""
    operator: Any = type(request.operator)()
    operator.CopyFrom(request.operator)
    if operator.WhichOneof("program") == "name":
        operator.version = version
    return request._replace(operator=operator)
