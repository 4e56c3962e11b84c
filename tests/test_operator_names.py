"""An operator is the same word once in each place; what forgets one is named here."""

from __future__ import annotations

import inspect

import pytest
import torch.nn.functional as F

from layerwire.calls import OperatorCalls
from layerwire_server.operators import OPERATORS
from tests.operator_cases import bad_cases, cases
from tests.readme_tables import FAMILIES, operators

PROTO = {family: operators(family) for family in FAMILIES}
FUNCTIONS = {name for found in PROTO.values() for names in found.values() for name in names}


def test_families_are_those_of_the_table():
    assert set(FAMILIES) == set(OPERATORS)


@pytest.mark.parametrize("family", FAMILIES)
def test_table_has_the_operators_of_the_contract(family):
    assert set(OPERATORS[family]) == set(PROTO[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_know_their_place(family):
    assert {name: (operator.family, operator.name) for name, operator in OPERATORS[family].items()} == {
        name: (family, name) for name in OPERATORS[family]
    }


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_torch_knows_the_function(function):
    assert callable(getattr(F, function, None))


def test_client_has_every_function():
    methods = {name for name, _ in inspect.getmembers(OperatorCalls, inspect.isfunction) if not name.startswith("_")}
    assert not FUNCTIONS - methods, "methods missing"
    assert methods - FUNCTIONS == {"activate"}, "which takes the name of another"


def test_every_function_has_cases():
    assert {row.function for row in cases()} - {"activate"} == FUNCTIONS


def test_every_function_has_bad_cases():
    rows = {row.function for row in bad_cases()} - {"activate"}
    assert rows <= FUNCTIONS
    assert FUNCTIONS - rows <= {"sigmoid", "tanh"}, "which take any tensor and no parameters"
