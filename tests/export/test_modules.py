"""Awkward modules: what forward may do besides calling layers, and each operator that torch spells in its own way."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwire.export import export
from tests.export.comparison import same
from tests.networks import build


class Calls(nn.Module):
    """A function as a module, with submodules and tensors to use."""

    def __init__(self, function, **attributes):
        super().__init__()
        self.function = function
        for name, attribute in attributes.items():
            setattr(self, name, nn.Parameter(attribute) if isinstance(attribute, torch.Tensor) else attribute)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def drawn(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


PLANES = (4, 6, 6)
# name -> (function of module and inputs, shapes of the inputs without the batch axis, attributes)
FUNCTIONS = {
    "scaled-residual": (lambda m, x: x + 0.5 * torch.tanh(x) - 1, [PLANES], {}),
    "alpha": (lambda m, x, y: torch.sub(torch.add(x, y, alpha=2), y, alpha=0.5), [PLANES, PLANES], {}),
    "reversed": (lambda m, x: 2 - x / 4 - (1 / (x * x + 1)) + (-x) + x**2, [PLANES], {}),
    "in-place": (lambda m, x: F.relu_(x * 1).mul_(2).add_(1), [PLANES], {}),
    "in-place-of-a-view": (lambda m, x: _halves(x), [PLANES], {}),
    "two-inputs": (lambda m, x, y: torch.cat([x, y.unsqueeze(-1)], -1), [(3, 5), (3,)], {}),
    "stack": (lambda m, x: torch.stack(x.unbind(1), -1), [PLANES], {}),
    "slices": (
        lambda m, x: torch.cat([x[:, 1:3, ..., -2:], x[:, :2, None, :, 0].transpose(2, 3)[:, :, :, :1]], -1),
        [PLANES], {},
    ),
    "split": (lambda m, x: torch.mul(*x.split([1, 3], 1)), [PLANES], {}),
    "tensor-split": (lambda m, x: x.tensor_split(3, 1)[1], [PLANES], {}),
    "select": (lambda m, x: x[:, -1].select(2, 1), [PLANES], {}),
    "flatten-unflatten": (lambda m, x: x.flatten(2).unflatten(2, (3, 12)), [PLANES], {}),
    "groups-into-batch": (lambda m, x: x.view(x.size(0) * 2, 2, 6, 6).mean((2, 3)).view(-1, 4), [PLANES], {}),
    "permutations": (lambda m, x: x.movedim(1, -1).mT.swapaxes(1, 2).permute(0, 3, 1, 2), [PLANES], {}),
    "pixel-shuffle": (lambda m, x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 3), [PLANES], {}),
    "repeat": (lambda m, x: x.repeat(1, 2, 1, 3), [PLANES], {}),
    "attention": (lambda m, x: torch.softmax(x @ x.transpose(1, 2) / 2, -1) @ x, [(5, 3)], {}),
    "bmm": (lambda m, x: torch.bmm(x, x.mT), [(5, 3)], {}),
    "addmm": (lambda m, x: torch.addmm(m.b, x, m.w), [(3,)], {"w": drawn(3, 4), "b": drawn(4)}),
    "matmul-transposed": (lambda m, x: x @ m.w.t(), [(3,)], {"w": drawn(4, 3)}),
    "bilinear": (lambda m, x, y: m.layer(x, y), [(3,), (4,)], {"layer": nn.Bilinear(3, 4, 5)}),
    "worked-out-weight": (lambda m, x: F.linear(x, F.normalize(m.w) * 3), [(3,)], {"w": drawn(4, 3)}),
    "tied-weights": (lambda m, x: F.linear(F.linear(x, m.w), m.w), [(3,)], {"w": drawn(3, 3)}),
    "positions": (lambda m, x: x + m.w[: x.size(1)], [(3, 4)], {"w": drawn(7, 4)}),
    "created": (lambda m, x: x + torch.arange(4.0) * torch.ones(3, 1), [(3, 4)], {}),
    "same-padding": (lambda m, x: m.layer(x), [PLANES], {"layer": nn.Conv2d(4, 2, 3, padding="same", dilation=2)}),
    "circular": (lambda m, x: m.layer(x), [PLANES], {"layer": nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular")}),
    "conv-transpose": (lambda m, x: m.layer(x), [PLANES], {"layer": nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2)}),
    "conv-transpose1d": (lambda m, x: m.layer(x), [(4, 6)], {"layer": nn.ConvTranspose1d(4, 6, 3, dilation=2)}),
    "unfold-fold": (lambda m, x: F.fold(F.unfold(x, 2, stride=2), (6, 6), 2, stride=2), [PLANES], {}),
    "pads": (
        lambda m, x: F.pad(F.pad(F.pad(x, (1, 2), value=3.0), (1, 1, 2, 0), "reflect"), (0, 1, 1, 0), "replicate"),
        [PLANES], {},
    ),
    "upsample-nearest": (lambda m, x: F.interpolate(x, scale_factor=2), [PLANES], {}),
    "upsample-bilinear": (lambda m, x: F.interpolate(x, (9, 7), mode="bilinear", align_corners=True), [PLANES], {}),
    "upsample-scaled": (lambda m, x: F.interpolate(x, scale_factor=(1.7, 0.6), mode="bicubic"), [PLANES], {}),
    "upsample-antialias": (lambda m, x: F.interpolate(x, (3, 4), mode="bilinear", antialias=True), [PLANES], {}),
    "upsample-recomputed": (
        lambda m, x: F.interpolate(x, scale_factor=1.7, mode="linear", recompute_scale_factor=True),
        [(4, 7)], {},
    ),
    "upsample-exact": (lambda m, x: F.interpolate(x, 7, mode="nearest-exact"), [PLANES], {}),
    "upsample-area": (lambda m, x: F.interpolate(x, 4, mode="area"), [PLANES], {}),
    "max-pool": (lambda m, x: F.max_pool2d(x, 3, 2, 1, 1, ceil_mode=True), [PLANES], {}),
    "avg-pool": (lambda m, x: F.avg_pool2d(x, 3, 2, 1, True, False), [PLANES], {}),
    "avg-pool-divisor": (lambda m, x: F.avg_pool2d(x, (2, 3), divisor_override=5), [PLANES], {}),
    "avg-pool1d": (lambda m, x: F.avg_pool1d(x, 2), [(4, 7)], {}),
    "adaptive": (lambda m, x: F.adaptive_max_pool2d(x, (None, 2)) + F.adaptive_avg_pool2d(x, (6, 2)), [PLANES], {}),
    "lp-pool": (lambda m, x: F.lp_pool2d(x * x, 3, 3, 2), [PLANES], {}),
    "unpool1d": (lambda m, x: F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2), [(4, 8)], {}),
    "unpool3d": (lambda m, x: F.max_unpool3d(*F.max_pool3d(x, 2, 2, return_indices=True), 2), [(2, 4, 4, 6)], {}),
    "unpool-overlapping": (
        lambda m, x: F.max_unpool2d(*F.max_pool2d(x, 3, 2, return_indices=True), 3, 2, output_size=(6, 6)),
        [PLANES], {},
    ),
    "local-response-norm": (
        lambda m, x: m.layer(x),
        [PLANES], {"layer": nn.LocalResponseNorm(3, alpha=0.1, beta=0.5, k=2.0)},
    ),
    "cosine-similarity": (lambda m, x, y: F.cosine_similarity(x, y, 2, 0.1), [PLANES, PLANES], {}),
    "normalize": (lambda m, x: F.normalize(x, 3.0, dim=2, eps=1e-3), [PLANES], {}),
    "layer-norm": (lambda m, x: m.layer(x), [PLANES], {"layer": nn.LayerNorm((6, 6), eps=1e-3)}),
    "group-norm": (lambda m, x: m.layer(x), [PLANES], {"layer": nn.GroupNorm(2, 4, affine=False)}),
    "rms-norm": (lambda m, x: m.layer(x), [PLANES], {"layer": nn.RMSNorm(6)}),
    "instance-norm": (lambda m, x: m.layer(x), [PLANES], {"layer": nn.InstanceNorm2d(4, track_running_stats=True)}),
    "batch-norm1d": (lambda m, x: m.layer(x), [(4,)], {"layer": nn.BatchNorm1d(4, affine=False, momentum=None)}),
    "clamp": (lambda m, x: x.clamp(min=-0.5).clamp(-0.2, 0.7).clamp_max(0.5), [PLANES], {}),
    "softmax-dtype": (lambda m, x: F.log_softmax(x, 1, dtype=torch.float64), [PLANES], {}),
    "same-dtype": (lambda m, x: x.float().to(x.dtype).contiguous().detach().clone().type_as(x) + x, [PLANES], {}),
}  # fmt: skip

ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU6(),
    nn.LeakyReLU(0.3),
    nn.PReLU(4),
    nn.PReLU(),
    nn.RReLU(0.1, 0.4),
    nn.ELU(0.7),
    nn.SELU(),
    nn.CELU(1.3),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.Softplus(2, 5),
    nn.Softsign(),
    nn.Hardtanh(-0.3, 0.4),
    nn.Hardsigmoid(),
    nn.Hardswish(),
    nn.LogSigmoid(),
    nn.Tanhshrink(),
    nn.Softshrink(0.3),
    nn.Hardshrink(0.2),
    nn.Threshold(0.1, -2.0),
    nn.GLU(1),
    nn.Softmax(1),
    nn.Softmin(2),
    nn.LogSoftmax(-1),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.Softmax2d(),
    nn.AlphaDropout(),
    nn.Dropout2d(),
    nn.Identity(),
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name):
    function, shapes, attributes = FUNCTIONS[name]
    module = build(lambda: Calls(function, **attributes))
    examples = [drawn(2, *shape) for shape in shapes]
    exported = export(module, *examples)
    assert exported.free_batch
    for rows in (1, 3):
        same(exported, module, [drawn(rows, *shape, seed=rows) for shape in shapes])


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activation(activation):
    activation.eval()
    exported = export(activation, drawn(2, *PLANES))
    same(exported, activation, [drawn(3, *PLANES, seed=4)])
    assert len(exported.program.nodes) == 1


def _halves(x):
    y = x * 1
    y.view(-1).add_(1)
    return y


class Outputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(4, 4)

    def forward(self, x):
        first = self.shared(x)
        return {"scores": first, "levels": [self.shared(first), x], "nothing": None, "three": 3}


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


def test_dict_of_outputs_and_shared_module():
    module = build(Outputs)
    exported = export(module, drawn(2, 4))
    assert [output.name for output in exported.program.outputs] == ["scores", "levels.0", "levels.1"]
    assert [node.name for node in exported.program.nodes] == ["shared.linear", "shared.linear_2", "identity"]
    assert sorted(exported.tensors) == ["shared.bias", "shared.weight"]
    same(exported, module, [drawn(3, 4)])


@pytest.mark.parametrize(
    ("returned", "names"),
    [
        (lambda x: (x, x + 1), ["output.0", "output.1"]),
        (lambda x: [x * 2], ["output.0"]),
        (lambda x: x * 2, ["output"]),
        (lambda x: Pair(x * 2, x), None),
    ],
    ids=["tuple", "list", "tensor", "namedtuple"],
)
def test_outputs_keep_their_structure(returned, names):
    module = Calls(lambda m, x: returned(x)).eval()
    exported = export(module, drawn(2, 4))
    assert names is None or [output.name for output in exported.program.outputs] == names
    same(exported, module, [drawn(3, 4)])


def test_training_modes_are_deployed_in_evaluation_and_come_back():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.9)).train()
    module[0].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    exported = export(module, drawn(2, 4))
    assert [one.training for one in module.modules()] == [True, False, True, True]
    assert exported.notes == ("in training mode, deployed in evaluation: 1, 2",)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
    same(exported, module.eval(), [drawn(3, 4)])


def test_batch_axis_that_is_not_free():
    module = Calls(lambda m, x: x.view(2, -1).mean(0, keepdim=True)).eval()
    exported = export(module, drawn(2, 4))
    assert not exported.free_batch
    assert list(exported.program.inputs[0].shape) == [2, 4]
    assert exported.notes[0].startswith("axis 0 is fixed at 2 rows: ")
    same(exported, module, [drawn(2, 4, seed=5)])


def test_one_row_that_is_not_free():
    module = Calls(lambda m, x: x.view(1, 2, -1)).eval()
    exported = export(module, drawn(1, 4))
    assert list(exported.program.inputs[0].shape) == [1, 4]
    same(exported, module, [drawn(1, 4, seed=5)])


def test_even_batches_only():
    module = Calls(lambda m, x: x.view(x.size(0) // 2, 2, -1).mean(1)).eval()
    exported = export(module, drawn(4, 3))
    assert not exported.free_batch
    same(exported, module, [drawn(4, 3, seed=5)])


def test_input_without_batch_axis():
    module = Calls(lambda m, x, y: x * y).eval()
    exported = export(module, drawn(3, 4), drawn(1, 4))
    assert [list(one.shape) for one in exported.program.inputs] == [[-1, 4], [1, 4]]
    same(exported, module, [drawn(5, 4), drawn(1, 4)])


def test_numpy_and_integers():
    module = Calls(lambda m, x: x.flatten(1) + 2).eval()
    exported = export(module, np.arange(12).reshape(2, 2, 3))
    same(exported, module, [torch.arange(6).reshape(1, 2, 3)])


def test_names_follow_the_module():
    module = nn.Sequential(
        nn.Sequential(nn.Conv2d(4, 4, 1, padding_mode="reflect", padding=1), nn.ReLU()), nn.Flatten()
    )
    exported = export(module.eval(), drawn(2, *PLANES))
    names = [node.name for node in exported.program.nodes]
    assert names == ["0.0.pad", "0.0.conv2d", "0.1", "1"]
    assert [constant.name for constant in exported.program.constants] == ["0.0.weight", "0.0.bias"]


def test_no_weights_no_file():
    exported = export(Calls(lambda m, x: x * 0.5).eval(), drawn(2, 3))
    assert exported.weights is None
    assert exported.program.constants[0].tensor.shape == []
