"""The operators as differentiable functions of torch tensors: forward and backward are both calls of a server.

It knows the SDK's methods and torch's autograd; no module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import torch

from layerwire.calls import Calls, Request
from layerwire.client import BlockingCalls

_BUFFERS = {"running_mean", "running_var"}  # outputs that torch updates in place, and differentiates not


class Functional(Calls[Any]):
    """Every operator as a method that torch's autograd can go back through: `Functional(lw).conv2d(x, weight)`.

    What it gives is what the client gives. Where torch records, and a tensor among the arguments requires a gradient,
    `backward` is one call of `differentiate`, which asks for the gradients of those that require one. The server keeps
    nothing between the two: it runs the forward pass again. Gradients of gradients aren't there; torch says so.

    Of `run` the program's inputs can be differentiated by; its constants by `Client.differentiate` only.

    Args:
        client: whose server computes, with the options of a view: `Functional(lw.options(priority=3))`.
    """

    def __init__(self, client: BlockingCalls) -> None:
        self._calls = client.options(timing=False)

    def __deepcopy__(self, memo: Any) -> Functional:
        """Itself: copies of a module go on using the one connection."""
        return self

    def __repr__(self) -> str:
        return f"Functional({self._calls!r})"

    def _call(self, request: Request) -> Any:
        names = tuple(name for name, value in request.tensors.items() if isinstance(value, torch.Tensor))
        tensors = [request.tensors[name] for name in names]
        recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        if not recorded or request.family == "differentiate":
            return self._calls._call(request)  # noqa: SLF001  # what all its methods end in
        pending = _Pending(self._calls, request, names, [])
        outputs: tuple[torch.Tensor, ...] = _Remote.apply(pending, *tensors)  # type: ignore[no-untyped-call]
        return pending.assembled(outputs)


class _Pending(NamedTuple):
    """A call that autograd records: the request, which of its tensors are torch's, and its outputs once there are some.

    Attributes:
        calls: whose server computes.
        request: what is asked for.
        names: of its torch tensors.
        answer: what the call returned, with None in place of tensors; one entry when there is one.
    """

    calls: BlockingCalls
    request: Request
    names: tuple[str, ...]
    answer: list[Any]

    def with_tensors(self, tensors: tuple[torch.Tensor, ...]) -> Request:
        """The request with these for its torch tensors."""
        return self.request._replace(tensors={**self.request.tensors, **dict(zip(self.names, tensors, strict=True))})

    def taken_apart(self, answer: Any) -> dict[str, torch.Tensor]:
        """The tensors of an answer by the outputs' names."""
        self.answer.append(answer)
        if isinstance(answer, Mapping):
            return dict(answer)
        several = answer if isinstance(answer, tuple) else (answer,)
        return dict(zip(self.request.outputs, several, strict=False))  # those not given come last

    def assembled(self, outputs: tuple[torch.Tensor, ...]) -> Any:
        """The answer with these for its tensors."""
        answer = self.answer.pop()
        if isinstance(answer, dict):
            answer.update(zip(answer, outputs, strict=True))
            return answer
        return outputs if isinstance(answer, tuple) else outputs[0]


class _Remote(torch.autograd.Function):
    """One call as autograd sees it."""

    @staticmethod
    def forward(ctx: Any, pending: _Pending, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        answer = pending.calls._call(pending.with_tensors(tensors))  # noqa: SLF001
        # What torch makes of bytes is a view, which autograd lets nobody change in place; `data` is none.
        outputs = {name: output.data for name, output in pending.taken_apart(answer).items()}
        ctx.pending, ctx.outputs = pending, tuple(outputs)
        ctx.version = getattr(answer, "version", None)
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        fixed = [one for name, one in outputs.items() if name in _BUFFERS or not one.is_floating_point()]
        ctx.mark_non_differentiable(*fixed)
        return tuple(outputs.values())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        pending: _Pending = ctx.pending
        needed = dict(zip(pending.names, ctx.needs_input_grad[1:], strict=True))
        given = {name: value for name, value in zip(ctx.outputs, gradients, strict=True) if value is not None}
        if not given:
            return None, *(None for _ in needed)
        tensors = ctx.saved_tensors
        request = pending.with_tensors(tensors)
        if ctx.version is not None:
            request = _of_version(request, ctx.version)
        wanted = [name for name, is_needed in needed.items() if is_needed]
        found = pending.calls.differentiate(lambda _: request, given, wanted, timeout=request.timeout_seconds)
        results: dict[str, torch.Tensor | None] = {
            name: found[name].to(tensor.device) if needed[name] else None
            for name, tensor in zip(needed, tensors, strict=True)
        }
        if (
            torch.is_grad_enabled()
        ):  # with create_graph: who goes back through the gradients is told that there's no way
            last = _Last.apply(request.function, len(wanted), *(results[name] for name in wanted), *tensors)  # type: ignore[no-untyped-call]
            results.update(zip(wanted, last, strict=True))
        return None, *results.values()


class _Last(torch.autograd.Function):
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
