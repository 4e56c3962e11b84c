"""Programs' names: versions, and which of them is the default."""

import time

import pytest

from layerwire_server.storage import (
    ConflictError,
    InvalidNameError,
    MissingError,
    Store,
)
from layerwire_server.storage import names as names_of_store
from tests.storage.stores import files_of, put


def test_versions(store):
    digest = put(store).digest
    assert store.put_program("p", b"one", [digest])[0] == 1
    assert store.put_program("p", b"two", [digest], keep_default_version=True, pinned=True)[0] == 2
    assert store.put_program("p", b"ten", [], version=10)[0] == 10
    assert store.put_program("p", b"eleven", [])[0] == 11
    assert list(store.programs()["p"].versions) == [1, 2, 10, 11]
    number, version = store.find_program("p", 2)
    assert (number, version.pinned, version.weights) == (2, True, {digest})
    assert abs(version.put_seconds - time.time()) < 60
    assert store.read_program(store.find_program("p")[1].digest) == b"eleven"
    store.set_default_version("p", 1)
    assert Store(store.directory).find_program("p")[0] == 1


def test_the_first_version_is_the_default_whatever_is_asked(store):
    store.put_program("p", b"one", [], keep_default_version=True)
    store.put_program("p", b"two", [], keep_default_version=True)
    assert store.find_program("p")[0] == 1


def test_versions_that_are_refused(store):
    store.put_program("p", b"one", [])
    before = files_of(store)
    with pytest.raises(ConflictError, match="version 1 already"):
        store.put_program("p", b"other", [], version=1)
    with pytest.raises(MissingError):
        store.put_program("p", b"other", ["0" * 64])
    for version in (0, -1, 1 << 63):
        with pytest.raises(InvalidNameError):
            store.put_program("p", b"other", [], version=version)
    with pytest.raises(MissingError):
        store.set_default_version("p", 2)
    with pytest.raises(MissingError):
        store.set_default_version("q", 1)
    assert files_of(store) == before and list(store.programs()["p"].versions) == [1]


def test_no_version_behind_the_last(store):
    store.put_program("p", b"one", [], version=names_of_store.MAX_VERSION)
    with pytest.raises(InvalidNameError):
        store.put_program("p", b"two", [])


def test_versions_go(store):
    for content in (b"one", b"two", b"three"):
        store.put_program("p", content, [])
    with pytest.raises(ConflictError, match="default"):
        store.delete_program("p", 3)
    store.delete_program("p", 1)
    with pytest.raises(MissingError):
        store.delete_program("p", 1)
    store.delete_program("p", 2)
    store.delete_program("p", 3)
    assert not store.programs()
    with pytest.raises(MissingError):
        store.delete_program("p")


def test_all_versions_go(store):
    store.put_program("p", b"one", [])
    store.put_program("p", b"two", [])
    store.put_program("q", b"two", [])
    store.delete_program("p")
    assert set(store.programs()) == {"q"}
