"""Safetensors headers that lie, and files that the safetensors package reads and writes alike."""

import json
import math

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch

from layerwire.wire.dtypes import DTYPES, ELEMENT_TYPES, ITEMSIZES
from layerwire.wire.safetensors import (
    MAX_TENSORS,
    Content,
    FormatError,
    SafetensorsFile,
    TensorEntry,
    parse_header,
)

VALUES = {row.name: (row.name, (2, 3), bytes(range(6 * row.nbytes))) for row in ELEMENT_TYPES if row.name != "bool"}
VALUES["bool"] = ("bool", (2, 3), bytes([0, 1, 0, 1, 1, 0]))
VALUES["scalar"] = ("float32", (), bytes(4))
VALUES["empty"] = ("int16", (0, 7), b"")


def file_of(tensors):
    return SafetensorsFile(
        {
            key: Content(DTYPES[dtype], shape, lambda data=data: memoryview(data))
            for key, (dtype, shape, data) in tensors.items()
        }
    )


def content_of(tensors):
    return b"".join(file_of(tensors).pieces())


def split(content):
    """The header, and how long the file is."""
    return content[8 : 8 + int.from_bytes(content[:8], "little")], len(content)


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def header(fields):
    return json.dumps(fields).encode()


def parse(text, data_bytes=4):
    return parse_header(text, 8 + len(text) + data_bytes)


def test_the_package_reads_what_is_written():
    content = content_of(VALUES)
    loaded = load_torch(content)
    assert loaded.keys() == VALUES.keys()
    for key, (dtype, shape, data) in VALUES.items():
        assert loaded[key].dtype == getattr(torch, dtype) and tuple(loaded[key].shape) == shape
        assert loaded[key].view(torch.uint8).numpy().tobytes() == data if shape else loaded[key].item() == 0


def test_what_the_package_writes_is_read():
    tensors = {
        name: torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype)).reshape(shape) if data else torch.empty(0)
        for name, (dtype, shape, data) in VALUES.items()
    }
    content = save_torch(tensors, metadata={"format": "pt"})
    entries = parse_header(*split(content))
    assert entries.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert entries[key][:2] == (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        assert content[entries[key].begin : entries[key].end] == VALUES[key][2]


def test_layout_is_the_same_whatever_the_order_and_aligned():
    content = content_of(VALUES)
    assert content == content_of(dict(reversed(VALUES.items())))
    entries = parse_header(*split(content))
    assert min(entry.begin for entry in entries.values()) % 64 == 0
    assert all(entry.begin % ITEMSIZES[DTYPES[entry.dtype]] == 0 for entry in entries.values())


def test_no_tensors():
    assert parse_header(*split(content_of({}))) == {}


def test_large_data_come_in_pieces():
    pieces = list(file_of({"a": ("uint8", (5 << 19,), bytearray(5 << 19))}).pieces())
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
    with pytest.raises(FormatError, match=why):
        parse(text)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit", [b'"', b'\\"', b"[", b"{", b"[]", b"{}", b'"":{},', b"1,", b'"a":[1,', b"\\", b"9"], ids=repr
)
def test_large_nonsense_is_refused_in_linear_time(unit):
    for start in (b"{", b'{"', b'{"a":{"shape":['):
        with pytest.raises(FormatError):
            parse(start + unit * (2 << 20))


def test_too_many_tensors():
    text = header({str(number): entry("U8", (0,), (0, 0)) for number in range(MAX_TENSORS + 2)})
    with pytest.raises(FormatError, match="at most 65536 tensors"):
        parse(text, 0)


TENSORS = st.dictionaries(
    st.text(max_size=8).filter(lambda key: key != "__metadata__"),
    st.tuples(st.sampled_from(list(DTYPES)), st.lists(st.integers(0, 4), max_size=4).map(tuple)),
    max_size=6,
).map(lambda specs: {k: (d, s, bytes(math.prod(s) * ITEMSIZES[DTYPES[d]])) for k, (d, s) in specs.items()})


@given(TENSORS)
def test_whatever_is_written_is_read(tensors):
    content = content_of(tensors)
    entries = parse_header(*split(content))
    assert {key: (e.dtype, e.shape, e.end - e.begin) for key, e in entries.items()} == {
        key: (dtype, shape, len(data)) for key, (dtype, shape, data) in tensors.items()
    }
    assert load_torch(content).keys() == tensors.keys()


@given(TENSORS, st.data())
def test_damaged_files_are_refused_or_read_as_the_package_reads_them(tensors, data):
    content = bytearray(content_of(tensors))
    length = int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(8, 7 + length))] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(8 + length, len(content)) | st.just(len(content)))
    del content[cut:]
    try:
        entries = parse_header(bytes(content[8 : 8 + length]), len(content))
    except FormatError:
        return
    assert_cover(entries, 8 + length, len(content))
    loaded = safetensors.deserialize(bytes(content))
    assert {key: tuple(tensor["shape"]) for key, tensor in loaded} == {key: e.shape for key, e in entries.items()}


@given(st.binary(max_size=60))
def test_any_bytes(content):
    try:
        entries = parse_header(content, len(content) + 8)
    except FormatError:
        return
    assert_cover(entries, 8 + len(content), 8 + len(content))


OFFSETS = st.lists(st.integers(-1, 9) | st.sampled_from([1 << 63, (1 << 64) - 1]), min_size=2, max_size=2)


@given(st.lists(OFFSETS, min_size=1, max_size=4), st.integers(0, 12))
def test_offsets_that_lie(offsets, data_bytes):
    fields = {str(i): entry("U8", (max(0, end - begin),), (begin, end)) for i, (begin, end) in enumerate(offsets)}
    text = header(fields)
    try:
        entries = parse(text, data_bytes)
    except FormatError:
        return
    assert_cover(entries, 8 + len(text), 8 + len(text) + data_bytes)


def assert_cover(entries: dict[str, TensorEntry], start, end):
    """Every byte of the data belongs to exactly one tensor."""
    counts = np.zeros(end, int)
    for tensor in entries.values():
        assert start <= tensor.begin <= tensor.end <= end
        assert tensor.end - tensor.begin == math.prod(tensor.shape) * ITEMSIZES[DTYPES[tensor.dtype]]
        counts[tensor.begin : tensor.end] += 1
    assert not counts[:start].any() and (counts[start:] == 1).all()
