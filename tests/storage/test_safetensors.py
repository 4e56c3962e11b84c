"""Safetensors files on the disk: lengths that lie, and what the store writes and reads itself."""

import numpy as np
import pytest
from safetensors.numpy import save

from layerwire.wire.safetensors import MAX_HEADER_BYTES
from layerwire_server.storage import HeaderError, read_header, write_safetensors


def content_of(tensors):
    return b"".join(write_safetensors(tensors))


def read(tmp_path, content):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with path.open("rb") as file:
        return read_header(file)


def test_an_empty_file_of_no_tensors(tmp_path):
    assert read(tmp_path, content_of({})) == {}


def test_large_data_come_in_pieces():
    pieces = list(write_safetensors({"a": ("uint8", (5 << 19,), bytearray(5 << 19))}))
    assert [len(piece) for piece in pieces[1:]] == [1 << 20, 1 << 20, 1 << 19]


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\1" + b"\0" * 7, b"\xff" * 8, b"\xff" * 100])
def test_lengths_that_lie(tmp_path, content):
    with pytest.raises(HeaderError):
        read(tmp_path, content)


def test_a_header_beyond_the_limit(tmp_path):
    length = MAX_HEADER_BYTES + 1
    with pytest.raises(HeaderError, match="at most 16777216"):
        read(tmp_path, length.to_bytes(8, "little") + b"{}" + b" " * (length - 2))


@pytest.mark.parametrize(
    "tensor", [("float32", (2,), bytes(4)), ("float8", (4,), bytes(4)), ("uint8", (1,) * 9, bytes(1))]
)
def test_nothing_wrong_is_written(tensor):
    with pytest.raises(HeaderError):
        content_of({"a": tensor})


def test_metadata_is_no_key():
    with pytest.raises(HeaderError):
        content_of({"__metadata__": ("uint8", (1,), b"1")})


def test_numpy_files_are_read(tmp_path):
    entries = read(tmp_path, save({"x": np.arange(6, dtype=np.float64).reshape(2, 3)}))
    assert entries["x"].dtype == "float64" and entries["x"].shape == (2, 3)


def test_a_header_that_lies_is_an_error_of_the_store(tmp_path):
    with pytest.raises(HeaderError, match="JSON object"):
        read(tmp_path, (2).to_bytes(8, "little") + b"[]")
