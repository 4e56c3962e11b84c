"""conv_tbc, unfold and fold: what they take beside their input, what they cost, and that their bounds come first."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F

from layerwire.errors import InvalidArgumentError
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire.dtypes import DTYPES, TensorSpec
from layerwire_server.operators.convolve_tbc import ConvTbc
from layerwire_server.operators.operator import TORCH_DTYPES, Merge
from layerwire_server.worker.request_kinds import KINDS
from tests.cases import convolve_tbc, sliding_blocks
from tests.operator_cases import Case, T
from tests.operators.local import Local, message_of, request_of

FLOAT32 = DTYPES["float32"]


@pytest.fixture(scope="module")
def local() -> Local:
    return Local()


def message(case: Case) -> pb.ConvolveRequest:
    return message_of(request_of(case)).convolve


def refused_field(local: Local, request: pb.ConvolveRequest) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        local.decoder.decode(KINDS["convolve"], request, time.monotonic(), float("inf"))
    return caught.value.field


@pytest.mark.parametrize("field", ["weight", "bias"])
@pytest.mark.parametrize(
    "case",
    [Case("", "unfold", (T((1, 1, 3, 3)), 2)), Case("", "fold", (T((1, 4, 4)), 3, 2))],
    ids=lambda case: case.function,
)
def test_blocks_take_no_weight_and_no_bias(local: Local, case: Case, field: str) -> None:
    request = message(case)
    getattr(request, field).CopyFrom(request.input)
    assert refused_field(local, request) == field


@pytest.mark.parametrize("field", ["input", "weight", "bias"])
def test_conv_tbc_takes_all_three(local: Local, field: str) -> None:
    request = message(convolve_tbc.CASES[1])
    request.ClearField(field)
    assert refused_field(local, request) == field


@pytest.mark.parametrize("case", [*sliding_blocks.CASES, *convolve_tbc.CASES], ids=lambda case: case.id)
def test_bound_is_the_output(local: Local, case: Case) -> None:
    plan = local.decode(case).plan
    bound, nbytes = plan.operator.output_bytes_bound(plan.specs), sum(spec.nbytes for spec in plan.outputs)
    assert nbytes == (0 if 0 in plan.specs[0].shape else bound)


def test_samples_share_a_batch_and_time_steps_do_not(local: Local) -> None:
    calls = [local.decode(Case("", "unfold", (T(shape), 2))) for shape in ((2, 3, 5, 5), (3, 5, 5), (7, 3, 5, 5))]
    assert len({call.key for call in calls}) == 1
    assert [call.rows for call in calls] == [2, 1, 7]
    calls = [local.decode(Case("", "fold", (T(shape), 5, 2))) for shape in ((2, 12, 16), (12, 16))]
    assert len({call.key for call in calls}) == 1
    assert local.decode(convolve_tbc.CASES[1]).key.merge is Merge.ALONE


def test_gaps_of_a_block_of_one_element_are_none(local: Local) -> None:
    keys = {local.decode(Case("", "unfold", (T((3, 5, 5)), 1, dilation))).key for dilation in (1, 7, 2**31 - 1)}
    assert len(keys) == 1


def test_steps_of_a_long_kernel_are_work_and_its_shape_is_none() -> None:
    """torch makes a step for each element of the kernel, 0.3 ms each on the meta device."""
    operator, steps = ConvTbc(0), 10**6
    specs = (TensorSpec(FLOAT32, (steps, 1, 1)), TensorSpec(FLOAT32, (steps, 1, 1)), TensorSpec(FLOAT32, (1,)))
    operator.check(specs)
    began = time.process_time()
    outputs = operator.infer(specs)
    assert time.process_time() - began < 5
    assert outputs == (TensorSpec(FLOAT32, (1, 1, 1)),)
    assert operator.work(specs, operator.operations(specs, outputs)) > 1e11


@pytest.mark.parametrize("dtype", sorted(ConvTbc.dtypes), ids=lambda dtype: str(TORCH_DTYPES[dtype]))
@pytest.mark.parametrize("samples", [0, 1, 3])
@pytest.mark.parametrize("pad", [0, 1, 10])
def test_inferred_by_conv1d_is_conv_tbc(dtype: int, samples: int, pad: int) -> None:
    specs = tuple(TensorSpec(dtype, shape) for shape in ((9, samples, 3), (4, 3, 5), (5,)))
    real = F.conv_tbc(*(torch.ones(spec.shape).to(TORCH_DTYPES[dtype]) for spec in specs), pad)
    assert ConvTbc(pad).infer(specs) == (TensorSpec(dtype, tuple(real.shape)),)
