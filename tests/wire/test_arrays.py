"""What goes in and comes out: dtypes, layouts, numbers, torch."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import layerwire
from layerwire.errors import InvalidArgumentError
from layerwire.wire import arrays, dtypes

NUMPY = ["float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "bool"]
TORCH = [*NUMPY, "bfloat16"]


@pytest.fixture
def lw(serve):
    """A client whose server gives back what it got."""

    def echo(stream, call):
        stream.answer(id=call.id, activate={"output": call.activate.input})

    with layerwire.Client(serve(echo).address) as client:
        yield client


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("dtype", NUMPY)
def test_numpy_comes_back(lw, dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    answer = lw.relu(array)
    assert isinstance(answer, np.ndarray)
    assert (answer.dtype, answer.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(answer, array)
    assert answer.flags.writeable
    answer.fill(1)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("dtype", TORCH)
def test_torch_comes_back(lw, dtype, shape):
    tensor = torch.arange(int(np.prod(shape, dtype=int))).reshape(shape).to(getattr(torch, dtype))
    answer = lw.relu(tensor)
    assert isinstance(answer, torch.Tensor)
    torch.testing.assert_close(answer, tensor, rtol=0, atol=0)
    answer.fill_(1)


def test_bits_come_back_as_they_were(lw):
    bits = np.array([0x7FC01234, 0xFF800000, 0x80000000, 0x00000001], np.uint32).view(np.float32)
    np.testing.assert_array_equal(lw.relu(bits).view(np.uint32), bits.view(np.uint32))
    half = torch.tensor([0x7FC1, 0xFF80, 0x8000, 0x0001], dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    assert torch.equal(lw.relu(half).view(torch.int16), half.view(torch.int16))


BASE = np.arange(24, dtype=np.float32).reshape(4, 6)
LAYOUTS = {
    "transposed": BASE.T,
    "strided": BASE[::2, 1::2],
    "reversed": BASE[::-1],
    "broadcast": np.broadcast_to(BASE[0], (5, 6)),
    "fortran": np.asfortranarray(BASE),
    "big-endian": BASE.astype(">f4"),
    "read-only": np.frombuffer(BASE.tobytes(), np.float32),
    "scalar": np.float64(2.5),
    "subclass": BASE.view(np.recarray),
    "zero-axes": np.array(2.5, np.float32),
    "zero-axes-big-endian": np.array(2.5, ">f8"),
    "big-endian-half": BASE.astype(">f2"),
    "big-endian-integers": BASE.astype(">i4")[::-2],
    "unaligned": np.frombuffer(b"x" + BASE.tobytes(), np.float32, offset=1),
    "bool-strided": (BASE > 3)[:, ::2],
}


@pytest.mark.parametrize("array", LAYOUTS.values(), ids=LAYOUTS)
def test_any_layout_of_numpy(lw, array):
    answer = lw.relu(array)
    np.testing.assert_array_equal(answer, array)
    assert answer.dtype == np.asarray(array).dtype.newbyteorder("=")


TENSOR = torch.arange(24, dtype=torch.float32).reshape(4, 6)
TENSORS = {
    "transposed": TENSOR.T,
    "strided": TENSOR[::2, 1::2],
    "expanded": TENSOR[0].expand(5, 6),
    "channels-last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "requires-grad": TENSOR.clone().requires_grad_(),
    "parameter": torch.nn.Parameter(TENSOR.clone()),
    "negated-lazily": torch.randn(3, dtype=torch.complex64).conj().imag,
    "bfloat16-transposed": TENSOR.T.bfloat16(),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_any_layout_of_torch(lw, tensor):
    answer = lw.relu(tensor)
    assert torch.equal(answer, tensor.detach())
    assert not answer.requires_grad


NUMBERS = {
    "float": (1.5, np.float32, ()),
    "int": (3, np.int64, ()),
    "bool": (True, np.bool_, ()),
    "floats": ([1.5, -2.0], np.float32, (2,)),
    "ints": ([[1, 2], [3, 4]], np.int64, (2, 2)),
    "mixed": ((1, 2.5), np.float32, (2,)),
    "bools": ([True, False], np.bool_, (2,)),
    "empty": ([], np.float32, (0,)),
    "empty-rows": ([[], []], np.float32, (2, 0)),
    "beyond-float32": ([1e300], np.float32, (1,)),
    "numpy-scalars": ([np.float64(1), np.float64(2)], np.float64, (2,)),
    "arrays": ([np.zeros(2, np.float16)] * 3, np.float16, (3, 2)),
}


@pytest.mark.parametrize(("value", "dtype", "shape"), NUMBERS.values(), ids=NUMBERS)
def test_numbers_become_what_torch_makes_of_them(lw, value, dtype, shape):
    answer = lw.relu(value)
    assert (answer.dtype, answer.shape) == (dtype, shape)
    np.testing.assert_array_equal(
        answer, np.asarray(value).astype(dtype) if dtype != np.float32 else torch.tensor(value)
    )


WRONG_TYPES = {
    "none": None,
    "text": ["a", "b"],
    "dict": {"a": 1},
    "object": object(),
    "objects": [object()],
    "complex": np.zeros(2, np.complex64),
    "complex-numbers": [1j],
    "unsigned-16": np.zeros(2, np.uint16),
    "dates": np.zeros(2, "datetime64[s]"),
    "date": np.datetime64("2020-01-01"),
    "time-spans": np.zeros(2, "timedelta64[s]"),
    "records": np.zeros(2, [("a", "f4")]),
    "void": np.zeros(2, "V4"),
    "object-array": np.array([1, 2], object),
    "list-of-object-arrays": [np.array([1, 2], object)],
    "none-among-numbers": [[1, None]],
    "text-among-numbers": [1, "a"],
    "bytearray": bytearray(b"ab"),
    "unsigned-32-big-endian": np.zeros(2, ">u4"),
    "list-of-tensors": [torch.zeros(2), torch.zeros(2)],
    "list-of-tensors-with-gradient": [1.0, torch.zeros(1, requires_grad=True)],
    "strings": np.array(["a"]),
    "torch-complex": torch.zeros(2, dtype=torch.complex64),
    "torch-conjugate": torch.zeros(2, dtype=torch.complex64).conj(),
    "torch-unsigned-16": torch.zeros(2, dtype=torch.uint16),
    "torch-sparse": torch.eye(2).to_sparse(),
    "torch-mkldnn": torch.zeros(2, 2).to_mkldnn(),
    "torch-meta": torch.zeros(2, device="meta"),
}
WRONG_VALUES = {
    "ragged": [[1, 2], [3]],
    "ragged-deep": [[[1.0], [2.0]], [[1.0]]],
    "ragged-number": [[1], 2],
    "large": 2**63,
    "larger": [1, 2**70],
}


@pytest.mark.parametrize("value", WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_wrong_type(lw, value):
    with pytest.raises(TypeError, match="relu: input "):
        lw.relu(value)


@pytest.mark.parametrize("value", WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_wrong_value(lw, value):
    with pytest.raises(InvalidArgumentError, match="relu: input ") as caught:
        lw.relu(value)
    assert caught.value.field == "input"


MASKED = np.ma.masked_array(BASE, BASE > 3)


@pytest.mark.parametrize(
    "value",
    [MASKED, np.ma.masked_array(BASE), np.ma.masked, [MASKED, MASKED], [BASE, MASKED], [[BASE], [MASKED]]],
    ids=["some", "nothing", "constant", "list", "second-in-list", "nested-list"],
)
def test_a_mask_is_not_lost_in_silence(lw, value):
    with pytest.raises(TypeError, match=r"relu: input is a .*\.filled\(\)"):
        lw.relu(value)
    assert lw.relu(MASKED.filled(0)).sum() == 6


STRANGE = {
    "sparse": (lambda: torch.eye(2).to_sparse(), r"\.to_dense\(\)"),
    "quantized": (lambda: torch.quantize_per_tensor(TENSOR, 0.1, 0, torch.quint8), r"\.dequantize\(\)"),
    "nested": (lambda: torch.nested.nested_tensor([TENSOR[0], TENSOR[0, :2]], layout=torch.jagged), "rows differ"),
    "fake": (lambda: in_mode(FakeTensorMode()), "FakeTensor without data of its own"),
    "list": (lambda: [TENSOR, TENSOR], r"torch\.stack"),
}


def in_mode(mode):
    with mode:
        return torch.zeros(2)


@pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # torch says of some that they are young, of others that they are old
@pytest.mark.parametrize(("make", "words"), STRANGE.values(), ids=STRANGE)
def test_a_tensor_that_is_more_than_numbers_is_told_what_to_do(lw, make, words):
    with pytest.raises(TypeError, match=f"relu: input is .*{words}"):
        lw.relu(make())


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad])
def test_inside_a_transform_of_torch_there_are_no_data(lw, transform):
    with pytest.raises(TypeError, match=r"inside a transform of torch\.func"):
        transform(lambda row: lw.relu(row).sum())(TENSOR)


def test_one_torch_tensor_makes_the_answer_torch(serve):
    def echo(stream, call):
        stream.answer(id=call.id, linear={"output": call.linear.input})

    with layerwire.Client(serve(echo).address) as lw:
        assert isinstance(lw.linear(BASE, torch.zeros(2, 6)), torch.Tensor)
        assert isinstance(lw.linear(TENSOR, np.zeros((2, 6))), torch.Tensor)
        assert isinstance(lw.linear(BASE, "w"), np.ndarray)


def test_arguments_are_copied_when_the_call_is_made(serve):
    held = []
    server = serve(lambda stream, call: held.append((stream, call)))
    with layerwire.Client(server.address) as lw:
        array = np.ones(3, np.float32)
        future = lw.submit.relu(array)
        array.fill(7)
        server.wait_for(lambda: len(held) == 1)
        server.soon(held[0][0].reply, held[0][1])
        np.testing.assert_array_equal(future.result(300), [1, 1, 1])


def test_bfloat16_arrays_are_known_by_name(lw, monkeypatch):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    answer = lw.relu(array)
    assert answer.dtype == array.dtype
    np.testing.assert_array_equal(answer, array)


def test_tables_cover_the_contract():
    assert set(arrays.WIRE_DTYPES.values()) | {dtypes.DTYPES["bfloat16"]} == set(dtypes.DTYPE_NAMES)
    assert sys.byteorder == "little", "data goes as it lies in memory"


@pytest.mark.gpu
def test_answers_come_back_on_the_device_of_the_input(lw):
    tensor = TENSOR.cuda()
    answer = lw.relu(tensor)
    assert answer.device == tensor.device
    assert torch.equal(answer, tensor)
