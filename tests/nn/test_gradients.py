"""Gradients through a real server: gradcheck for every operator, the cases that have names, what autograd may ask."""

from __future__ import annotations

import copy
from collections import defaultdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import layerwire
from layerwire.errors import InvalidArgumentError
from layerwire.nn import Functional, RemoteLinear
from tests.operator_cases import Case, cases
from tests.operators.local import request_of

# Inputs that torch doesn't differentiate by.
FIXED = {"running_mean", "running_var", "samples"}
# Straight through: its gradient is, by intent, not that of what it computes.
HARD = {case.id for case in cases() if "gumbel" in case.function and request_of(case).operator.gumbel_softmax.hard}

# At a point where the function has no derivative, and torch gives one of those that could stand for it.
KINKS = {"normalize-zeros", "cosine-zeros"}


def fits(case: Case) -> bool:
    """Whether a case can be differentiated, as it is but in float64."""
    args, kwargs = case.arguments()
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    return (
        bool(floats)
        and kwargs.get("dtype") is None
        and case.id not in HARD | KINKS
        and all(tensor.dtype is torch.float32 and tensor.isfinite().all() for tensor in floats)
        and sum(tensor.numel() for tensor in floats) <= 20_000
        and all(output.isfinite().all() for output in case.answer())
    )


CASES = [case for case in cases() if fits(case)]
BY_FUNCTION: dict[str, list[Case]] = defaultdict(list)
for one in CASES:
    BY_FUNCTION[one.function].append(one)


def call_of(case: Case, f: Functional):
    """A case as a function of the tensors that it can be differentiated by, and these in float64."""
    request = request_of(case)
    names = [
        name
        for name, value in request.tensors.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point() and name not in FIXED
    ]
    fixed = {
        name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in request.tensors.items()
    }

    def call(*tensors):
        return f.call(request._replace(tensors=fixed | dict(zip(names, tensors, strict=True))))

    return call, [fixed[name].clone().requires_grad_() for name in names]


def elements(case: Case) -> int:
    """Of inputs and outputs: gradcheck makes a call for each."""
    args, kwargs = case.arguments()
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() for tensor in (*tensors, *case.answer()))


@pytest.mark.parametrize("function", sorted(BY_FUNCTION))
def test_gradcheck_of_every_operator(client: layerwire.Client, function: str) -> None:
    """All elements of the Jacobian, of the smallest case that has some; a projection of it where that is large."""
    case = min((one for one in BY_FUNCTION[function] if elements(one) > 1), key=elements)
    call, tensors = call_of(case, Functional(client))
    assert torch.autograd.gradcheck(call, tensors, fast_mode=elements(case) > 128)


def test_gradcheck_of_every_case(client: layerwire.Client) -> None:
    """A random projection of the Jacobian, of every row of the table."""
    f, wrong = Functional(client), []
    for case in CASES:
        call, tensors = call_of(case, f)
        try:
            torch.autograd.gradcheck(call, tensors, fast_mode=True, check_undefined_grad=False)
        except Exception as error:
            wrong.append((case.id, str(error)[:300]))
    assert not wrong
    assert len(CASES) > 400


def test_every_operator_is_among_them() -> None:
    """Those that gradcheck can't go through are named here, and have a test of their own or no gradient."""
    functions = {case.function for case in cases()}
    assert functions - set(BY_FUNCTION) == set()


def test_gumbel_softmax_hard_goes_straight_through(client: layerwire.Client) -> None:
    f = Functional(client)
    x = torch.randn(4, 5, dtype=torch.float64)
    output_gradient = torch.randn(4, 5, dtype=torch.float64)
    gradients = []
    for hard in (True, False):
        leaf = x.clone().requires_grad_()
        f.gumbel_softmax(leaf, hard=hard, seed=3).backward(output_gradient)
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)
    assert set(f.gumbel_softmax(x.requires_grad_(), hard=True, seed=3).flatten().tolist()) == {0.0, 1.0}


X = np.array([-3.0, -0.5, 0.0, 0.25, 2.0])
NAMED = {
    "sigmoid": lambda x: (1 / (1 + np.exp(-x))) * (1 - 1 / (1 + np.exp(-x))),
    "tanh": lambda x: 1 - np.tanh(x) ** 2,
    "relu": lambda x: np.where(x > 0, 1.0, 0.0),
    "leaky_relu": lambda x: np.where(x > 0, 1.0, 0.01),
}


@pytest.mark.parametrize("name", NAMED)
def test_named_derivatives(client: layerwire.Client, name: str) -> None:
    """sigmoid's y (1 - y), tanh's 1 - y^2, the steps of relu and leaky_relu, 0 included; times what comes back."""
    gradient = np.array([1.0, -2.0, 3.0, 0.5, 1.0])
    gradients = client.differentiate(lambda f: getattr(f, name)(X), gradient, ["input"])
    np.testing.assert_allclose(gradients["input"], gradient * NAMED[name](X), rtol=1e-14)
    leaf = torch.tensor(X, requires_grad=True)
    getattr(Functional(client), name)(leaf).sum().backward()
    np.testing.assert_allclose(leaf.grad, NAMED[name](X), rtol=1e-14)


