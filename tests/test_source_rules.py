"""Rules that no linter has: nothing that runs received bytes as code, no fork, no torch entry that skips its checks."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
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


# The one file that may reach below torch.nn.functional, and what it may reach there: it checks all that these don't.
UNCHECKED_ENTRIES = {
    "server/layerwire_server/operators/linear_kernels.py": {
        "torch.ops.mkldnn._linear_pointwise.default",
        "torch.ops.mkldnn._reorder_linear_weight.default",
    }
}


class WithoutNodes(ast.NodeTransformer):
    """Takes attribute chains of these names out of a tree."""

    def __init__(self, chains: AbstractSet[str]) -> None:
        self.chains = chains

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        name = dotted_name(node)
        if name in self.chains:
            return ast.Constant(None)
        return node if name.startswith("torch.") else self.generic_visit(node)  # longer chains stay whole


def without_exceptions(path: str, text: str) -> ast.AST:
    """A file's tree without the entries that it may reach."""
    return WithoutNodes(UNCHECKED_ENTRIES.get(path, set())).visit(ast.parse(text))


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
        "torch.ops.mkldnn._linear_pointwise.default(x, w, b)",
        "from torch.ops import mkldnn",
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
    broken = []
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        is_excepted = rule is no_unchecked_torch and name in UNCHECKED_ENTRIES
        tree = without_exceptions(name, path.read_text()) if is_excepted else tree_of(path)
        broken += [f"{name}:{line}" for line in rule(tree)]
    assert not broken, rule.__doc__


@pytest.mark.parametrize(
    ("rule", "text"),
    [(rule, text) for rule, texts in RULES.items() for text in texts],
    ids=lambda value: getattr(value, "__name__", value)[:40],
)
def test_rule_catches(rule, text):
    assert list(rule(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "torch.ops.mkldnn._linear_pointwise",
        "torch.ops.mkldnn._linear_pointwise.binary(x, y, w, b)",
        "mkldnn = torch.ops.mkldnn",
        "getattr(torch.ops, name)",
        "torch.ops.mkldnn._linear_pointwise.default.py_kernels",
        "torch.ops.aten.linear.default(x, w)",
        "torch.ops.mkldnn._convolution_pointwise.default(x)",
        "torch._C._nn.linear(x, w)",
        "torch.native_batch_norm(x)",
    ],
)
def test_exceptions_are_of_single_entries(text):
    (path,) = UNCHECKED_ENTRIES
    (entry, *_) = UNCHECKED_ENTRIES[path]
    assert not list(no_unchecked_torch(without_exceptions(path, f"{entry}(x, w, b)")))
    assert list(no_unchecked_torch(without_exceptions("server/layerwire_server/operators/linear.py", f"{entry}(x)")))
    assert list(no_unchecked_torch(without_exceptions(path, f"{entry}(x, w, b)\n{text}")))


def test_exceptions_are_all_used():
    for path, entries in UNCHECKED_ENTRIES.items():
        assert entries <= {name for _, name in names(ast.parse((ROOT / path).read_text()))}


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
