"""Names of the product: nouns of the field, and each class name once in its package."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("client/layerwire", "client/layerwire_bench", "server/layerwire_server", "tools")
LONGEST_TEST_LINES = 400

# Participles that don't end as participles do.
IRREGULAR = frozenset(
    [
        *("asked", "begun", "bought", "brought", "built", "caught", "chosen", "done", "drawn", "driven", "fallen"),
        *("felt", "found", "given", "gone", "got", "grown", "heard", "held", "kept", "known", "laid", "led", "left"),
        *("lent", "lost", "made", "meant", "met", "paid", "said", "seen", "sent", "shown", "sold", "spent", "spoken"),
        *("sung", "sunk", "taken", "taught", "thought", "told", "understood", "won", "worn", "written"),
    ]
)
# Words that look like participles and are another thing: the field's, or of a form that others read.
OTHER_WORDS = {
    "arrived": "a frame's field, of the link's header",
    "ceiling": "a noun",
    "batched": "a field of the contract",
    "closed": "of io and sockets",
    "done": "of concurrent.futures, and what its callbacks are called",
    "expected": "of torch.testing",
    "framing": "a noun: HTTP/2's and gRPC's",
    "left": "the other side than right; matplotlib's",
    "lowering": "a noun: of compilers",
    "needed": "of storage's error for a full disk",
    "nothing": "a noun",
    "padding": "torch's parameter",
    "pending": "of asyncio: not done yet",
    "pinned": "a field of the contract",
    "required": "of protobuf",
    "shared": "of weights: the same for all calls of a batch",
    "timed": "public: layerwire.Timed",
    "timing": "a noun: the message",
    "training": "torch's parameter",
    "wanted": "a field of the contract",
}
# Fields of the load tester's JSON, which others read.
OF_JSON = {"interrupted", "kept", "measured", "rejected", "started", "unfinished", "verified"}


def is_bare_participle(name: str) -> bool:
    """Whether a name is one word, and that a participle: it says that something happened, and not what is there."""
    word = name.strip("_")
    if not word or "_" in word or re.search(r"[A-Z]", word[1:]):
        return False
    word = word.lower()
    return word in IRREGULAR or re.fullmatch(r"[a-z]{3,}(ed|ing)", word) is not None


def sources(folder: str) -> Iterator[Path]:
    """Files written by hand."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        if not {"v1", "inference_v2"} & set(path.parts):
            yield path


def names(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, sort and name of what is defined in a file: module, functions, classes, attributes, parameters."""
    yield 1, "module", path.stem
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, "function", node.name
        elif isinstance(node, ast.ClassDef):
            yield node.lineno, "class", node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, "parameter", node.arg
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.lineno, "attribute", node.target.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, "attribute", node.attr


def allowed(path: Path) -> set[str]:
    """Words that may stand in a file though they look like participles."""
    return {*OTHER_WORDS, *(OF_JSON if path.name == "result.py" else ())}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_is_a_bare_participle(package):
    bad = [
        f"{path.relative_to(ROOT)}:{line}: {sort} {name}"
        for path in sources(package)
        for line, sort, name in names(path)
        if is_bare_participle(name) and name.strip("_").lower() not in allowed(path)
    ]
    assert not bad, "name what is there, not what was done to it"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_class_name_stands_once(package):
    places = defaultdict(list)
    for path in sources(package):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


@pytest.mark.parametrize("name", ["told", "_told", "found", "Asked", "claimed", "sending", "Dropped"])
def test_participles_are_seen(name):
    assert is_bare_participle(name)


@pytest.mark.parametrize("name", ["explain", "ring", "status_of", "read", "is_claimed", "ClientProcess", "feed", "x"])
def test_nouns_and_verbs_are_not(name):
    assert not is_bare_participle(name)


def test_words_that_are_let_through_are_used():
    used = {
        name.strip("_").lower()
        for package in PACKAGES
        for path in sources(package)
        for _, _, name in names(path)
        if is_bare_participle(name)
    }
    assert set(OTHER_WORDS) | OF_JSON <= used


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_are_short(path):
    assert len(path.read_text().splitlines()) <= LONGEST_TEST_LINES, "cut it by noun"
