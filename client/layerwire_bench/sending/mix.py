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
from layerwire_bench import operator_table
from layerwire_bench.answers import reference
from layerwire_bench.sending import operators, programs, tensors
from layerwire_bench.sending.tensors import USUAL, Array, RandomTensor, SampleSettings, Source, StoredTensor
from layerwire_bench.workload import Entry, Sample, Terms, Workload

Find: TypeAlias = Callable[[str, int | None], programs.Program]  # name, version -> what is known of it
Calls: TypeAlias = tuple[Entry, list[Sample]]

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


def load(path: Path, find: Find, settings: SampleSettings = USUAL) -> Mix:
    """The mix of a file.

    Args:
        path: the file.
        find: tells what is known of a stored program.
        settings: how samples are made; `fetch` is asked for names that the file itself has no weights for.

    Raises:
        ValueError: something in the file is wrong; names the file, the call by its number from 1, and the key.
        LayerwireError: from `find`.
    """
    table = _read(path)
    _check_keys(table, {"call", "weights"}, f"{path}", "it has [[call]] tables and [weights]")
    weights = _weights(path, table.get("weights", {}), settings)
    fetch = settings.fetch
    settings = replace(settings, fetch=lambda name: weights[name] if name in weights else fetch(name))
    kinds: list[Calls] = []
    numbers: dict[str, int] = {}
    for number, call in enumerate(_of_type(table.get("call", []), list, f"{path}: call", "[[call]] tables"), 1):
        where = f"{path}: call {number}"
        for entry, samples in _CallTable(path, where, call, find, settings).calls(len(kinds)):
            if entry.description in numbers:
                again = f"{entry.description} is call {numbers[entry.description]} already"
                raise ValueError(f"{where}: {again}: leave one of them out, and give the other both shares")
            numbers[entry.description] = number
            kinds.append((entry, samples))
            if len(kinds) > MAX_CALLS:
                raise ValueError(f"{where}: a mix has at most {MAX_CALLS} kinds of calls, each shape and dtype counted")
    if not kinds:
        raise ValueError(f"{path}: must have at least one [[call]]")
    return Mix(workload(kinds), weights)


def workload(kinds: Sequence[Calls]) -> Workload:
    """Kinds of calls as one workload: names made unique by what tells them apart, shares made to add up to 1."""
    entries = [entry for entry, _ in kinds]
    names = Counter(one.name for one in entries)
    total = sum(one.share for one in entries)
    unique = [
        replace(one, share=one.share / total, name=one.name if names[one.name] == 1 else one.description)
        for one in entries
    ]
    return Workload(tuple(unique), tuple(sample for _, some in kinds for sample in some), _reference(kinds))


def _reference(kinds: Sequence[Calls]) -> str:
    """What answers are compared with, and where that is the first answer in spite of torch."""
    torch = reference.available()
    first = [entry.name for entry, samples in kinds if any(one.expected is None for one in samples)]
    if torch is None or len(first) == len(kinds):
        return reference.FIRST
    return f"{torch}; {reference.FIRST} of {', '.join(first)}" if first else torch


