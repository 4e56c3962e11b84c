"""Safetensors headers that lie, and files that the safetensors package reads and writes alike."""

import json
import math

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch

from layerwire.wire import dtypes
from layerwire_server.storage import HeaderError, TensorEntry, parse_header, read_header, write_safetensors
from layerwire_server.storage import safetensors as own

VALUES = {name: (name, (2, 3), bytes(range(6 * own.ITEMSIZES[name]))) for name in own.ITEMSIZES if name != "bool"}
VALUES["bool"] = ("bool", (2, 3), bytes([0, 1, 0, 1, 1, 0]))
VALUES["scalar"] = ("float32", (), bytes(4))
VALUES["empty"] = ("int16", (0, 7), b"")


def written(tensors):
    return b"".join(write_safetensors(tensors))


def opened(tmp_path, content):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    return path.open("rb")


def read(tmp_path, content):
    with opened(tmp_path, content) as file:
        return read_header(file)


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def header(fields):
    return json.dumps(fields).encode()


def parsed(text, data_bytes=4):
    return parse_header(text, 8 + len(text) + data_bytes)


def test_dtypes_are_the_wires():
    assert {dtypes.DTYPES[name]: itemsize for name, itemsize in own.ITEMSIZES.items()} == dtypes.ITEMSIZES
    assert own.MAX_AXES == dtypes.MAX_AXES


def test_the_package_reads_what_is_written():
    content = written(VALUES)
    loaded = load_torch(content)
    assert loaded.keys() == VALUES.keys()
    for key, (dtype, shape, data) in VALUES.items():
        assert loaded[key].dtype == getattr(torch, dtype) and tuple(loaded[key].shape) == shape
        assert loaded[key].view(torch.uint8).numpy().tobytes() == data if shape else loaded[key].item() == 0


