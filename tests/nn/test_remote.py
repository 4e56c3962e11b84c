"""Whole networks: converted, trained through the service, and deployed programs as functions that autograd knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layerwire
from layerwire.errors import InvalidArgumentError, NotFoundError
from layerwire.nn import Functional, Remote, RemoteConv1d, RemoteConv2d, RemoteLinear, RemoteReLU, remote
from tests.networks import NETWORKS, build, inputs


@pytest.mark.parametrize("name", NETWORKS)
def test_converted_networks_answer_as_before(client: layerwire.Client, name: str) -> None:
    """In evaluation and in a step of training: answers, gradients, running statistics."""
    module, arguments = build(NETWORKS[name].make), inputs(NETWORKS[name], 2)
    twin = remote(module, client)
    assert any(isinstance(one, Remote) for one in twin.modules())
    assert not any(isinstance(one, Remote) for one in module.modules())
    assert [id(one) for one in twin.parameters()] == [id(one) for one in module.parameters()]
    with torch.no_grad():
        torch.testing.assert_close(twin(*arguments), module(*arguments), rtol=1e-4, atol=1e-5)
    gradients = []
    for one in (module, twin):
        one.zero_grad()
        one(*arguments).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in module.parameters()])
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(right, left, rtol=2e-3, atol=1e-4)


def test_what_is_converted_and_what_stays(client: layerwire.Client) -> None:
    class Own(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    shared = nn.ReLU()
    module = nn.Sequential(nn.Conv2d(1, 2, 3), shared, nn.Flatten(), nn.Dropout(), shared, Own(8, 3))
    module.register_forward_hook(lambda one, args, output: output * 2)
    twin = remote(module.eval(), client)
    kinds = [type(one) for one in twin]
    assert kinds == [RemoteConv2d, RemoteReLU, nn.Flatten, nn.Dropout, RemoteReLU, Own]
    assert twin[1] is twin[4]
    x = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(twin(x), module(x))
    assert isinstance(remote(twin, client)[0], RemoteConv2d)
    assert not isinstance(module[0], Remote)


def test_parametrized_layers_are_converted(client: layerwire.Client) -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 3))
    twin, x = remote(layer, client), torch.randn(1, 2, 7)
    assert isinstance(twin, RemoteConv1d)
    torch.testing.assert_close(twin(x), layer(x))
    twin(x).sum().backward()
    assert layer.parametrizations.weight.original0.grad is not None


def test_a_layer_itself_is_converted(client: layerwire.Client) -> None:
    layer = nn.Linear(3, 2)
    twin = remote(layer, client)
    assert isinstance(twin, RemoteLinear) and twin.weight is layer.weight
    with pytest.raises(TypeError, match="must be a torch.nn.Module, got function"):
        remote(F.relu, client)  # type: ignore[type-var]


def curve(module: nn.Module, parameters, x: torch.Tensor, y: torch.Tensor, steps: int) -> list[float]:
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_through_the_service_is_training(client: layerwire.Client) -> None:
    """The loss falls, along the curve of the same network trained here."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 3),
        )

    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 1, 8, 8, generator=generator)
    y = (x.mean((1, 2, 3)) > 0).long() + (x[:, 0, 0, 0] > 0).long()
    local, module = make(), make()
    twin = remote(module, client)
    here = curve(local, local.parameters(), x, y, 25)
    there = curve(twin, twin.parameters(), x, y, 25)
    assert there[-1] < 0.3 * there[0]
    np.testing.assert_allclose(there, here, rtol=0.02, atol=2e-3)
    for left, right in zip(local.buffers(), module.buffers(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-2, atol=1e-3)


def test_a_deployed_program_is_a_function_of_tensors(client: layerwire.Client) -> None:
    network = NETWORKS["lenet"]
    module, (x,) = build(network.make), inputs(network, 3)
    deployed = client.deploy("nn/lenet", module, x[:1])
    assert deployed.report is not None and deployed.report.largest_difference < 1e-4
    expected = module(x).detach()
    torch.testing.assert_close(deployed(x), expected, rtol=1e-4, atol=1e-5)
    again = client.program("nn/lenet")
    outputs = again(x.numpy())
    assert isinstance(outputs, np.ndarray)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(client.program("nn/lenet", 1)(x.numpy()), outputs)
    with pytest.raises(NotFoundError):
        client.program("nn/none")
    with pytest.raises(InvalidArgumentError, match="inputs must be"):
        again(x, x)


def test_a_deployed_program_has_gradients_by_its_inputs(client: layerwire.Client) -> None:
    network = NETWORKS["vgg"]  # with batch norms, which are folded for calls and not for gradients
    module, (x,) = build(network.make), inputs(network, 3)
    deployed = client.deploy("nn/vgg", module, x)
    gradients = []
    for one in (module, deployed):
        leaf = x.clone().requires_grad_()
        one(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        assert not deployed(x.requires_grad_()).requires_grad


def test_gradients_are_of_the_version_that_answered(client: layerwire.Client) -> None:
    first, second = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    client.deploy("nn/moving", first, torch.zeros(1, 2))
    program = client.program("nn/moving")
    x = torch.zeros(1, 2, requires_grad=True)
    y = program(x)
    assert client.run("nn/moving", {program.inputs[0]: x.detach()}).version == 1
    client.deploy("nn/moving", second, torch.zeros(1, 2))
    y.backward()
    torch.testing.assert_close(x.grad, first.weight.detach())
    assert client.run("nn/moving", {program.inputs[0]: x.detach()}).version == 2


def test_gradients_by_constants_of_a_stored_program(client: layerwire.Client) -> None:
    module, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3)
    client.deploy("nn/constants", module, x)
    described = client.describe("nn/constants")
    (input_name,), (output_name,) = [one.name for one in described.inputs], [one.name for one in described.outputs]
    module(x).sum().backward()
    wanted = [name for name, _ in module.named_parameters()]
    gradients = client.differentiate(
        lambda f: f.run("nn/constants", {input_name: x}), {output_name: torch.ones(5, 2)}, wanted
    )
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5)


def test_gradients_by_way_of_intermediates(client: layerwire.Client) -> None:
    """Of a value that folding takes away in the forward pass, besides the output."""
    module = build(lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()))
    x = torch.randn(2, 1, 5, 5)
    program = client.deploy("nn/inner", module, x)
    inner = next(node.name for node in client.describe("nn/inner").program.nodes if node.HasField("convolve"))
    leaf, local = x.clone().requires_grad_(), x.clone().requires_grad_()
    outputs = Functional(client).run("nn/inner", {program.inputs[0]: leaf}, intermediates=[inner])
    assert outputs.version == 1
    sum(value.square().sum() for value in outputs.values()).backward()
    (module[0](local).square().sum() + module(local).square().sum()).backward()
    torch.testing.assert_close(leaf.grad, local.grad, rtol=1e-4, atol=1e-5)


async def test_an_async_client_deploys_and_calls(served) -> None:
    module, x = nn.Linear(3, 2), torch.randn(4, 3)
    async with layerwire.AsyncClient(served.address) as lw:
        deployed = await lw.deploy("nn/async", module, x)
        assert deployed.report is not None and deployed.report.largest_difference < 1e-5
        torch.testing.assert_close(await deployed(x), module(x).detach())
        program = await lw.program("nn/async")
        assert repr(program) == "AsyncRemoteProgram('nn/async')"
        np.testing.assert_allclose(await program(x.numpy()), module(x).detach(), rtol=1e-5, atol=1e-6)
