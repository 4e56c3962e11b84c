"""Other kernels of pools against torch's own: the same bits, whatever the windows, dtypes and elements are."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from layerwire.v1 import operators_pb2
from layerwire_server.operators import avg_pool_kernels, blocks, max_pool_kernels
from layerwire_server.operators.operator import FLOATS, INTEGERS, TORCH_DTYPES
from layerwire_server.operators.pool import AvgPool, MaxPool
from layerwire_server.operators.pool_adaptive import AdaptiveAvgPool
from tests.operator_cases import cases
from tests.operators.local import Local, same_bits

DTYPES = [TORCH_DTYPES[dtype] for dtype in sorted(FLOATS | INTEGERS)]
EXTENTS = {1: (9, 10), 2: ((7, 9), (6, 8)), 3: ((5, 7, 6), (6, 5, 8))}
WINDOWS = [  # kernel_size, stride, padding, dilation, ceil_mode
    (1, 1, 0, 1, False),
    (1, 2, 0, 1, False),
    (2, 2, 0, 1, False),
    (2, 2, 0, 1, True),
    (2, 2, 1, 1, False),
    (2, 1, 1, 1, False),
    (2, 3, 0, 2, False),
    (2, 2, 0, 2, False),
    (3, 1, 1, 1, False),
    (3, 2, 1, 1, False),
    (3, 2, 1, 1, True),
    (3, 3, 1, 2, True),
]


@pytest.fixture(autouse=True)
def one_thread():
    """torch wakes all its threads for the smallest of pools, which takes milliseconds where others run too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def operator(dims, window, return_indices):
    kernel_size, stride, padding, dilation, ceil_mode = window
    message = operators_pb2.MaxPool(
        spatial_dims=dims,
        kernel_size=[kernel_size],
        stride=[stride],
        padding=[padding],
        dilation=[dilation],
        ceil_mode=ceil_mode,
        return_indices=return_indices,
    )
    return MaxPool.from_message(message)


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8)