def test_slope_of_leaky_relu(client: layerwire.Client) -> None:
    gradients = client.differentiate(lambda f: f.leaky_relu(X, 0.3), np.ones(5), ["input"])
    np.testing.assert_allclose(gradients["input"], np.where(X > 0, 1.0, 0.3), rtol=1e-14)


class Recorded(Functional):
    """Remembers what backward asks for."""

    def __init__(self, client: layerwire.Client) -> None:
        super().__init__(client)
        self.wanted: list[list[str]] = []
        real = self._calls.differentiate

        def differentiate(call, gradients, wanted, **kwargs):
            self.wanted.append(list(wanted))
            return real(call, gradients, wanted, **kwargs)

        self._calls.differentiate = differentiate  # type: ignore[method-assign]


def test_only_what_needs_a_gradient_is_asked_for(client: layerwire.Client) -> None:
    f = Recorded(client)
    x, w, b = torch.randn(3, 4), torch.randn(2, 4, requires_grad=True), torch.randn(2)
    f.linear(x, w, b).sum().backward()
    assert f.wanted == [["weight"]]
    torch.testing.assert_close(w.grad, x.sum(0).expand(2, 4))
    assert x.grad is None and b.grad is None


def test_nothing_is_recorded_where_nothing_needs_it(client: layerwire.Client) -> None:
    f = Functional(client)
    x = torch.randn(3, requires_grad=True)
    with torch.no_grad():
        assert not f.relu(x).requires_grad
    assert not f.relu(x.detach()).requires_grad
    assert isinstance(f.relu(np.ones(3)), np.ndarray)


def test_second_derivatives_are_refused(client: layerwire.Client) -> None:
    x = torch.randn(3, requires_grad=True)
    (first,) = torch.autograd.grad(Functional(client).sigmoid(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="sigmoid: a server has no gradients of gradients"):
        first.sum().backward()


def test_indices_have_no_gradient_and_values_have(client: layerwire.Client) -> None:
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    values, indices = Functional(client).max_pool2d(x, 2, return_indices=True)
    assert values.requires_grad and not indices.requires_grad
    values.sum().backward()
    local = x.detach().clone().requires_grad_()
    F.max_pool2d(local, 2).sum().backward()
    assert torch.equal(x.grad, local.grad)


def test_unpool_gives_no_gradient_to_what_was_written_over(client: layerwire.Client) -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0]]], requires_grad=True)
    Functional(client).max_unpool1d(x, torch.tensor([[[1, 1, 3]]]), 2).sum().backward()
    assert x.grad.tolist() == [[[0.0, 1.0, 1.0]]]


def test_what_changed_in_between_is_noticed(client: layerwire.Client) -> None:
    x, w = torch.randn(3, 4), torch.randn(2, 4, requires_grad=True)
    y = Functional(client).linear(x, w)
    x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_stored_weights_stand_beside_tensors(client: layerwire.Client) -> None:
    w = torch.randn(2, 4)
    client.put_weights("gradients/w", w)
    x = torch.randn(3, 4, requires_grad=True)
    Functional(client).linear(x, "gradients/w").sum().backward()
    torch.testing.assert_close(x.grad, w.sum(0).expand(3, 4))


def test_the_right_mistakes_are_named(client: layerwire.Client) -> None:
    x = torch.randn(2, 3)
    stats = torch.ones(3)
    with pytest.raises(InvalidArgumentError, match="running_mean"):
        client.differentiate(lambda f: f.batch_norm(x, stats, stats), x, ["running_mean"])
    with pytest.raises(InvalidArgumentError, match="weight"):
        client.differentiate(lambda f: f.relu(x), x, ["weight"])
    with pytest.raises(InvalidArgumentError, match="float32"):
        client.differentiate(lambda f: f.relu(x), x.double(), ["input"])


def test_tensors_without_elements_have_gradients_without(client: layerwire.Client) -> None:
    f = Functional(client)
    for x, call in ((torch.randn(0, 3, 4, 4), f.adaptive_max_pool2d), (torch.randn(2, 0, 4, 4), f.adaptive_avg_pool2d)):
        leaf = x.requires_grad_()
        call(leaf, 2).sum().backward()
        assert leaf.grad.shape == leaf.shape


def test_copies_of_a_module_share_the_client(client: layerwire.Client) -> None:
    layer = RemoteLinear(3, 2, client=client)
    other = copy.deepcopy(layer)
    assert other.functional is layer.functional
    assert other.weight is not layer.weight
    x = torch.randn(5, 3)
    assert torch.equal(layer(x), other(x))
