"""The table of dtypes agrees with the contract, torch and numpy, and the bottom of the wire loads nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from layerwire.inference_v2 import open_inference_pb2
from layerwire.v1 import tensor_pb2
from layerwire.wire.dtypes import ELEMENT_TYPES

ROWS = pytest.mark.parametrize("row", ELEMENT_TYPES, ids=lambda row: row.name)


def test_codes_are_those_of_the_contract():
    codes = {f"DATA_TYPE_{row.name.upper()}": row.code for row in ELEMENT_TYPES}
    assert codes | {"DATA_TYPE_UNSPECIFIED": 0} == dict(tensor_pb2.DataType.items())


@ROWS
def test_elements_have_the_bytes_of_torch(row):
    assert getattr(torch, row.name).itemsize == row.nbytes


@ROWS
def test_contents_are_a_field_of_the_inference_protocol(row):
    assert not row.contents or row.contents in open_inference_pb2.InferTensorContents.DESCRIPTOR.fields_by_name


@pytest.mark.parametrize("column", ["name", "code", "safetensors", "inference"])
def test_names_are_unique(column):
    values = [getattr(row, column) for row in ELEMENT_TYPES]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("module", ["dtypes", "protobuf", "safetensors", "health"])
def test_the_bottom_of_the_wire_loads_neither_messages_nor_arrays(module):
    heavy = "{'google', 'grpc', 'numpy', 'torch'}"
    code = f"import sys, layerwire.wire.{module}; assert not {heavy} & sys.modules.keys(), {heavy} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
