"""What stands on the command line for a tensor, a size or a file: a reader for each annotation of the SDK's methods.

It knows .npy files and JSON lists; neither channels nor operators. All readers raise click.BadParameter.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

STORED = "name:"
STANDARD_OUTPUT = "-"


def load_npy(path: str) -> npt.NDArray[np.generic]:
    """The array in a .npy file."""
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror or 'not a .npy file'}") from None
    except (EOFError, ValueError):
        raise click.BadParameter(f"{path}: not a .npy file of numbers") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise click.BadParameter(f"{path}: an archive of several arrays; one .npy file is wanted")
    return array


def tensor(text: str) -> Any:
    """A .npy file, numbers as JSON in float32, or `name:` and the name of stored weights."""
    return _tensor(text, "float32")


def indices(text: str) -> Any:
    """As `tensor`, numbers in int64."""
    return _tensor(text, "int64")


def _tensor(text: str, dtype: str) -> Any:
    import numpy as np

    if text.startswith(STORED):
        return text.removeprefix(STORED)
    if Path(text).exists() or text.lstrip()[:1] not in set("[-0123456789."):
        return load_npy(text)
    try:
        return np.array(json.loads(text), dtype=dtype)
    except (ValueError, TypeError, OverflowError):
        raise click.BadParameter(f"{text}: neither a file nor numbers such as [[1, 2], [3, 4]]") from None


def size(text: str) -> Any:
    """An integer for all axes, or one an axis."""
    return _items(int, "integers such as 2 or 2,2", text)


def optional_size(text: str) -> Any:
    """As `size`, with `none` for an axis that keeps its extent."""
    found = _items(lambda item: None if item == "none" else int(item), "integers such as 2, 2,2 or none,4", text)
    return [None] if found is None else found  # None itself would be an option that was left out


def size_or_word(text: str) -> Any:
    """As `size`, or a word that the method knows."""
    return text if text.isalpha() else size(text)


def numbers(text: str) -> Any:
    """A number for all axes, or one an axis."""
    return _items(float, "numbers such as 0.5 or 0.5,0.7", text)


def _items(read: Callable[[str], Any], wanted: str, text: str) -> Any:
    try:
        items = [read(item.strip()) for item in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text}: must be {wanted}") from None
    return items[0] if len(items) == 1 else items


def output_file(path: str) -> str:
    """A file that can be written, as far as can be told without writing; `-` is standard output."""
    if path == STANDARD_OUTPUT:
        return path
    file = Path(path)
    if file.is_dir():
        raise click.BadParameter(f"{path}: is a directory")
    if not file.parent.is_dir():
        raise click.BadParameter(f"{path}: there is no directory {file.parent}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise click.BadParameter(f"{path}: can't be written")
    return path


class Reader(NamedTuple):
    """How a parameter is read, and what --help shows in its place."""

    read: Callable[[str], Any]
    metavar: str


_TENSOR = Reader(tensor, "TENSOR")
_INDICES = Reader(indices, "TENSOR")
_INTEGER = Reader(int, "INT")
_NUMBER = Reader(float, "FLOAT")
_SIZE = Reader(size, "INT[,INT...]")

READERS: Mapping[str, Reader] = {  # annotation -> reader
    "TensorLike": _TENSOR,
    "TensorLike | None": _TENSOR,
    "str": Reader(str, "TEXT"),
    "Size": _SIZE,
    "Size | None": _SIZE,
    "OptionalSize": Reader(optional_size, "INT[,INT...]"),
    "Size | str": Reader(size_or_word, "INT[,INT...]|TEXT"),
    "SupportsIndex": _INTEGER,
    "SupportsIndex | None": _INTEGER,
    "SupportsFloat": _NUMBER,
    "SupportsFloat | None": _NUMBER,
    "SupportsFloat | Sequence[SupportsFloat] | None": Reader(numbers, "FLOAT[,FLOAT...]"),
}


def option(parameter: inspect.Parameter) -> click.Option:
    """The option of a method's parameter. Left out, the method's own default holds.

    Raises:
        KeyError: the annotation has no reader.
    """
    name = "--" + parameter.name.strip("_").replace("_", "-")
    required = parameter.default is parameter.empty and not str(parameter.annotation).endswith("None")
    shown = "" if parameter.default in (parameter.empty, None) else f"Default: {parameter.default}."
    if parameter.annotation == "bool":
        flags = [f"{name}/--no-{name[2:]}", parameter.name]
        return click.Option(flags, default=None, help=shown, required=required)
    reader = _INDICES if parameter.name == "indices" else READERS[parameter.annotation]
    return click.Option([name, parameter.name], type=reader.read, metavar=reader.metavar, required=required, help=shown)
