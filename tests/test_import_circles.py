"""No import goes in a circle: neither of files nor of folders, whenever and for whatever the import is made."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"layerwire": "client", "layerwire_bench": "client", "layerwire_server": "server"}


def modules(package: str) -> dict[str, Path]:
    """Files of a package by the names they are imported by, a folder's own file by the folder's."""
    top = ROOT / FOLDERS[package]
    paths = [path for path in (top / package).rglob("*.py") if not path.stem.endswith(("_pb2", "_pb2_grpc"))]
    return {".".join(path.relative_to(top).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(tree: ast.AST, known: Iterable[str]) -> Iterator[str]:
    """The modules among those known that are imported anywhere: in functions and for type checkers too."""
    for node in ast.walk(tree):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            names = [(alias.name,) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names = [(f"{node.module}.{alias.name}", str(node.module)) for alias in node.names]
        for candidates in names:  # `from a import b` is of the module a.b where there is one
            yield from [name for name in candidates if name in known][:1]


def graph(package: str) -> dict[str, set[str]]:
    """What each file imports of its own package."""
    paths = modules(package)
    return {name: set(imports(ast.parse(path.read_text()), paths)) - {name} for name, path in paths.items()}


def siblings(edges: Mapping[str, set[str]]) -> dict[str, dict[str, set[str]]]:
    """By folder what each thing in it imports of its neighbours, folders for all that is in them."""
    folders: dict[str, dict[str, set[str]]] = {}
    for importer, imported in edges.items():
        for other in imported:
            here, there = importer.split("."), other.split(".")
            depth = next((at for at, (one, two) in enumerate(zip(here, there, strict=False)) if one != two), None)
            if depth is None:
                continue  # a folder's own file and what is in the folder, which is a matter of files
            folder = folders.setdefault(".".join(here[:depth]), {})
            folder.setdefault(here[depth], set()).add(there[depth])
    return folders


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    """The first circle in a graph; empty if there is none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])[::-1]
    return []


@pytest.mark.parametrize("package", FOLDERS)
def test_no_files_import_each_other_in_a_circle(package):
    assert not circle(graph(package))


@pytest.mark.parametrize("package", FOLDERS)
def test_no_folders_import_each_other_in_a_circle(package):
    for folder, edges in siblings(graph(package)).items():
        assert not circle(edges), folder


def test_deferred_imports_and_those_for_type_checkers_count():
    text = """
def later():
    from layerwire import client
if TYPE_CHECKING:
    from layerwire.calls import Request
import layerwire.errors
"""
    known = {"layerwire", "layerwire.client", "layerwire.calls", "layerwire.errors"}
    assert set(imports(ast.parse(text), known)) == known - {"layerwire"}


def test_circles_of_files_and_of_folders_are_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    edges = {"p.a.x": {"p.b.x"}, "p.b.y": {"p.a.y"}}
    assert not circle(edges)
    assert circle(siblings(edges)["p"])
