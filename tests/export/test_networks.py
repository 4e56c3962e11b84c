"""Whole networks: the program gives what the module gives, for any number of rows."""

from __future__ import annotations

import pytest
import torch

from layerwire.export import export
from tests.export.comparison import same
from tests.networks import NETWORKS, Network, ResNet18, build, inputs


@pytest.mark.parametrize(("name", "example_rows"), [*((name, 1) for name in NETWORKS), ("mlp", 3), ("unet", 2)])
def test_program_is_the_module(name, example_rows):
    network = NETWORKS[name]
    module = build(network.make)
    exported = export(module, *inputs(network, example_rows), name=name)
    assert exported.free_batch
    assert not exported.notes
    assert [one.shape[0] for one in exported.program.inputs] == [-1] * len(network.shapes)
    for rows in (1, 2, 5):
        same(exported, module, inputs(network, rows, seed=rows))


def test_resnet18_in_full():
    network = Network(ResNet18, ((3, 64, 64),))
    module = build(network.make)
    exported = export(module, *inputs(network, 1))
    assert len(exported.tensors) == 102  # 20 convolutions, 20 batch norms of four, a linear of two
    names = [node.name for node in exported.program.nodes]
    assert "layer1.0.conv1" in names
    assert "layer4.1.bn2" in names
    same(exported, module, inputs(network, 2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["mlp", "segnet", "shuffle-v1"])
def test_dtypes_are_kept(name, dtype):
    network = NETWORKS[name]
    module = build(network.make).to(dtype)
    exported = export(module, *inputs(network, 2, dtype=dtype))
    assert {tensor.dtype for tensor in exported.tensors.values()} == {dtype}
    same(exported, module, inputs(network, 3, dtype=dtype))


def test_pool_indices_travel():
    exported = export(build(NETWORKS["segnet"].make), *inputs(NETWORKS["segnet"], 1))
    unpools = [node for node in exported.program.nodes if node.WhichOneof("operator") == "unpool"]
    taken = [one.value for node in unpools for one in node.inputs if one.field == "indices"]
    assert taken == ["pool.max_pool2d_2.indices", "pool.max_pool2d.indices"]
