"""What comes back from a call: said, shown if it is small, written to files.

It knows arrays and .npy files; neither calls nor servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

MAX_SHOWN = 64  # elements of an output that are printed


def keep(outputs: Sequence[Any], files: Sequence[str]) -> None:
    """Writes outputs to their files; says what each is, and shows those that have none and are small."""
    import numpy as np

    for number, array in enumerate(outputs):
        file = files[number] if number < len(files) else ""
        line = f"{array.dtype.name} {list(array.shape)}"
        if array.size:
            line += f"  min {float(array.min()):.6g}  max {float(array.max()):.6g}"
        click.echo(f"{file}  {line}" if file else line)
        if file:
            _save(file, array)
        elif array.size <= MAX_SHOWN:
            click.echo(np.array2string(array, separator=", "))


def _save(file: str, array: Any) -> None:
    import numpy as np

    try:
        with click.open_file(file, "wb") as stream:
            np.save(stream, array, allow_pickle=False)
    except OSError as error:  # a full disk, and what no look beforehand tells
        raise click.ClickException(f"--output: {file}: {error.strerror or error}") from None
