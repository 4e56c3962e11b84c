"""Rules of normalisations that the table of cases can't express: dtypes, outputs by name, inputs left as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from layerwire.errors import InvalidArgumentError
from layerwire.v1 import operators_pb2 as messages
from layerwire.wire.dtypes import DTYPES, TensorSpec
from layerwire_server.operators import OPERATORS
from layerwire_server.operators.normalize import RmsNorm
from layerwire_server.operators.normalize_running import BatchNorm, InstanceNorm
from layerwire_server.operators.operator import TORCH_DTYPES, WIRE_DTYPES, Merge, Operator
from tests.operators.local import same_bits

TABLE = OPERATORS["normalize"]
REQUIRED: dict[str, dict[str, Any]] = {
    "layer_norm": {"normalized_shape": [5]},
    "rms_norm": {"normalized_shape": [5]},
    "group_norm": {"num_groups": 2},
    "local_response_norm": {"size": 3},
}


def tensor_of(name: str, **parameters: Any) -> Operator:
    """The operator of a name, with parameters as a message gives them."""
    message = getattr(messages.NormalizeOperator(**{name: REQUIRED.get(name, {}) | parameters}), name)
    return TABLE[name].from_message(message)


def channel_tensors(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """weight, bias, running_mean, running_var of 4 channels."""
    return [torch.full((4,), value, dtype=dtype) for value in (2.0, 1.0, 0.5, 4.0)]


def specs_of(tensors: list[torch.Tensor | None]) -> tuple[TensorSpec | None, ...]:
    return tuple(None if one is None else TensorSpec(WIRE_DTYPES[one.dtype], tuple(one.shape)) for one in tensors)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_dtypes_are_those_of_torch(name):
    taken = set()
    for wire, dtype in TORCH_DTYPES.items():
        x = torch.ones(2, 4, 5).to(dtype)
        running = (torch.ones(4).to(dtype), torch.ones(4).to(dtype)) if name == "batch_norm" else ()
        try:
            getattr(F, name)(x, *running, **REQUIRED.get(name, {}))
        except (RuntimeError, NotImplementedError):
            continue
        taken.add(wire)
    assert TABLE[name].dtypes == taken


@pytest.mark.parametrize("name", sorted(TABLE))
def test_operators_are_values(name):
    one, other = tensor_of(name), tensor_of(name)
    assert one == other
    assert hash(one) == hash(other)
    assert all(one != tensor_of(another) for another in TABLE if another != name)


@pytest.mark.parametrize(
    "operator",
    [
        BatchNorm(training=True, return_statistics=True),
        BatchNorm(training=True),
        BatchNorm(),
        InstanceNorm(),
        InstanceNorm(use_input_stats=False),
    ],
    ids=str,
)
def test_inputs_stay_as_they_were(operator):
    tensors = [torch.randn(3, 4, 5), *channel_tensors()]
    before = [tensor.clone() for tensor in tensors]
    outputs = operator.run(*tensors)
    assert all(same_bits(left, right) for left, right in zip(tensors, before, strict=True))
    held = {tensor.data_ptr() for tensor in tensors}
    assert not held & {output.data_ptr() for output in outputs}


def test_statistics_are_named_in_order():
    operator = BatchNorm(training=True, return_statistics=True)
    x, (weight, bias, mean, var) = torch.randn(3, 4, 5), channel_tensors()
    assert operator.outputs == ("output", "batch_mean", "batch_var", "running_mean", "running_var")
    named = dict(zip(operator.outputs, operator.run(x, weight, bias, mean, var), strict=True))
    batch_var, batch_mean = torch.var_mean(x, (0, 2), correction=0)
    torch.testing.assert_close(named["batch_mean"], batch_mean)
    torch.testing.assert_close(named["batch_var"], batch_var)
    torch.testing.assert_close(named["running_mean"], 0.9 * mean + 0.1 * batch_mean)
    torch.testing.assert_close(named["running_var"], 0.9 * var + 0.1 * batch_var * 15 / 14)
    assert len(operator.run(x, weight, bias, None, None)) == 3
    assert BatchNorm(training=True).outputs == ("output",)


def test_statistics_of_nothing_are_nan():
    output, mean, var = BatchNorm(training=True, return_statistics=True).run(torch.ones(0, 4), None, None, None, None)
    assert output.shape == (0, 4)
    assert mean.isnan().all()
    assert var.isnan().all()


def test_batch_statistics_are_never_shared():
    specs = specs_of([torch.ones(3, 4, 5), *channel_tensors()])
    assert BatchNorm(training=True).placement(specs).merge is Merge.ALONE
    evaluation = BatchNorm().placement(specs)
    assert (evaluation.merge, evaluation.axes) == (Merge.ROWS, 1)
    assert evaluation == BatchNorm(momentum=0.7).placement(specs), "momentum means nothing in evaluation"


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm", "group_norm", "layer_norm"])
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_halves_go_with_float32_as_in_torch(name, half):
    parameters = {"layer_norm": {"normalized_shape": [4]}}.get(name, {})
    operator = tensor_of(name, **parameters)
    x = torch.randn(3, 5, 4).to(half) if name == "layer_norm" else torch.randn(3, 4, 5).to(half)
    wide, narrow = channel_tensors(), channel_tensors(half)
    count = len(operator.inputs) - 1
    operator.check(specs_of([x, *wide[:count]]))
    assert operator.run(x, *wide[:count])[0].dtype == half
    for mixture in ([wide[0], *narrow[1:count]], [narrow[0], *wide[1:count]], channel_tensors(torch.float64)[:count]):
        with pytest.raises(InvalidArgumentError):
            operator.check(specs_of([x, *mixture]))


def test_rms_norm_takes_its_eps_from_the_dtype():
    assert tensor_of("rms_norm") == RmsNorm((5,), None)
    for wire in RmsNorm.dtypes:
        x = torch.full((2, 5), 1e-4).to(TORCH_DTYPES[wire])
        assert same_bits(tensor_of("rms_norm").run(x, None)[0], F.rms_norm(x, (5,)))
        assert not torch.equal(tensor_of("rms_norm", eps=1.0).run(x, None)[0], F.rms_norm(x, (5,)))


def test_axes_before_dim_are_rows():
    flat = tensor_of("normalize").placement((TensorSpec(DTYPES["float32"], (8, 10)),))
    deep = tensor_of("normalize", dim=-1).placement((TensorSpec(DTYPES["float32"], (2, 3, 10)),))
    assert flat.operator == deep.operator
    assert (flat.axes, deep.axes) == (1, 2)


def test_local_response_norm_bounds_its_padding():
    # 4 bytes of input, padded by 1,023 channels on their way
    bound = tensor_of("local_response_norm", size=1024).output_bytes_bound((TensorSpec(DTYPES["float32"], (1, 1, 1)),))
    assert bound >= 1024 * 4
