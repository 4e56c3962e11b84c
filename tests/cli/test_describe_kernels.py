"""`layerwire describe`: which kernels were chosen by trial, as a table of bounded length and as JSON."""

from __future__ import annotations

import json

from layerwire.cli import describe
from layerwire.v1.store_pb2 import GetProgramResponse, KernelChoice, KernelTrial


def choice(**fields):
    values = {
        "operator": "max_pool2d",
        "parameters": "MaxPool(stride=(2, 2))",
        "inputs": "float32[<8, 4, 4]",
        "kernel": "rows_first",
        "times_as_fast": 2.504,
        "same_bits": True,
        "trials": [
            KernelTrial(kernel="rows_first", result="fastest", times_as_fast=2.504),
            KernelTrial(kernel="[red]other", result="wrong"),
        ],
    }
    return KernelChoice(**(values | fields))


def shown(table, capsys):
    from layerwire.cli.tables import console

    console().print(table)
    return capsys.readouterr().out


def test_a_table_tells_what_was_tried_and_what_won(capsys):
    program = choice(operator="run", parameters="Run(digest='41')", same_bits=False)
    eager = choice(inputs="int8[<2, 4, 4]", kernel="eager", same_bits=False, times_as_fast=1.0, trials=[])
    text = shown(describe._kernels([choice(), program, eager]), capsys)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    tried = "rows_first 2.50, [red]other wrong"
    assert f"max_pool2d MaxPool(stride=(2, 2)) float32[<8, 4, 4] rows_first 2.50 torch's {tried}" in rows
    assert f"Run(digest='41') float32[<8, 4, 4] rows_first 2.50 its own {tried}" in rows
    assert "max_pool2d MaxPool(stride=(2, 2)) int8[<2, 4, 4] eager 1.00 torch's" in rows


def test_of_one_operator_its_name_stands_in_no_row(capsys):
    text = shown(describe._kernels([choice(), choice(inputs="int8[<2, 4, 4]")]), capsys)
    assert "MaxPool" not in text
    assert "int8[<2, 4, 4]" in text


def test_a_table_is_of_bounded_length(capsys):
    choices = [choice(inputs=f"float32[<8, {number}]") for number in range(250)]
    text = shown(describe._kernels(choices), capsys)
    assert "float32[<8, 99]" in text
    assert "float32[<8, 100]" not in text
    assert "150 more: --json has all" in text


def test_json_has_all_that_is_known(capsys):
    describe._print_all_kernels([choice(start_seconds=1.5)], json_=True)
    (value,) = json.loads(capsys.readouterr().out)["kernels"]
    assert value == {
        "operator": "max_pool2d",
        "parameters": "MaxPool(stride=(2, 2))",
        "inputs": "float32[<8, 4, 4]",
        "kernel": "rows_first",
        "times_as_fast": 2.5,
        "same_bits": True,
        "start_seconds": 1.5,
        "trials": [
            {"kernel": "rows_first", "result": "fastest", "times_as_fast": 2.5},
            {"kernel": "[red]other", "result": "wrong", "times_as_fast": 0.0},
        ],
    }
    assert describe.as_json(GetProgramResponse(kernels=[choice(start_seconds=1.5)]))["kernels"] == [value]


def test_where_there_are_none(capsys):
    describe._print_all_kernels([], json_=False)
    assert "No kernels were chosen by trial" in capsys.readouterr().out


def test_without_a_name_all_are_listed(cli, address):
    assert isinstance(json.loads(cli("describe", address, "--json").stdout)["kernels"], list)
