"""Whole networks as programs on the worker, against torch's functions: alone, in company, inside, folded, backwards."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

from layerwire.export import ExportedModule, export
from tests.interpreter import run
from tests.networks import NETWORKS, build, inputs
from tests.programs.local import REQUESTS, Worker

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@functools.cache
def export_of(name: str, dtype: torch.dtype = torch.float32) -> ExportedModule:
    network = NETWORKS[name]
    return export(build(network.make).to(dtype), *inputs(network, 2, dtype=dtype), name=name)


def inputs_of(name: str, rows: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    names = [one.name for one in export_of(name, dtype).program.inputs]
    return dict(zip(names, inputs(NETWORKS[name], rows, seed, dtype), strict=True))


@pytest.fixture(params=NETWORKS)
def name(request, worker: Worker) -> str:
    """A network whose weights the worker's store has."""
    for dtype in (torch.float32, torch.float64):
        weights = export_of(request.param, dtype).weights
        if weights is not None and not worker.store.has_weights(weights.digest):
            assert worker.store.put_weights(weights.pieces()) == weights.digest
    return request.param


def assert_close(actual, expected, **tolerance) -> None:
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(
            actual[key], value, **(tolerance or CLOSE), msg=lambda text, key=key: f"{key}: {text}"
        )


def program_with_folding(name: str, fold: bool) -> ExportedModule:
    program = copy.deepcopy(export_of(name).program)
    program.fold_batch_norm = fold
    return program


def test_alone(worker: Worker, name: str) -> None:
    """Any number of rows, also none that its checks were made with."""
    one = export_of(name)
    for rows in (1, 2, 5):
        x = inputs_of(name, rows)
        assert_close(worker.run(one.program, x), run(one.program, x, one.tensors))


def test_in_company(worker: Worker, name: str) -> None:
    """Calls of several sizes as one batch give each what it gets alone."""
    program = export_of(name).program
    requests = [inputs_of(name, rows, seed=rows) for rows in (1, 3, 2)]
    calls = [worker.decode(REQUESTS.run(program, x)) for x in requests]
    assert len({call.key for call in calls}) == 1
    assert calls[0].key.merge.value == "rows"
    for x, actual in zip(requests, worker.answers(calls), strict=True):
        assert_close(actual, worker.run(program, x))


def test_intermediates(worker: Worker, name: str) -> None:
    """Every value of the graph on request, though folding takes some away; pools' indices too."""
    one, x = export_of(name), inputs_of(name, 2)
    shown = {output.value for output in one.program.outputs}
    values = [node.name for node in one.program.nodes if node.name not in shown]
    values += [used.value for node in one.program.nodes for used in node.inputs if used.value.endswith(".indices")]
    for start in range(0, len(values), 64):
        names = list(dict.fromkeys(values[start : start + 64]))
        actual = worker.run(one.program, x, intermediates=names)
        assert_close(actual, run(one.program, x, one.tensors, names))


def test_folded_is_unfolded(worker: Worker, name: str) -> None:
    x = inputs_of(name, 3)
    folded, plain = (worker.run(program_with_folding(name, fold), x) for fold in (True, False))
    assert_close(folded, plain)


def test_folding_takes_batch_norms_away(worker: Worker, name: str) -> None:
    program = export_of(name).program
    norms = [node for node in program.nodes if node.normalize.WhichOneof("operator") == "batch_norm"]
    steps = {
        fold: len(
            worker.decode(
                REQUESTS.run(program_with_folding(name, fold), inputs_of(name, 1))
            ).plan.operator.variant.graph.steps
        )
        for fold in (True, False)
    }
    assert steps[False] == len(program.nodes)
    assert steps[True] == len(program.nodes) - len(norms)


def test_gradients(worker: Worker, name: str) -> None:
    """By all inputs and all constants with a floating-point dtype, in float64; batch norms unfolded."""
    one, x = export_of(name, torch.float64), inputs_of(name, 2, dtype=torch.float64)
    leaves = {key: value.clone().requires_grad_() for key, value in x.items()}
    fixed = {"running_mean", "running_var"}
    statistics = {used.value for node in one.program.nodes for used in node.inputs if used.field in fixed}
    weights = {key: tensor.detach().clone() for key, tensor in one.tensors.items()}
    stored = {
        constant.name: weights[constant.stored.key].requires_grad_()
        for constant in one.program.constants
        if constant.WhichOneof("content") == "stored"
        and constant.name not in statistics
        and weights[constant.stored.key].is_floating_point()
    }
    outputs = run(one.program, leaves, weights)
    gradients = {key: torch.randn(value.shape, dtype=value.dtype) for key, value in outputs.items()}
    variables = {**leaves, **stored}
    expected = torch.autograd.grad(
        list(outputs.values()), list(variables.values()), list(gradients.values()), allow_unused=True
    )
    actual = worker.differentiate(one.program, x, gradients, list(variables))
    assert list(actual) == list(variables)
    for key, value in zip(variables, expected, strict=True):
        local = torch.zeros_like(variables[key]) if value is None else value
        torch.testing.assert_close(
            actual[key], local, rtol=1e-8, atol=1e-10, msg=lambda text, key=key: f"{key}: {text}"
        )
