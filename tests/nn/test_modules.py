"""Every remote module against its namesake: answers, gradients, statistics, state_dict, repr."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import layerwire
import layerwire.nn
from layerwire.calls import Calls
from layerwire.nn import Functional, Remote, RemoteBatchNorm1d, RemoteLinear, RemoteMaxPool2d, RemoteRReLU
from layerwire.nn.module import TWINS

PLANE = {1: (2, 4, 9), 2: (2, 4, 6, 7), 3: (2, 4, 4, 5, 6)}
# Constructor's arguments and the input's shape; modules that need no arguments have rows without being named.
ROWS: list[tuple[str, tuple, dict, tuple[int, ...]]] = [
    *(
        (f"{kind}{dims}d", args, kwargs, PLANE[dims])
        for dims in PLANE
        for kind, args, kwargs in (
            ("MaxPool", (2,), {"padding": 1}),
            ("MaxPool", (2,), {"stride": 1, "ceil_mode": True, "return_indices": True}),
            ("AvgPool", (2,), {"padding": 1, "count_include_pad": False}),
            ("LPPool", (2, 2), {"ceil_mode": True}),
            ("AdaptiveMaxPool", (2,), {}),
            ("AdaptiveAvgPool", (3,), {}),
            ("Conv", (4, 6, 3), {"padding": "same", "groups": 2}),
            ("Conv", (4, 2, 2), {"padding": 1, "padding_mode": "circular", "bias": False}),
            ("ConvTranspose", (4, 6, 3), {"stride": 2, "output_padding": 1, "groups": 2}),
            ("BatchNorm", (4,), {}),
            ("BatchNorm", (4,), {"momentum": None, "eps": 1e-3}),
            ("BatchNorm", (4,), {"affine": False, "track_running_stats": False}),
            ("InstanceNorm", (4,), {"affine": True}),
            ("InstanceNorm", (4,), {"track_running_stats": True}),
        )
    ),
    ("Linear", (7, 3), {"bias": False}, (2, 5, 7)),
    ("LayerNorm", ((6, 7),), {}, PLANE[2]),
    ("LayerNorm", (7,), {"elementwise_affine": False}, PLANE[2]),
    ("RMSNorm", (7,), {}, PLANE[2]),
    ("GroupNorm", (2, 4), {}, PLANE[2]),
    ("LocalResponseNorm", (3,), {"alpha": 0.1}, PLANE[2]),
    ("Fold", ((4, 5),), {"kernel_size": 2}, (2, 8, 12)),
    ("Unfold", (2,), {"stride": 2}, PLANE[2]),
    ("PReLU", (4,), {}, PLANE[1]),
    ("ReLU", (True,), {}, PLANE[1]),
    ("Threshold", (0.1, -1.0), {}, PLANE[1]),
    ("Softmax", (1,), {}, PLANE[1]),
    ("Softmin", (1,), {}, PLANE[1]),
    ("LogSoftmax", (1,), {}, PLANE[1]),
    ("GELU", ("tanh",), {}, PLANE[1]),
    ("Softmax2d", (), {}, PLANE[2]),
    ("GLU", (1,), {}, PLANE[1]),
    ("LeakyReLU", (0.3,), {}, PLANE[1]),
    ("Softplus", (2.0, 1.0), {}, PLANE[1]),
]
# With tests of their own below.
APART = {"RReLU", "Bilinear", *(f"MaxUnpool{dims}d" for dims in PLANE), "FractionalMaxPool2d", "FractionalMaxPool3d"}
NEEDS_NONE = {
    kind.__name__
    for kind in TWINS
    if all(
        parameter.default is not parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in inspect.signature(kind).parameters.values()
    )
}
ROWS += [(name, (), {}, PLANE[1]) for name in sorted(NEEDS_NONE - APART - {row[0] for row in ROWS})]
WITHOUT_MODULE = {"activate", "conv_tbc", "gumbel_softmax", "normalize", "run", "differentiate"}


def pair(client, name, *args, **kwargs):
    """The namesake and the remote one with the same parameters."""
    torch.manual_seed(0)
    local = getattr(nn, name)(*args, **kwargs)
    remote = getattr(layerwire.nn, f"Remote{name}")(*args, client=client, **kwargs)
    assert isinstance(remote, type(local)) and isinstance(remote, Remote)
    assert repr(remote) == f"Remote{local!r}"
    assert list(remote.state_dict()) == list(local.state_dict())
    remote.load_state_dict(local.state_dict())
    return local, remote


def trained(module, x, *more, **named):
    """Outputs, gradients and state of a step."""
    leaf = x.clone().requires_grad_()
    outputs = module(leaf.clone() if getattr(module, "inplace", False) else leaf, *more, **named)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    torch.manual_seed(7)
    outputs[0].backward(torch.randn_like(outputs[0]))
    parameters = [parameter.grad for parameter in module.parameters()]
    return [*(output.detach() for output in outputs), leaf.grad, *parameters, *module.state_dict().values()]


def assert_same(local, remote) -> None:
    for left, right in zip(local, remote, strict=True):
        torch.testing.assert_close(right, left, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), ROWS, ids=lambda value: str(value)[:40])
def test_is_its_namesake(client: layerwire.Client, name: str, args: tuple, kwargs: dict, shape: tuple) -> None:
    """Two steps in training, then evaluation."""
    local, remote = pair(client, name, *args, **kwargs)
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        count = sum(each.default is each.empty for each in inspect.signature(local.forward).parameters.values())
        inputs = [torch.randn(shape, generator=generator) for _ in range(count)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's own about even kernels that pad to the same size
            expected = trained(local, *inputs)
        assert_same(expected, trained(remote, *inputs))
    local.eval(), remote.eval()
    assert_same(trained(local, *inputs), trained(remote, *inputs))


@pytest.mark.parametrize("dims", PLANE)
def test_unpools(client: layerwire.Client, dims: int) -> None:
    x = torch.randn(PLANE[dims])
    values, indices = getattr(nn, f"MaxPool{dims}d")(2, return_indices=True)(x)
    local, remote = pair(client, f"MaxUnpool{dims}d", 2)
    assert_same(trained(local, values, indices, x.shape), trained(remote, values, indices, x.shape))
    named = {"output_size": x.shape[2:]}
    assert_same(trained(local, values, indices, **named), trained(remote, values, indices, **named))


@pytest.mark.parametrize("dims", PLANE)
def test_transposed_convolutions_take_an_output_size(client: layerwire.Client, dims: int) -> None:
    local, remote = pair(client, f"ConvTranspose{dims}d", 4, 2, 3, stride=2)
    size = [2 * extent for extent in PLANE[dims][2:]]
    size = [extent + (extent - 3) % 2 for extent in size]
    x = torch.randn(PLANE[dims])
    assert_same([local(x, size)], [remote(x, size)])


def test_bilinear(client: layerwire.Client) -> None:
    local, remote = pair(client, "Bilinear", 3, 4, 2)
    x, other = torch.randn(5, 3), torch.randn(5, 4)
    assert_same(trained(local, x, other), trained(remote, x, other))


@pytest.mark.parametrize("dims", [2, 3])
def test_fractional_pools_draw_as_torch_does(client: layerwire.Client, dims: int) -> None:
    local, remote = pair(client, f"FractionalMaxPool{dims}d", 2, output_ratio=0.5)
    x = torch.randn(PLANE[dims])
    torch.manual_seed(3)
    expected = local(x)
    torch.manual_seed(3)
    assert torch.equal(remote(x), expected)


def test_rrelu_follows_torchs_seed(client: layerwire.Client) -> None:
    layer, x = RemoteRReLU(0.1, 0.5, client=client), -torch.ones(50)
    torch.manual_seed(3)
    first = layer(x)
    assert not torch.equal(layer(x), first)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert first.min() >= -0.5 and first.max() <= -0.1
    torch.testing.assert_close(layer.eval()(x), nn.RReLU(0.1, 0.5).eval()(x))


def test_the_table_is_whole() -> None:
    """A twin for every operator that torch.nn has a module for, and a row here for every twin."""
    functions = {name for name in dir(Calls) if not name.startswith("_")} - WITHOUT_MODULE
    assert functions == {twin.function for twin in TWINS.values()}
    assert {kind.__name__ for kind in TWINS} == {row[0] for row in ROWS} | APART
    assert set(layerwire.nn.__all__) == {twin.__name__ for twin in TWINS.values()} | {"Functional", "Remote", "remote"}


def test_signatures_are_the_namesakes() -> None:
    assert str(inspect.signature(RemoteMaxPool2d)).startswith("(kernel_size: ")
    assert list(inspect.signature(RemoteLinear).parameters) == [*inspect.signature(nn.Linear).parameters, "client"]


def test_a_client_is_asked_for() -> None:
    with pytest.raises(TypeError, match="client"):
        RemoteLinear(3, 2)  # type: ignore[call-arg]


def test_batch_norm_leaves_statistics_to_evaluation(client: layerwire.Client) -> None:
    layer = RemoteBatchNorm1d(3, client=client).eval()
    before = copy.deepcopy(layer.state_dict())
    layer(torch.randn(4, 3))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    with pytest.raises(ValueError, match="expected 2D or 3D input"):
        layer(torch.randn(4))


def test_options_of_a_view_hold(client: layerwire.Client) -> None:
    layer = RemoteLinear(3, 2, client=client.options(timing=True, priority=3))
    assert isinstance(layer(torch.randn(1, 3)), torch.Tensor)
    assert "Functional(" in repr(Functional(client))


def test_a_module_is_not_pickled_with_its_client(client: layerwire.Client, tmp_path) -> None:
    layer = RemoteLinear(3, 2, client=client)
    with pytest.raises(TypeError, match="client can't be pickled"):
        torch.save(layer, tmp_path / "module")
    torch.save(layer.state_dict(), tmp_path / "state")


def test_the_sdk_needs_no_torch() -> None:
    code = "import layerwire, sys; assert 'torch' not in sys.modules and 'layerwire.nn' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
