"""An operator is the same word once in each place; what forgets one is named here, and what adds a place too."""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from pathlib import Path

import pytest
import torch.nn.functional as F

from layerwire.calls import OperatorCalls
from layerwire_server.operators import OPERATORS
from tests.operator_cases import bad_cases, cases
from tests.readme_tables import FAMILIES, operators

ROOT = Path(__file__).parents[1]
PROTO = {family: operators(family) for family in FAMILIES}
FUNCTIONS = {name for functions in PROTO.values() for names in functions.values() for name in names}

# Where an operator is written by hand, as CONTRIBUTING.md lists it.
PLACES = (
    "protos/layerwire/v1/operators.proto",
    "server/layerwire_server/operators/",
    "client/layerwire/calls/",
    "tests/cases/",
)
# Where only those are that have something of their own there.
ONLY_WHERE_NEEDED = (
    "client/layerwire/nn/",  # a module of torch.nn
    "client/layerwire/export/lowerings/",  # a spelling in torch.export
    "client/layerwire_bench/",  # operands that nobody can draw without knowing it, a call that isn't torch's alone
)
# What the rest of the product may name: the operators that its examples, first calls and foldings are made of.
EXAMPLES = {
    "batch_norm", "conv", "conv_transpose", "gelu", "group_norm", "linear", "lp_pool", "max_pool", "max_unpool", "relu",
}  # fmt: skip
WORDS = {"fold", "normalize"}  # of English, or a family's name, as well


def written_places() -> dict[str, set[str]]:
    """Of each operator the product's hand-written files that have its name, or its message's, as a name or a string."""
    names = {}
    for family, functions in PROTO.items():
        for name, forms in functions.items():
            message = OPERATORS[family][name].__name__
            names.update(dict.fromkeys({name, message, *forms}, name))
    places = defaultdict(set)
    for folder in ("client", "server"):
        for path in (ROOT / folder).rglob("*.py"):
            if not path.stem.endswith(("_pb2", "_pb2_grpc")):
                for word in words(path):
                    if word in names:
                        places[names[word]].add(str(path.relative_to(ROOT)))
    return places


def words(path: Path) -> set[str]:
    """Names and whole strings of a file; what it says in sentences isn't among them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Constant(value=str(word)) | ast.Name(id=word) | ast.Attribute(attr=word) | ast.keyword(arg=word):
                names.add(word)
            case ast.FunctionDef(name=word) | ast.ClassDef(name=word) | ast.alias(name=word):
                names.add(word)
    return names


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


def test_no_operator_is_listed_anywhere_else():
    """What needs all operators takes them from the contract's descriptor or from OPERATORS."""
    for name, files in written_places().items():
        if name not in EXAMPLES | WORDS:
            others = {file for file in files if not file.startswith(PLACES + ONLY_WHERE_NEEDED)}
            assert not others, f"{name} is named in {others}, a place that CONTRIBUTING.md doesn't list"


def test_each_place_has_every_operator():
    files = written_places()
    for name in {name for functions in PROTO.values() for name in functions}:
        for place in ("server/layerwire_server/operators/", "client/layerwire/calls/"):
            assert any(file.startswith(place) for file in files[name]), f"{name} is missing in {place}"


def test_contributing_lists_the_places():
    steps = (ROOT / "CONTRIBUTING.md").read_text().partition("## Adding an operator")[2].partition("\n## ")[0]
    assert all(f"`{place}`" in steps for place in PLACES + ONLY_WHERE_NEEDED)
