"""Imports: a safetensors file from elsewhere, put into the store, its tensors named.

It knows the store and the format; nothing of what the tensors are for.
"""

from __future__ import annotations

from pathlib import Path

from layerwire_server.storage.durable import PIECE_BYTES
from layerwire_server.storage.errors import StoreError
from layerwire_server.storage.names import NamedTensor, check_name
from layerwire_server.storage.safetensors import read_header
from layerwire_server.storage.store import Store


def import_file(store: Store, path: Path, prefix: str = "", *, pinned: bool = False) -> dict[str, NamedTensor]:
    """Puts a safetensors file and names all its tensors prefix + key, all at once; returns those names.

    Raises:
        HeaderError: it is no safetensors file.
        InvalidNameError: a key makes no name.
        OSError: the file can't be read.
        StoreError: the store can't take it.
    """
    with path.open("rb") as file:
        header = read_header(file)
        for key in header:
            check_name(prefix + key)
        file.seek(0)
        digest = store.put_weights(iter(lambda: file.read(PIECE_BYTES), b""))
    with store.open_weights(digest, check=False) as copy:
        if read_header(copy) != header:
            raise StoreError(f"{path.name} changed while it was read")
    tensors = {prefix + key: NamedTensor(digest, key, pinned) for key in header}
    store.name_weights(tensors)
    return tensors


def import_into(directory: Path, path: Path, prefix: str = "", *, pinned: bool = False) -> list[str]:
    """As `import_file`, into the store of a directory, which is made if it isn't there; the names.

    Raises:
        RuntimeError: it can't be done; the text says why, for people.
    """
    try:
        return list(import_file(Store(directory), path, prefix, pinned=pinned))
    except StoreError as error:
        raise RuntimeError(str(error)) from error