def test_what_the_package_writes_is_read(tmp_path):
    tensors = {
        name: torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype)).reshape(shape) if data else torch.empty(0)
        for name, (dtype, shape, data) in VALUES.items()
    }
    content = save_torch(tensors, metadata={"format": "pt"})
    found = read(tmp_path, content)
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert found[key][:2] == (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        assert content[found[key].begin : found[key].end] == VALUES[key][2]


def test_layout_is_the_same_whatever_the_order_and_aligned():
    content = written(VALUES)
    assert content == written(dict(reversed(VALUES.items())))
    found = parse_header(content[8 : 8 + int.from_bytes(content[:8], "little")], len(content))
    assert min(entry.begin for entry in found.values()) % 64 == 0
    assert all(entry.begin % own.ITEMSIZES[entry.dtype] == 0 for entry in found.values())


def test_an_empty_file_of_no_tensors(tmp_path):
    assert read(tmp_path, written({})) == {}


def test_large_data_come_in_pieces():
    pieces = list(write_safetensors({"a": ("uint8", (5 << 19,), bytearray(5 << 19))}))
    assert [len(piece) for piece in pieces[1:]] == [1 << 20, 1 << 20, 1 << 19]


REFUSED = {
    "no object": (b"[]", "JSON object"),
    "space before": (b" {}", "JSON object"),
    "no json": (b'{"a" 1}', "no JSON"),
    "cut off": (header({"a": entry()})[:-1], "object of objects"),
    "string cut off": (b'{"a', "object of objects"),
    "twice": (b'{"a":' + header(entry()) + b',"a":' + header(entry()) + b"}", "twice"),
    "field twice": (b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', "twice"),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "object of objects"),
    "deep braces": (b'{"a":' * 1000 + b"1" + b"}" * 1000, "object of objects"),
    "no utf-8": (b'{"\xff":1}', "no JSON"),
    "no text": (b'{"\\ud800":' + header(entry()) + b"}", "no text"),
    "metadata number": (header({"__metadata__": {"a": 1}}), "strings to strings"),
    "metadata list": (b'{"__metadata__":"a"}', "strings to strings"),
    "tensor is a number": (header({"a": 1}), "dtype, shape and data_offsets"),
    "field missing": (header({"a": {"dtype": "F32", "shape": [1]}}), "dtype, shape and data_offsets"),
    "field unknown": (header({"a": entry() | {"stride": 1}}), "dtype, shape and data_offsets"),
    "dtype unknown": (header({"a": entry("F8_E4M3", (4,))}), "dtype must be one of"),
    "dtype is a list": (b'{"a":{"dtype":[],"shape":[1],"data_offsets":[0,4]}}', "dtype must be one of"),
    "size below zero": (header({"a": entry(shape=(-1, -1))}), "shape must be"),
    "size is true": (header({"a": entry(shape=(True,))}), "shape must be"),
    "size is a fraction": (header({"a": entry(shape=(1.0,))}), "whole"),
    "size is infinite": (b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}}', "whole"),
    "size of many digits": (
        b'{"a":{"dtype":"F32","shape":[1' + b"0" * 10_000 + b'],"data_offsets":[0,4]}}',
        "no JSON: a number has too many digits",
    ),
    "nine axes": (header({"a": entry(shape=(1,) * 9)}), "shape must be"),
    "overflow to 4": (header({"a": entry(shape=(1 << 62, 4, 1), offsets=(0, 0))}), "64 bits"),
    "overflow behind zero": (header({"a": entry(shape=(0, 1 << 62, 8), offsets=(0, 0))}), "64 bits"),
    "span too short": (header({"a": entry(shape=(2,))}), "span the bytes"),
    "span backwards": (header({"a": entry(offsets=(4, 0))}), "span the bytes"),
    "one offset": (header({"a": entry(offsets=(4,))}), "two whole numbers"),
    "offset below zero": (header({"a": entry(offsets=(-4, 0))}), "two whole numbers"),
    "beyond the end": (header({"a": entry(offsets=(4, 8))}), "without holes"),
    "hole at the end": (header({}), "without holes"),
    "overlap": (header({"a": entry(), "b": entry()}), "without holes"),
    "hole between": (header({"a": entry("U8", (1,), (0, 1)), "b": entry("U8", (1,), (3, 4))}), "without holes"),
}


@pytest.mark.parametrize(("text", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_lies_are_refused(text, why):
    with pytest.raises(HeaderError, match=why):
        parsed(text)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\1" + b"\0" * 7, b"\xff" * 8, b"\xff" * 100])
def test_lengths_that_lie(tmp_path, content):
    with pytest.raises(HeaderError):
        read(tmp_path, content)


def test_a_header_beyond_the_limit(tmp_path):
    length = own.MAX_HEADER_BYTES + 1
    with pytest.raises(HeaderError, match="at most 16777216"):
        read(tmp_path, length.to_bytes(8, "little") + b"{}" + b" " * (length - 2))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit", [b'"', b'\\"', b"[", b"{", b"[]", b"{}", b'"":{},', b"1,", b'"a":[1,', b"\\", b"9"], ids=repr
)
def test_large_nonsense_is_refused_in_linear_time(unit):
    for start in (b"{", b'{"', b'{"a":{"shape":['):
        with pytest.raises(HeaderError):
            parsed(start + unit * (2 << 20))


def test_too_many_tensors():
    text = header({str(number): entry("U8", (0,), (0, 0)) for number in range(own.MAX_TENSORS + 2)})
    with pytest.raises(HeaderError, match="at most 65536 tensors"):
        parsed(text, 0)


@pytest.mark.parametrize(
    "tensor", [("float32", (2,), bytes(4)), ("float8", (4,), bytes(4)), ("uint8", (1,) * 9, bytes(1))]
)
def test_nothing_wrong_is_written(tensor):
    with pytest.raises(HeaderError):
        written({"a": tensor})


def test_metadata_is_no_key():
    with pytest.raises(HeaderError):
        written({"__metadata__": ("uint8", (1,), b"1")})


TENSORS = st.dictionaries(
    st.text(max_size=8).filter(lambda key: key != "__metadata__"),
    st.tuples(st.sampled_from(list(own.ITEMSIZES)), st.lists(st.integers(0, 4), max_size=4).map(tuple)),
    max_size=6,
).map(lambda specs: {k: (d, s, bytes(math.prod(s) * own.ITEMSIZES[d])) for k, (d, s) in specs.items()})


@given(TENSORS)
def test_whatever_is_written_is_read(tensors):
    content = written(tensors)
    found = parse_header(content[8 : 8 + int.from_bytes(content[:8], "little")], len(content))
    assert {key: (e.dtype, e.shape, e.end - e.begin) for key, e in found.items()} == {
        key: (dtype, shape, len(data)) for key, (dtype, shape, data) in tensors.items()
    }
    assert load_torch(content).keys() == tensors.keys()


@given(TENSORS, st.data())
def test_damaged_files_are_refused_or_read_as_the_package_reads_them(tensors, data):
    content = bytearray(written(tensors))
    length = int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(8, 7 + length))] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(8 + length, len(content)) | st.just(len(content)))
    del content[cut:]
    try:
        found = parse_header(bytes(content[8 : 8 + length]), len(content))
    except HeaderError:
        return
    assert_cover(found, 8 + length, len(content))
    loaded = safetensors.deserialize(bytes(content))
    assert {key: tuple(tensor["shape"]) for key, tensor in loaded} == {key: e.shape for key, e in found.items()}


@given(st.binary(max_size=60))
def test_any_bytes(content):
    try:
        found = parse_header(content, len(content) + 8)
    except HeaderError:
        return
    assert_cover(found, 8 + len(content), 8 + len(content))


OFFSETS = st.lists(st.integers(-1, 9) | st.sampled_from([1 << 63, (1 << 64) - 1]), min_size=2, max_size=2)


@given(st.lists(OFFSETS, min_size=1, max_size=4), st.integers(0, 12))
def test_offsets_that_lie(offsets, data_bytes):
    fields = {str(i): entry("U8", (max(0, end - begin),), (begin, end)) for i, (begin, end) in enumerate(offsets)}
    text = header(fields)
    try:
        found = parsed(text, data_bytes)
    except HeaderError:
        return
    assert_cover(found, 8 + len(text), 8 + len(text) + data_bytes)


def assert_cover(found: dict[str, TensorEntry], start, end):
    """Every byte of the data belongs to exactly one tensor."""
    counts = np.zeros(end, int)
    for tensor in found.values():
        assert start <= tensor.begin <= tensor.end <= end
        assert tensor.end - tensor.begin == math.prod(tensor.shape) * own.ITEMSIZES[tensor.dtype]
        counts[tensor.begin : tensor.end] += 1
    assert not counts[:start].any() and (counts[start:] == 1).all()


def test_numpy_files_are_read(tmp_path):
    found = read(tmp_path, save({"x": np.arange(6, dtype=np.float64).reshape(2, 3)}))
    assert found["x"].dtype == "float64" and found["x"].shape == (2, 3)
