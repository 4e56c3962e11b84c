"""Rules that no linter has: nothing that runs received bytes as code, no fork, no torch entry that skips its checks."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for package in ("client/layerwire", "client/layerwire_bench", "server/layerwire_server")
    for path in (ROOT / package).rglob("*.py")
    if "v1" not in path.parts
)

UNSAFE_MODULES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
# Receiving from these unpickles.
PICKLING = {"Queue", "SimpleQueue", "JoinableQueue", "Pipe", "Manager", "Listener"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """A file's syntax tree; each rule walks it."""
    return ast.parse(path.read_text())


def dotted_name(node: ast.expr) -> str:
    """`a.b.c` of an attribute chain, `c` of a name; "" of anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported or reached by attribute."""
    yield from imports(tree)
    yield from ((node.lineno, dotted_name(node)) for node in ast.walk(tree) if isinstance(node, ast.Attribute))


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call with the dotted name of what is called."""
    yield from ((node, dotted_name(node.func)) for node in ast.walk(tree) if isinstance(node, ast.Call))


def no_pickle(tree: ast.AST) -> Iterator[int]:
    """No module that can run what it reads, and no multiprocessing object that unpickles what it receives."""
    yield from (line for line, name in imports(tree) if name.split(".")[0] in UNSAFE_MODULES)
    for line, name in names(tree):
        parts = name.split(".")
        if parts[0] == "multiprocessing" and parts[-1] in PICKLING:
            yield line


def no_eval(tree: ast.AST) -> Iterator[int]:
    """No text becomes code."""
    yield from (call.lineno for call, name in calls(tree) if name in UNSAFE_CALLS)


def no_shell(tree: ast.AST) -> Iterator[int]:
    """No text becomes a command line."""
    for call, name in calls(tree):
        shell = any(keyword.arg == "shell" for keyword in call.keywords)
        if shell or name in {"os.system", "os.popen"}:
            yield call.lineno


def no_unsafe_load(tree: ast.AST) -> Iterator[int]:
    """No torch.load (arbitrary code before 2.6, weights_only or not); np.load only with allow_pickle=False."""
    yield from (line for line, name in names(tree) if name in {"torch.load", "torch.jit.load", "yaml.load"})
    for call, name in calls(tree):
        safe = any(
            keyword.arg == "allow_pickle" and isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            for keyword in call.keywords
        )
        if name in {"np.load", "numpy.load"} and not safe:
            yield call.lineno


def no_unchecked_torch(tree: ast.AST) -> Iterator[int]:
    """No entry below torch.nn.functional: native_batch_norm reads past the end of short statistics."""
    for line, name in names(tree):
        parts = name.split(".")
        if "native_batch_norm" in parts or "aten" in parts or name.startswith(("torch.ops", "torch._C")):
            yield line


def no_fork(tree: ast.AST) -> Iterator[int]:
    """No fork: gRPC's and torch's threads don't survive it. New processes are spawned."""
    yield from (line for line, name in names(tree) if name in {"os.fork", "os.forkpty", "multiprocessing.Process"})
    for call, name in calls(tree):
        forks = any(isinstance(arg, ast.Constant) and arg.value in {"fork", "forkserver"} for arg in call.args)
        if name.split(".")[-1] in {"get_context", "set_start_method"} and (forks or not call.args):
            yield call.lineno


Rule = Callable[[ast.AST], Iterator[int]]
RULES: dict[Rule, list[str]] = {  # rule -> what it must catch
    no_pickle: [
        "import pickle",
        "from marshal import loads",
        "import joblib.numpy_pickle",
        "import multiprocessing\nmultiprocessing.Queue()",
        "from multiprocessing import Pipe",
        "from multiprocessing.connection import Listener",
    ],
    no_eval: ["eval(text)", "exec(text)", "compile(text, '', 'exec')"],
    no_shell: ["os.system(text)", "subprocess.run(text, shell=True)"],
    no_unsafe_load: ["torch.load(file)", "from torch import load", "np.load(file)", "np.load(file, allow_pickle=True)"],
    no_unchecked_torch: [
        "torch.native_batch_norm(x)",
        "torch.ops.aten.relu(x)",
        "aten = torch.ops.aten",
        "torch._C._nn.gelu(x)",
    ],
    no_fork: [
        "os.fork()",
        "multiprocessing.Process(target=f)",
        "multiprocessing.get_context('fork')",
        "multiprocessing.get_context()",
    ],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_sources_keep_the_rule(rule):
    broken = [f"{path.relative_to(ROOT)}:{line}" for path in SOURCES for line in rule(tree_of(path))]
    assert not broken, rule.__doc__


@pytest.mark.parametrize(
    ("rule", "text"),
    [(rule, text) for rule, texts in RULES.items() for text in texts],
    ids=lambda value: getattr(value, "__name__", value)[:40],
)
def test_rule_catches(rule, text):
    assert list(rule(ast.parse(text)))


def test_lanes_are_a_pure_rule():
    paths = [path for path in SOURCES if path.parent.name == "lanes" and path.stem != "__init__"]
    assert len(paths) == 5
    among_themselves = {f"layerwire_server.worker.lanes.{path.stem}" for path in paths}
    foreign = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in paths
        for line, name in imports(tree_of(path))
        if name.split(".")[0] not in sys.stdlib_module_names and name.rpartition(".")[0] not in among_themselves
    ]
    assert not foreign, "lanes import the standard library only"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import layerwire; layerwire.Client; layerwire.AsyncClient", {"torch", "layerwire_server", "click", "rich"}),
        ("import layerwire.cli", {"torch", "layerwire_server"}),
    ],
    ids=["sdk", "command-line"],
)
def test_import_stays_light(statement, absent):
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "layerwire" in loaded
    assert not absent & set(loaded)