class _CallTable:
    """A [[call]] table."""

    def __init__(self, path: Path, where: str, table: Any, find: Find, settings: SampleSettings) -> None:
        self._path = path
        self._where = where
        self._table: dict[str, Any] = _of_type(table, dict, where, "a table")
        self._find = find
        self._settings = settings

    def calls(self, index: int) -> Iterator[Calls]:
        """Its kinds of calls, numbered from `index` on; they have equal parts of its share."""
        kinds = {"function": self._operators, "program": self._programs}
        keys = [key for key in kinds if key in self._table]
        if len(keys) != 1:
            raise ValueError(f"{self._where}: must have either function or program, got {' and '.join(keys) or 'none'}")
        several = list(kinds[keys[0]](self._get(keys[0], str, "")))
        terms = self._terms(len(several))
        for number, make in enumerate(several):
            with _place(self._where):
                calls = make(settings=self._settings, index=index + number, terms=terms)
            yield calls

    def _operators(self, function: str) -> Iterator[Callable[..., Calls]]:
        with _place(f"{self._where}: function"):
            parameters = {one.name: one for one in operator_table.options_of(function)}
        _check_keys(self._table, _OPERATOR | set(parameters), self._where, f"{function} has {', '.join(parameters)}")
        arguments = {
            name: self._source(name, value) if operator_table.is_tensor(parameters[name]) else value
            for name, value in self._table.items()
            if name in parameters
        }
        shapes = self._either("shape", "shapes", _shape, None)
        dtypes = self._either("dtype", "dtypes", partial(_value, str), "float32")
        for shape, dtype in product(shapes, dtypes):
            yield partial(operators.entry_for, function, shape, arguments, dtype=dtype)

    def _programs(self, name: str) -> Iterator[Callable[..., Calls]]:
        _check_keys(self._table, _PROGRAM, self._where, f"a program has {', '.join(sorted(_PROGRAM))}")
        version = self._get("version", int, None)
        shapes = _of_type(
            self._table.get("shapes", {}), dict, f"{self._where}: shapes", "a table such as {input = [1, 28]}"
        )
        sources = {key: self._source(f"shapes.{key}", value) for key, value in shapes.items()}
        rows = self._table.get("rows")
        try:
            program = self._find(name, version)
        except LookupError as error:
            raise ValueError(f"{self._where}: program: {error}") from None
        for one in rows if isinstance(rows, list) else [rows]:
            if one is not None and (type(one) is not int or one < 1):
                raise ValueError(f"{self._where}: rows must be a whole number above 0, or several, got {one!r}")
            yield partial(programs.entry_for, program, sources, rows=one)

    def _terms(self, kinds: int) -> Terms:
        """Of one of so many kinds."""
        share, priority = self._get("share", float, 1.0), self._get("priority", int, 0)
        if not 0 < share < math.inf:
            raise ValueError(f"{self._where}: share must be above 0, got {share:g}")
        if abs(priority) > MAX_PRIORITY:
            raise ValueError(f"{self._where}: priority must be -{MAX_PRIORITY} to {MAX_PRIORITY}, got {priority}")
        return Terms(share / max(1, kinds), priority, self._get("deterministic", bool, False))

    def _get(self, key: str, kind: type, default: Any) -> Any:
        return _value(kind, self._table[key], f"{self._where}: {key}") if key in self._table else default

    def _either(self, one: str, several: str, read: Callable[[Any, str], Any], default: Any) -> list[Any]:
        """What stands under one key or, as a list, under the other."""
        if one in self._table and several in self._table:
            raise ValueError(f"{self._where}: must have either {one} or {several}, got both")
        if several in self._table:
            values = _of_type(self._table[several], list, f"{self._where}: {several}", "a list")
            if not values:
                raise ValueError(f"{self._where}: {several} must have at least one, got none")
            return [read(value, f"{self._where}: {several}") for value in values]
        if one not in self._table and default is None:
            raise ValueError(f"{self._where}: {one} is required")
        return [read(self._table[one], f"{self._where}: {one}") if one in self._table else default]

    def _source(self, key: str, value: Any) -> Source:
        return _source(self._path, f"{self._where}: {key}", value, _TENSOR)


def _weights(path: Path, table: Any, settings: SampleSettings) -> dict[str, Array]:
    """The named tensors of [weights]."""
    weights = {}
    for number, (name, value) in enumerate(_of_type(table, dict, f"{path}: weights", "a table").items()):
        where = f"{path}: weights: {name}"
        source = _source(path, where, value, _WEIGHT)
        if isinstance(source, StoredTensor):
            words = f"{tensors.NAME_PREFIX}{source.name}"
            raise ValueError(f"{where} must be a shape or a .npy file, got {words}")  # noqa: TRY004
        values = value.get("values", "scaled") if isinstance(value, dict) else "scaled"
        if values not in tensors.VALUES:
            raise ValueError(f"{where}.values must be one of {', '.join(tensors.VALUES)}, got {values!r}")
        if isinstance(source, RandomTensor):
            dtype = source.dtype or "float32"
            with _place(where):
                shape = settings.check_shape("shape", source.shape, dtype)
            source = tensors.random_array(settings.random(_OF_WEIGHTS, number), shape, dtype, values)
        weights[name] = source
    return weights


def _source(path: Path, where: str, value: Any, keys: set[str]) -> Source:
    """A shape, a table with one, name:NAME, or a file beside this one."""
    if isinstance(value, dict):
        _check_keys(value, keys, where, f"it has {', '.join(sorted(keys))}")
        if "shape" not in value:
            raise ValueError(f"{where}.shape is required")
        dtype = _value(str, value["dtype"], f"{where}.dtype") if "dtype" in value else None
        return RandomTensor(_shape(value["shape"], f"{where}.shape"), dtype)
    if isinstance(value, list):
        return RandomTensor(_shape(value, where))
    forms = "a shape such as [10, 3072], {shape = ..., dtype = ...}, a .npy file or name:NAME"
    text: str = _of_type(value, str, where, forms)
    if text.startswith(tensors.NAME_PREFIX) and text != tensors.NAME_PREFIX:
        return StoredTensor(text.removeprefix(tensors.NAME_PREFIX))
    with _place(where):
        return tensors.load_array(path.parent / text)


@contextlib.contextmanager
def _place(where: str) -> Iterator[None]:
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


def _check_keys(table: Mapping[str, Any], keys: set[str], where: str, has: str) -> None:
    unknown = next((key for key in table if key not in keys), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, keys)
        raise ValueError(f"{where}: {unknown[:40]} is unknown{f', did you mean {near[0]}' if near else ''}; {has}")


_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _value(kind: type, value: Any, where: str) -> Any:
    """A value of this type, which the sentence names if it isn't."""
    return kind(_of_type(value, int if kind is float and isinstance(value, int) else kind, where, _KINDS[kind]))


def _of_type(value: Any, kind: type, where: str, form: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} must be {form}, got {str(value)[:60]}")
    return value


def _shape(value: Any, where: str) -> tuple[int, ...]:
    form = "a list of whole numbers such as [1, 3, 32, 32]"
    return tuple(_of_type(extent, int, where, form) for extent in _of_type(value, list, where, form))
