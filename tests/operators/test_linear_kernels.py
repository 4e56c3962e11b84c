"""Products by oneDNN against torch's own: within what products may differ by, always the same bits, never unchecked."""

from __future__ import annotations

import gc
import math
import threading

import pytest
import torch

from layerwire_server.operators import linear_kernels
from layerwire_server.operators.linear import Linear
from layerwire_server.operators.linear_kernels import BlocksMemory, NoRoomError, attach_blocks, drop_blocks, has_blocks
from layerwire_server.operators.operator import TORCH_DTYPES
from layerwire_server.worker.trials.trial import agree


@pytest.fixture(autouse=True)
def _few_rows_are_enough(monkeypatch):
    monkeypatch.setattr(linear_kernels, "_LEAST_ROWS", 1)


pytestmark = pytest.mark.skipif(not Linear().kernels(), reason="this build of torch has no oneDNN")

FEATURES = [(1, 1), (10, 4096), (33, 17), (512, 512), (1, 100), (120, 1)]  # out_features, in_features


def kernel(x, weight, bias=None):
    return Linear().kernels()["onednn"](x, weight, bias)


def memory(room=1 << 30):
    return BlocksMemory(lambda: room)


def operands(rows, out_features, in_features, dtype=torch.float32, *, bias=True):
    generator = torch.Generator().manual_seed(rows)
    shapes = (rows, in_features), (out_features, in_features), (out_features,)
    x, weight, vector = ((torch.randn(shape, generator=generator) * 4).to(dtype) for shape in shapes)
    return x, weight, vector if bias else None


@pytest.fixture
def entries(monkeypatch):
    """How often each of torch's entries was called."""
    counts = {"_PRODUCT": 0, "_BLOCKS": 0}

    def counted(name):
        entry = getattr(linear_kernels, name)

        def call(*arguments):
            counts[name] += 1
            return entry(*arguments)

        monkeypatch.setattr(linear_kernels, name, call)

    for name in counts:
        counted(name)
    return counts


@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 33, 200])
@pytest.mark.parametrize("features", FEATURES, ids=str)
def test_it_agrees_with_torch(features, rows, bias, is_stored, entries):
    x, weight, vector = operands(rows, *features, bias=bias)
    copy = weight.clone()
    if is_stored:
        attach_blocks(weight, memory())
        attach_blocks(copy, memory())
    output = kernel(x, weight, vector)
    assert entries["_PRODUCT"] == 1
    assert agree(output, Linear().run(x, weight, vector), exact=False)
    assert agree(kernel(x, weight, vector), output, exact=True)
    assert agree(kernel(x, copy, vector), output, exact=True), "in other blocks"
    assert output[0].is_contiguous()
    assert entries["_BLOCKS"] == (2 if is_stored else 0)


@pytest.mark.parametrize("is_stored", [True, False])
def test_nan_infinities_and_small_numbers_come_where_torch_has_them(is_stored):
    x, weight, bias = operands(9, 40, 70)
    x[1, 3], x[2, 5], x[3, 6], x[4], x[5] = math.nan, math.inf, -math.inf, -0.0, torch.finfo(torch.float32).max
    weight[7] = 0.0
    weight[8, 2], weight[9, 1] = math.inf, math.nan
    if is_stored:
        attach_blocks(weight, memory())
    assert agree(kernel(x, weight, bias), Linear().run(x, weight, bias), exact=False)
    tiny, ones = torch.full((9, 70), 2.0**-140), torch.ones(40, 70)
    assert agree(kernel(tiny, ones, torch.zeros(40)), Linear().run(tiny, ones, torch.zeros(40)), exact=True)


@pytest.mark.parametrize("dtype", sorted(Linear.dtypes))
def test_of_other_dtypes_it_is_torchs(dtype, entries):
    if TORCH_DTYPES[dtype] is torch.float32:
        return
    x, weight, bias = operands(5, 4, 3, TORCH_DTYPES[dtype])
    attach_blocks(weight, memory())
    assert not has_blocks(weight)
    assert agree(kernel(x, weight, bias), Linear().run(x, weight, bias), exact=True)
    assert entries["_PRODUCT"] == 0


X, W, B = torch.ones(5, 3), torch.ones(4, 3), torch.ones(4)
HOSTILE = {
    "no-rows": (torch.ones(0, 3), W, B),
    "no-columns": (torch.ones(5, 0), torch.ones(4, 0), B),
    "no-out-features": (X, torch.ones(0, 3), None),
    "weight-of-1-axis": (X, torch.ones(3), None),
    "weight-of-3-axes": (X, torch.ones(2, 4, 3), None),
    "weight-with-strides": (X, torch.ones(3, 4).t(), B),
    "weight-float64": (X, W.double(), B),
    "weight-meta": (X, W.to("meta"), B),
    "input-of-1-axis": (torch.ones(3), W, B),
    "scalar": (torch.tensor(1.0), W, None),
    "input-with-strides": (torch.ones(3, 5).t(), W, B),
    "input-expanded": (torch.ones(1, 3).expand(5, 3), W, B),
    "too-few-columns": (torch.ones(5, 2), W, B),
    "too-many-columns": (torch.ones(5, 300), W, B),
    "input-bfloat16": (X.bfloat16(), W, B),
    "input-float64": (X.double(), W, B),
    "input-bool": (X.bool(), W, B),
    "input-sparse": (X.to_sparse(), W, B),
    "input-mkldnn": (X.to_mkldnn(), W, None),
    "input-meta": (X.to("meta"), W, B),
    "input-with-gradient": (X.clone().requires_grad_(), W, B),
    "parameters": (X, torch.nn.Parameter(W.clone()), B),
    "bias-short": (X, W, torch.ones(2)),
    "bias-long": (X, W, torch.ones(400)),
    "bias-empty": (X, W, torch.ones(0)),
    "bias-of-2-axes": (X, W, torch.ones(1, 4)),
    "bias-with-strides": (X, W, torch.ones(8)[::2]),
    "bias-expanded": (X, W, torch.ones(1).expand(4)),
    "bias-float64": (X, W, B.double()),
}


