"""Compares a program, run by the interpreter, with the module it was made of."""

from __future__ import annotations

import torch

from tests.interpreter import run


def same(network, module, examples):
    """The program's outputs, assembled as the module's, are the module's."""
    with torch.no_grad():
        expected = module(*examples)
    arguments = dict(zip([one.name for one in network.program.inputs], examples, strict=True))
    actual = network.assemble(run(network.program, arguments, network.tensors))
    torch.testing.assert_close(_tensors(actual)["tensors"], _tensors(expected)["tensors"])
    assert _tensors(actual)["others"] == _tensors(expected)["others"]
    assert type(actual) is type(expected)
    assert all(one.float().std() > 0 for one in _tensors(expected)["tensors"] if one.numel() > 1), "nothing to compare"


def _tensors(outputs):
    """Leaves, so that what is no tensor is compared too."""
    leaves, spec = torch.utils._pytree.tree_flatten(outputs)
    others = [leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)]
    return {"tensors": [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)], "others": str((others, spec))}
