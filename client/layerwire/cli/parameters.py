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
DTYPE = "dtype"  # the option that says what numbers are read as
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


class Tensor(click.ParamType):  # type: ignore[type-arg]  # older clicks' has no []
    """A .npy file, numbers as JSON, or `name:` and the name of stored weights.

    Args:
        dtype: of numbers, where the command line has no --dtype.
        keeps_dtype: whether --dtype leaves it alone.
    """

    name = "tensor"

    def __init__(self, dtype: str, *, keeps_dtype: bool = False) -> None:
        self.dtype = dtype
        self.keeps_dtype = keeps_dtype

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The array, or the name."""
        name = None if ctx is None or self.keeps_dtype else ctx.params.get(DTYPE)
        if not isinstance(name, str):  # click has a mark of its own for an option that isn't there
            name = None
        if value.startswith(STORED):
            return value.removeprefix(STORED)
        if Path(value).exists() or value.lstrip()[:1] not in set("[-0123456789."):
            array = load_npy(value)
            return array if name is None else _as_dtype(value, array, name)
        try:
            array = _from_json(value)
        except (ValueError, OverflowError, RecursionError):
            raise click.BadParameter(f"{value}: neither a file nor numbers such as [[1, 2], [3, 4]]") from None
        return _as_dtype(value, array, name or self.dtype)


tensor = Tensor("float32")
indices = Tensor("int64", keeps_dtype=True)


def _from_json(text: str) -> npt.NDArray[Any]:
    """Numbers in a dtype that holds them as they are.

    Raises:
        ValueError: they are none, or ragged, or integers of more than 64 bits.
    """
    import numpy as np

    array = np.array(json.loads(text))
    if array.dtype.kind not in "biuf":
        raise ValueError("no numbers")
    return array


def _as_dtype(text: str, array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """The array in another dtype, whose elements may be rounded but must not become others."""
    import numpy as np

    from layerwire.wire.arrays import numpy_dtype
    from layerwire.wire.dtypes import DTYPES

    try:
        dtype = numpy_dtype(DTYPES[name])
    except TypeError as error:  # bfloat16, where ml_dtypes isn't there
        raise click.BadParameter(str(error), param_hint="'--dtype'") from None
    with np.errstate(over="ignore", invalid="ignore"):
        converted_array = array.astype(dtype)
        fits = (
            np.isfinite(converted_array) | ~np.isfinite(array) if dtype.kind not in "biu" else converted_array == array
        )
    if not fits.all():
        worst = array[~fits].flat[0]
        hint = "; --dtype float64 has more room" if name == "float32" else ""
        raise click.BadParameter(f"{text[:80]}: {worst} doesn't fit in {name}{hint}")
    return converted_array


def size(text: str) -> Any:
    """An integer for all axes, or one an axis."""
    return _items(int, "integers such as 2 or 2,2", text)


def optional_size(text: str) -> Any:
    """As `size`, with `none` for an axis that keeps its extent."""
    sizes = _items(lambda item: None if item == "none" else int(item), "integers such as 2, 2,2 or none,4", text)
    return [None] if sizes is None else sizes  # None itself would be an option that was left out


def size_or_word(text: str) -> Any:
    """As `size`, or a word that the method knows."""
    return text if text.isalpha() else size(text)


def numbers(text: str) -> Any:
    """A number for all axes, or one an axis."""
    return _items(float, "numbers such as 0.5 or 0.5,0.7", text)


def _items(read: Callable[[str], Any], rule: str, text: str) -> Any:
    try:
        items = [read(item.strip()) for item in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text}: must be {rule}") from None
    return items[0] if len(items) == 1 else items


def dtype(text: str) -> str:
    """The name of a dtype that tensors can have."""
    from layerwire.wire.dtypes import DTYPES

    if text not in DTYPES:
        raise click.BadParameter(f"{text}: must be one of {', '.join(DTYPES)}")
    return text


def output_file(path: str) -> str:
    """A file that can be written, as far as is known without writing; `-` is standard output."""
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

    read: Callable[[str], Any] | click.ParamType[Any]
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
    "DTypeLike | None": Reader(dtype, "DTYPE"),
    "SupportsFloat | Sequence[SupportsFloat] | None": Reader(numbers, "FLOAT[,FLOAT...]"),
}


def option(parameter: inspect.Parameter) -> click.Option:
    """The option of a method's parameter. Left out, the method's own default holds.

    Raises:
        KeyError: the annotation has no reader.
    """
    name = "--" + parameter.name.strip("_").replace("_", "-")
    is_required = parameter.default is parameter.empty and not str(parameter.annotation).endswith("None")
    default = "" if parameter.default in (parameter.empty, None) else f"Default: {parameter.default}."
    if parameter.annotation == "bool":
        negative = f"/--no-{name[2:]}" if parameter.default is not False else ""
        flags = [f"{name}{negative}", parameter.name]
        return click.Option(flags, is_flag=True, default=None, help=default if negative else "", required=is_required)
    if parameter.name == DTYPE:
        return dtype_option()
    reader = _INDICES if parameter.name == "indices" else READERS[parameter.annotation]
    return click.Option(
        [name, parameter.name], type=reader.read, metavar=reader.metavar, required=is_required, help=default
    )


def dtype_option() -> click.Option:
    """--dtype, read before the tensors; where the function has a `dtype` of its own, both come to the same."""
    text = "What TENSORs are converted to. Default: .npy files as they are, numbers float32, indices int64."
    return click.Option(["--dtype", DTYPE], type=dtype, metavar="DTYPE", is_eager=True, help=text)