@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize("tensors", HOSTILE.values(), ids=HOSTILE)
def test_what_the_entry_doesnt_check_never_reaches_it(tensors, is_stored, entries, monkeypatch):
    """Eager has it instead, and its errors."""
    reached = []
    monkeypatch.setattr(Linear, "run", lambda _, *each: reached.append(each) or ("eager",))
    x, weight, bias = tensors
    weight = weight.detach().clone(memory_format=torch.preserve_format) if weight.is_cpu else weight
    if tensors is HOSTILE["parameters"]:
        weight = tensors[1]
    if is_stored:
        attach_blocks(weight, memory())
    assert kernel(x, weight, bias) == ("eager",)
    assert len(reached) == 1
    assert entries == {"_PRODUCT": 0, "_BLOCKS": 0}


def test_more_axes():
    x, weight, bias = operands(24, 40, 30)
    attach_blocks(weight, memory())
    x = x.view(2, 3, 4, 30)
    (output,) = kernel(x, weight, bias)
    assert output.shape == (2, 3, 4, 40)
    assert agree((output,), Linear().run(x, weight, bias), exact=False)


def test_without_the_entry_there_is_no_kernel(monkeypatch):
    monkeypatch.setattr(linear_kernels, "_IS_THERE", False)
    assert not Linear().kernels()
    weight = torch.ones(4, 3)
    attach_blocks(weight, memory())
    assert not has_blocks(weight)


def test_blocks_are_made_once_and_go_with_their_weights(entries):
    room = memory()
    x, weight, bias = operands(8, 64, 32)
    attach_blocks(weight, room)
    assert room.nbytes == 0, "nobody has wanted them"
    kernel(x, weight, bias)
    kernel(x[:3], weight, None)
    assert entries == {"_PRODUCT": 2, "_BLOCKS": 1}
    assert room.nbytes == weight.nbytes
    drop_blocks(weight)
    drop_blocks(weight)
    assert room.nbytes == 0
    kernel(x, weight, bias)
    assert (room.nbytes, entries["_BLOCKS"]) == (weight.nbytes, 2)
    del weight
    gc.collect()
    assert room.nbytes == 0


@pytest.mark.parametrize("features", FEATURES, ids=str)
def test_blocks_take_no_more_than_is_counted(features):
    room = memory()
    x, weight, _ = operands(2, *features)
    attach_blocks(weight, room)
    kernel(x, weight)
    assert torch.ops.mkldnn._nbytes(torch.ops.mkldnn._reorder_linear_weight(weight, 16)) <= room.nbytes


def test_without_room_there_are_no_blocks(entries):
    x, weight, bias = operands(8, 64, 32)
    room = memory(weight.nbytes - 1)
    attach_blocks(weight, room)
    with pytest.raises(NoRoomError, match="--max-weights-bytes"):
        kernel(x, weight, bias)
    assert room.nbytes == 0
    assert entries == {"_PRODUCT": 0, "_BLOCKS": 0}


def test_blocks_that_cant_be_made_take_nothing(monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(linear_kernels, "_BLOCKS", fail)
    room = memory()
    x, weight, bias = operands(8, 64, 32)
    attach_blocks(weight, room)
    with pytest.raises(RuntimeError):
        kernel(x, weight, bias)
    assert room.nbytes == 0


def test_threads_that_make_the_same_blocks_at_once_count_them_once(monkeypatch):
    both = threading.Barrier(2, timeout=30)
    entry = linear_kernels._BLOCKS

    def make(*arguments):
        both.wait()
        return entry(*arguments)

    monkeypatch.setattr(linear_kernels, "_BLOCKS", make)
    room = memory()
    x, weight, bias = operands(8, 64, 32)
    attach_blocks(weight, room)
    threads = [threading.Thread(target=kernel, args=(x, weight, bias)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert room.nbytes == weight.nbytes


def test_few_rows_go_by_eager(monkeypatch):
    monkeypatch.undo()
    x, weight = torch.ones(linear_kernels._LEAST_ROWS, 8), torch.ones(4, 8)
    eager_rows = []

    def eager(x, weight, bias):
        eager_rows.append(len(x))
        return (torch.nn.functional.linear(x, weight, bias),)

    for rows in (1, linear_kernels._LEAST_ROWS - 1, linear_kernels._LEAST_ROWS):
        for kernel in linear_kernels.kernels(eager).values():
            assert torch.equal(kernel(x[:rows], weight, None)[0], torch.full((rows, 4), 8.0))
    assert eager_rows in ([], [1, linear_kernels._LEAST_ROWS - 1])
