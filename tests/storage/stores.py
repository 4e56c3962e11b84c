"""What tests of the store put into it, and how they look at it."""

import time

from layerwire_server.storage import NamedTensor, Store
from tests.storage.dying_store import file_of

OLD_SECONDS = 3601.0


def put(store, number=1):
    return NamedTensor(store.put_weights([file_of(number)]), "a")


def later(store, seconds=OLD_SECONDS):
    return Store(store.directory, clock=lambda: time.time() + seconds)


def files_of(store):
    return {path.name for path in store.directory.rglob("*") if path.is_file() and path.name != ".lock"}