def elements(kind, shape, dtype):
    """Numbers; or few of them, often equal, zeros of both signs among them; or NaN with payloads and infinities."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(len(kind))) * 3
    if not dtype.is_floating_point:
        if kind == "extremes":
            info = torch.iinfo(dtype)
            return torch.where(x > 1, info.max, torch.where(x < -1, info.min, 0)).to(dtype)
        return (x.abs() if dtype is torch.uint8 else x.round()).to(dtype)
    if kind == "equal":
        return (x.round().clamp(-1, 0) * torch.where(x > 0, -1.0, 1.0)).to(dtype)
    if kind == "extremes":
        x = torch.where(x > 2, -math.inf, torch.where(x < -3, math.inf, x)).to(dtype)
        integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
        payloads = torch.tensor([math.nan], dtype=dtype).view(integer) + torch.arange(x.numel(), dtype=integer) % 7
        return torch.where(x.abs() < 0.7, payloads.view(dtype).view(shape), x)
    return x.to(dtype)


@pytest.mark.parametrize("kind", ["numbers", "equal", "extremes"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_each_kernel_gives_torchs_bits(dims, dtype, kind):
    count = 0
    for window, return_indices, extents in itertools.product(WINDOWS, (False, True), EXTENTS[dims]):
        pool = operator(dims, window, return_indices)
        x = elements(kind, (5, *(extents if dims > 1 else (extents,))), dtype)
        if dims == 1 and not return_indices and not dtype.is_floating_point:
            continue  # torch's own max_pool1d takes floats only
        expected = pool.run(x)
        for name, kernel in pool.kernels().items():
            outputs = kernel(x)
            for output, other in zip(outputs, expected, strict=True):
                assert (output.dtype, output.shape) == (other.dtype, other.shape), (name, window)
                assert torch.equal(bits(output), bits(other)), (name, window, extents)
            count += 1
    assert count or (dims == 1 and not dtype.is_floating_point)  # at 1-d there is none with indices


@pytest.mark.parametrize("kind", ["numbers", "equal", "extremes"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("window", [WINDOWS[1], WINDOWS[3], WINDOWS[10]], ids=str)
def test_planes_that_fill_vectors(window, dtype, kind):
    """Side by side, so many channels are compared at once, and what is left over one by one: 64 of int8, and more."""
    for return_indices in (False, True):
        pool = operator(2, window, return_indices)
        x = elements(kind, (75, 7, 9), dtype)
        expected = pool.run(x)
        for name, kernel in pool.kernels().items():
            for output, other in zip(kernel(x), expected, strict=True):
                assert torch.equal(bits(output), bits(other)), name


@pytest.mark.parametrize("return_indices", [False, True])
def test_a_large_batch_goes_in_blocks(monkeypatch, return_indices):
    """A block whose bits might differ is left to torch's kernel, and the others aren't."""
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 3 * 6 * 8 * 4)
    pool = operator(2, (2, 2, 0, 1, False), return_indices)
    x = elements("numbers", (10, 6, 8), torch.float32)
    x[4, 0, 0] = math.nan
    x[7, 5, 5] = -0.0
    eager_rows = []

    def eager(tensor):
        eager_rows.append(len(tensor))
        return pool.run(tensor)

    name = "comparison" if return_indices else "rows_first"
    kernel = max_pool_kernels.kernels(pool.window, eager, return_indices=return_indices)[name]
    for output, expected in zip(kernel(x), pool.run(x), strict=True):
        assert torch.equal(bits(output), bits(expected))
    assert eager_rows == [3, 3]


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (3, 2, 2), (1, 3, 3)])
@pytest.mark.parametrize("return_indices", [False, True])
def test_no_rows_and_single_windows(shape, return_indices):
    pool = operator(2, (2, 2, 0, 1, False), return_indices)
    x = torch.randn(shape)
    expected = pool.run(x)
    for kernel in pool.kernels().values():
        for output, other in zip(kernel(x), expected, strict=True):
            assert output.shape == other.shape
            assert torch.equal(output, other)


@pytest.mark.parametrize("kind", ["numbers", "equal", "extremes"])
@pytest.mark.parametrize("dtype", DTYPES[:4], ids=str)
@pytest.mark.parametrize("dims", [1, 2])
def test_means_have_torchs_bits(dims, dtype, kind):
    count = 0
    for kernel_size, stride, divisor in ((2, 2, 0), (3, 2, 0), (3, 1, 0), (2, 3, 3), (2, 2, -3), (4, 1, 0)):
        message = operators_pb2.AvgPool(spatial_dims=dims, kernel_size=[kernel_size], stride=[stride])
        if divisor and dims == 2:
            message.divisor_override = divisor
        pool = AvgPool.from_message(message)
        x = elements(kind, (5, *((7, 9)[:dims])), dtype)
        (expected,) = pool.run(x)
        for kernel in pool.kernels().values():
            (output,) = kernel(x)
            assert torch.equal(bits(output), bits(expected)), (kernel_size, stride, divisor)
            count += 1
    assert count


@pytest.mark.parametrize("field", ["padding", "ceil_mode"])
def test_windows_beyond_the_edge_are_torchs(field):
    message = operators_pb2.AvgPool(spatial_dims=2, kernel_size=[2], **{field: [1] if field == "padding" else True})
    assert AvgPool.from_message(message).kernels() == {}


@pytest.mark.parametrize("kind", ["numbers", "equal", "extremes"])
@pytest.mark.parametrize("dtype", DTYPES[:4], ids=str)
@pytest.mark.parametrize("dims", [1, 2])
def test_adaptive_means_have_torchs_bits(dims, dtype, kind):
    """Windows that are alike, of one size or two; that aren't; of one element; of whole planes; and too large ones."""
    count = 0
    for extents, output_size in itertools.product(((6, 9), (12, 6), (3, 3), (1, 9)), ((3, 3), (6, 3), (1, 3), (1, 1))):
        pool = AdaptiveAvgPool(output_size[:dims])
        x = elements(kind, (5, *extents[:dims]), dtype)
        (expected,) = pool.run(x)
        for kernel in pool.kernels().values():
            (output,) = kernel(x)
            assert (output.dtype, output.shape) == (expected.dtype, expected.shape)
            assert torch.equal(bits(output), bits(expected)), (extents, output_size)
            count += 1
    assert count


def test_adaptive_means_are_torchs_where_windows_differ():
    eager_shapes = []

    def eager(tensor):
        eager_shapes.append(tuple(tensor.shape))
        return AdaptiveAvgPool((3, 3)).run(tensor)

    kernel = avg_pool_kernels.adaptive_kernels((3, 3), eager)["plane_sums"]
    for shape in ((5, 6, 9), (5, 7, 9), (5, 3, 3), (5, 12, 12), (5, 2, 3)):
        kernel(torch.randn(shape))
    assert eager_shapes == [(5, 7, 9), (5, 3, 3), (5, 12, 12), (5, 2, 3)]


class EveryKernel:
    """A tuner that lets every kernel of a batch run, and checks each against eager."""

    def __init__(self):
        self.names = set()

    def site(self, key, tensors, threads=0):
        expected = key.operator.run(*tensors)
        for name, kernel in key.operator.kernels().items():
            self.names.add(name)
            assert key.operator.kernels_are_exact
            for output, other in zip(kernel(*tensors), expected, strict=True):
                assert same_bits(output, other), (key.operator, name)


def test_every_call_of_the_table_by_every_kernel():
    local = Local()
    local.device.tuner = tuner = EveryKernel()
    for case in cases():
        if "pool" in case.function:
            local.run([local.decode(case)])
    assert tuner.names == {"rows_first", "comparison", "channels_last", "plane_sums"}
