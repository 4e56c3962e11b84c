"""A TOML file with several kinds of calls, as one workload.

It knows the file's keys and whom to ask for each kind; neither command lines nor channels. docs/mix.toml is an example.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from layerwire.transport.options import MAX_PRIORITY
from layerwire_bench.answers import reference
from layerwire_bench.sending import operators, programs, tensors
from layerwire_bench.sending.tensors import USUAL, Array, Making, Shaped, Source, Stored
from layerwire_bench.workload import Entry, Sample, Workload

Find: TypeAlias = Callable[[str, int | None], programs.Program]  # name, version -> what is known of it
Made: TypeAlias = tuple[Entry, list[Sample]]

_OF_WEIGHTS = 1 << 32  # stands where an entry's number does in a seed
MAX_CALLS = 256  # kinds of calls, each shape and dtype counted

_CALL = {"share", "priority", "deterministic"}
_OPERATOR = _CALL | {"function", "shape", "shapes", "dtype", "dtypes"}
_PROGRAM = _CALL | {"program", "version", "rows", "shapes"}
_TENSOR = {"shape", "dtype"}
_WEIGHT = _TENSOR | {"values"}


@dataclass(frozen=True)
class Mix:
    """What a file asks for.

    Attributes:
        workload: its calls.
        weights: what the server must have under these names before they are made.
    """

    workload: Workload
    weights: Mapping[str, Array]


def load(path: Path, find: Find, making: Making = USUAL) -> Mix:
    """The mix of a file.

    Args:
        path: the file.
        find: tells what is known of a stored program.
        making: how samples are made; `fetch` is asked for names that the file itself has no weights for.

    Raises:
        ValueError: something in the file is wrong; names the file, the call by its number from 1, and the key.
        LayerwireError: from `find`.
    """
    text = _read(path)
    _known(text, {"call", "weights"}, f"{path}", "it has [[call]] tables and [weights]")
    weights = _weights(path, text.get("weights", {}), making)
    fetch = making.fetch
    making = replace(making, fetch=lambda name: weights[name] if name in weights else fetch(name))
    calls = _of(text.get("call", []), list, f"{path}: call", "[[call]] tables")
    made: list[Made] = []
    first: dict[str, int] = {}
    for number, call in enumerate(calls, 1):
        where = f"{path}: call {number}"
        for entry, samples in _Call(path, where, call, find, making).made(len(made)):
            if entry.description in first:
                told = f"{entry.description} is call {first[entry.description]} already"
                raise ValueError(f"{where}: {told}: leave one of them out, and give the other both shares")
            first[entry.description] = number
            made.append((entry, samples))
            if len(made) > MAX_CALLS:
                raise ValueError(f"{where}: a mix has at most {MAX_CALLS} kinds of calls, each shape and dtype counted")
    if not made:
        raise ValueError(f"{path}: must have at least one [[call]]")
    return Mix(workload(made), weights)


def workload(made: Sequence[Made]) -> Workload:
    """Kinds of calls as one workload: names made unique by what tells them apart, shares made to add up to 1."""
    entries = [entry for entry, _ in made]
    names = Counter(one.name for one in entries)
    total = sum(one.share for one in entries)
    unique = [
        replace(one, share=one.share / total, name=one.name if names[one.name] == 1 else one.description)
        for one in entries
    ]
    return Workload(tuple(unique), tuple(sample for _, some in made for sample in some), compared_with(made))


def compared_with(made: Sequence[Made]) -> str:
    """What answers are compared with, and where that is the first answer in spite of torch."""
    torch = reference.available()
    first = [entry.name for entry, samples in made if any(one.expected is None for one in samples)]
    if torch is None or len(first) == len(made):
        return reference.FIRST
    return f"{torch}; {reference.FIRST} of {', '.join(first)}" if first else torch


class _Call:
    """A [[call]] table."""

    def __init__(self, path: Path, where: str, table: Any, find: Find, making: Making) -> None:
        self._path = path
        self._where = where
        self._table: dict[str, Any] = _of(table, dict, where, "a table")
        self._find = find
        self._making = making

    def made(self, index: int) -> Iterator[Made]:
        """Its kinds of calls, numbered from `index` on; they have equal parts of its share."""
        kinds = {"function": self._operators, "program": self._programs}
        chosen = [key for key in kinds if key in self._table]
        if len(chosen) != 1:
            raise ValueError(
                f"{self._where}: must have either function or program, got {' and '.join(chosen) or 'none'}"
            )
        several = list(kinds[chosen[0]](self._name(chosen[0])))
        treated = self._treated(len(several))
        for number, make in enumerate(several):
            with _told(self._where):
                entry = make(index=index + number, **treated)
            yield entry

    def _operators(self, function: str) -> Iterator[Callable[..., Made]]:
        with _told(f"{self._where}: function"):
            parameters = {one.name: one for one in operators.options_of(function)}
        _known(self._table, _OPERATOR | set(parameters), self._where, f"{function} has {', '.join(parameters)}")
        given = {
            name: self._source(name, value) if operators.is_tensor(parameters[name]) else value
            for name, value in self._table.items()
            if name in parameters
        }
        shapes = self._either("shape", "shapes", _shape, None)
        dtypes = self._either("dtype", "dtypes", _text, "float32")
        for shape, dtype in product(shapes, dtypes):
            yield partial(operators.entry_for, function, shape, given, dtype=dtype, making=self._making)

    def _programs(self, name: str) -> Iterator[Callable[..., Made]]:
        _known(self._table, _PROGRAM, self._where, f"a program has {', '.join(sorted(_PROGRAM))}")
        version = self._get("version", _integer, None)
        shapes = _of(self._table.get("shapes", {}), dict, f"{self._where}: shapes", "a table such as {input = [1, 28]}")
        sources = {key: self._source(f"shapes.{key}", value) for key, value in shapes.items()}
        rows = self._table.get("rows")
        try:
            program = self._find(name, version)
        except LookupError as error:
            raise ValueError(f"{self._where}: program: {error}") from None
        for one in rows if isinstance(rows, list) else [rows]:
            if one is not None and (type(one) is not int or one < 1):
                raise ValueError(f"{self._where}: rows must be a whole number above 0, or several, got {one!r}")
            yield partial(programs.entry_for, program, sources, rows=one, making=self._making)

    def _treated(self, kinds: int) -> dict[str, Any]:
        """Share, priority and deterministic."""
        share = self._get("share", _number, 1.0)
        priority = self._get("priority", _integer, 0)
        if not 0 < share < math.inf:
            raise ValueError(f"{self._where}: share must be above 0, got {share:g}")
        if abs(priority) > MAX_PRIORITY:
            raise ValueError(f"{self._where}: priority must be -{MAX_PRIORITY} to {MAX_PRIORITY}, got {priority}")
        deterministic = self._get("deterministic", _truth, False)
        return {"share": share / max(1, kinds), "priority": priority, "deterministic": deterministic}

    def _name(self, key: str) -> str:
        return _text(self._table[key], f"{self._where}: {key}")

    def _get(self, key: str, read: Callable[[Any, str], Any], default: Any) -> Any:
        return read(self._table[key], f"{self._where}: {key}") if key in self._table else default

    def _either(self, one: str, several: str, read: Callable[[Any, str], Any], default: Any) -> list[Any]:
        """What stands under one key or, as a list, under the other."""
        if one in self._table and several in self._table:
            raise ValueError(f"{self._where}: must have either {one} or {several}, got both")
        if several in self._table:
            found = _of(self._table[several], list, f"{self._where}: {several}", "a list")
            if not found:
                raise ValueError(f"{self._where}: {several} must have at least one, got none")
            return [read(value, f"{self._where}: {several}") for value in found]
        if one not in self._table and default is None:
            raise ValueError(f"{self._where}: {one} is required")
        return [self._get(one, read, default)]

    def _source(self, key: str, value: Any) -> Source:
        return _source(self._path, f"{self._where}: {key}", value, _TENSOR)


def _weights(path: Path, table: Any, making: Making) -> dict[str, Array]:
    """The named tensors of [weights]."""
    found = {}
    for number, (name, value) in enumerate(_of(table, dict, f"{path}: weights", "a table").items()):
        where = f"{path}: weights: {name}"
        source = _source(path, where, value, _WEIGHT)
        if isinstance(source, Stored):
            raise ValueError(f"{where} must be a shape or a .npy file, got {tensors.STORED}{source.name}")  # noqa: TRY004
        values = value.get("values", "scaled") if isinstance(value, dict) else "scaled"
        if values not in tensors.VALUES:
            raise ValueError(f"{where}.values must be one of {', '.join(tensors.VALUES)}, got {values!r}")
        if isinstance(source, Shaped):
            dtype = source.dtype or "float32"
            with _told(where):
                shape = tensors.checked("shape", source.shape, dtype, making)
            source = tensors.drawn(making.random(_OF_WEIGHTS, number), shape, dtype, values)
        found[name] = source
    return found


def _source(path: Path, where: str, value: Any, keys: set[str]) -> Source:
    """A shape, a table with one, name:NAME, or a file beside this one."""
    if isinstance(value, dict):
        _known(value, keys, where, f"it has {', '.join(sorted(keys))}")
        if "shape" not in value:
            raise ValueError(f"{where}.shape is required")
        dtype = _text(value["dtype"], f"{where}.dtype") if "dtype" in value else None
        return Shaped(_shape(value["shape"], f"{where}.shape"), dtype)
    if isinstance(value, list):
        return Shaped(_shape(value, where))
    text = _text(value, where, "a shape such as [10, 3072], {shape = ..., dtype = ...}, a .npy file or name:NAME")
    if text.startswith(tensors.STORED) and text != tensors.STORED:
        return Stored(text.removeprefix(tensors.STORED))
    with _told(where):
        return tensors.from_file(path.parent / text)


@contextlib.contextmanager
def _told(where: str) -> Iterator[None]:
    """Says where what went wrong stands."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not TOML: {error}") from None


def _known(table: Mapping[str, Any], keys: set[str], where: str, has: str) -> None:
    unknown = next((key for key in table if key not in keys), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, keys)
        raise ValueError(f"{where}: {unknown[:40]} is unknown{f', did you mean {near[0]}' if near else ''}; {has}")


def _of(value: Any, kind: type, where: str, wanted: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} must be {wanted}, got {str(value)[:60]}")
    return value


def _text(value: Any, where: str, wanted: str = "text") -> str:
    found: str = _of(value, str, where, wanted)
    return found


def _integer(value: Any, where: str) -> int:
    found: int = _of(value, int, where, "a whole number")
    return found


def _number(value: Any, where: str) -> float:
    return float(_of(value, int if isinstance(value, int) else float, where, "a number"))


def _truth(value: Any, where: str) -> bool:
    found: bool = _of(value, bool, where, "true or false")
    return found


def _shape(value: Any, where: str) -> tuple[int, ...]:
    wanted = "a list of whole numbers such as [1, 3, 32, 32]"
    return tuple(_of(extent, int, where, wanted) for extent in _of(value, list, where, wanted))
