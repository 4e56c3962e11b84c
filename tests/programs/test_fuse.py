"""The other ways to run programs: networks by each of them against eager, and what is reordered or written over."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwire.export import export
from layerwire_server.operators import linear_kernels
from layerwire_server.operators.linear import Linear
from layerwire_server.operators.linear_kernels import BlocksMemory, attach_blocks
from layerwire_server.programs.bind import bind
from layerwire_server.programs.check import ProgramLimits
from layerwire_server.programs.graph import Inline, StoredTensor
from layerwire_server.programs.program import Program
from layerwire_server.programs.variant import Facts
from layerwire_server.worker.tensors import spec_of_tensor
from layerwire_server.worker.trials.trial import agree
from tests.networks import NETWORKS, build, inputs


@pytest.fixture(autouse=True)
def _few_rows_are_enough(monkeypatch):
    monkeypatch.setattr(linear_kernels, "_LEAST_ROWS", 1)


FACTS = Facts(ProgramLimits(1 << 30, 1 << 30, 1e12), "cpu")


def operator_and_weights(exported):
    """What runs a program, and its weights."""
    tensors = {}

    def spec_of(recipe):
        return recipe.spec if isinstance(recipe, Inline) else spec_of_tensor(tensor_of(recipe))

    def tensor_of(recipe):
        return tensors.setdefault(recipe, names[recipe.key])

    program = exported.program.__class__.FromString(exported.program.SerializeToString())
    names = dict(exported.tensors)
    for constant in program.constants:
        if constant.WhichOneof("content") == "tensor" and constant.tensor.WhichOneof("content") == "name":
            key = constant.tensor.name
            constant.stored.digest, constant.stored.key = "0" * 64, key
    run = Program("digest", program, spec_of, FACTS).operator(1, ())
    stored = {recipe: tensor_of(recipe) for recipe in run.variant.stored_tensors}
    assert all(isinstance(recipe, StoredTensor) for recipe in stored)
    return run, bind(run.variant, stored)


def of(module, *shape):
    torch.manual_seed(0)
    return operator_and_weights(export(module.eval(), torch.randn(2, *shape)))


def nodes(plan):
    return [entry.step.operator.name for entry in plan]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_networks_agree_with_eager(name, rows):
    network = NETWORKS[name]
    run, weights = operator_and_weights(export(build(network.make), *inputs(network, 2), name=name))
    x = inputs(network, rows, 1)
    copies = [tensor.clone() for tensor in x]
    with torch.inference_mode():
        expected = run.run(*x, weights)
        for kernel in run.kernels().values():
            assert agree(kernel(*x, weights), expected, exact=False)
            assert agree(kernel(*x, weights), kernel(*x, weights), exact=True)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(x, copies, strict=True)), "inputs are the callers'"


def test_relu_comes_after_the_pool_and_writes_over_it():
    layers = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)
    run, weights = of(nn.Sequential(*layers), 3, 8, 8)
    assert nodes(run.variant.plan) == ["conv", "relu", "max_pool"]
    assert nodes(run.variant.other_plans()["fused"]) == ["conv", "max_pool", "relu"]
    assert set(run.kernels()) == {"fused", "channels_last"}
    x = torch.randn(5, 3, 8, 8)
    with torch.inference_mode():
        (expected,) = run.run(x, weights)
        (output,) = run.kernels()["fused"](x, weights)
    assert torch.equal(output, expected)


class Shared(nn.Module):
    """A value that two nodes read, one of them a relu; and a relu of the input."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        y = self.conv(torch.relu(x))
        z = torch.relu(y)
        return nn.functional.max_pool2d(z, 2), y + 1.0, z


def test_other_pools_by_their_kernels():
    run, weights = of(nn.Sequential(nn.AvgPool2d(2), nn.Sigmoid()), 3, 8, 8)
    x = torch.randn(5, 3, 8, 8)
    with torch.inference_mode():
        assert agree(run.kernels()["fused"](x, weights), run.run(x, weights), exact=True)


def test_what_others_read_stays_as_it_is():
    run, weights = of(Shared(), 3, 9, 9)
    x = torch.randn(4, 3, 9, 9)
    with torch.inference_mode():
        expected = run.run(x, weights)
        copy = x.clone()
        for kernel in run.kernels().values():
            assert agree(kernel(x, weights), expected, exact=False)
            assert torch.equal(x, copy)


class Views(nn.Module):
    """A relu of a view, whose memory another view shows too."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 8)

    def forward(self, x):
        y = self.linear(x)
        return torch.relu(y.reshape(-1, 2, 4)), y.reshape(-1, 4, 2)


def test_views_arent_written_over():
    run, weights = of(Views(), 6)
    x = torch.randn(4, 6)
    with torch.inference_mode():
        expected = run.run(x, weights)
        for kernel in run.kernels().values():
            assert agree(kernel(x, weights), expected, exact=False)


def test_what_can_run_one_way_only_has_no_kernels():
    run, _ = of(nn.Sequential(nn.Linear(6, 8), nn.Sigmoid()), 6)
    assert run.kernels() == {}


@pytest.mark.skipif(not Linear().kernels(), reason="this build of torch has no oneDNN")
def test_products_with_large_weights_go_by_onednn():
    """In ways of their own, and by the same blocks each time; small ones go by BLAS."""
    run, weights = of(nn.Sequential(nn.Linear(100, 400), nn.Sigmoid(), nn.Linear(400, 10)), 100)
    memory = BlocksMemory(lambda: 1 << 30)
    for weight in weights:
        attach_blocks(weight, memory)
    x = torch.randn(9, 100)
    with torch.inference_mode():
        expected = run.run(x, weights)
        assert set(run.kernels()) == {"packed"}
        for _ in range(2):
            assert agree(run.kernels()["packed"](x, weights), expected, exact=False)
            assert memory.nbytes == 448 * 128 * 4


@pytest.mark.skipif(not Linear().kernels(), reason="this build of torch has no oneDNN")
def test_each_way_has_one_with_packed_products():
    layers = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 300)
    run, weights = of(nn.Sequential(*layers), 3, 8, 8)
    names = {"fused", "channels_last", "fused_packed", "channels_last_packed"}
    assert set(run.kernels()) == names
    x = torch.randn(5, 3, 8, 8)
    with torch.inference_mode():
        expected = run.run(x, weights)
        for kernel in run.kernels().values():
            assert agree(kernel(x, weights), expected, exact=False)
