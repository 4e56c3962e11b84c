"""What no name needs goes after an hour, and nothing else does."""

import os

import pytest

from tests.storage.dying_store import digest_of, file_of
from tests.storage.stores import files_of, later, put


def test_what_no_name_needs_is_swept_after_an_hour(store):
    named, unnamed = put(store, 1), put(store, 2)
    store.name_weights({"a": named})
    store.put_program("p", b"one", [put(store, 3).digest])
    store.put_program("p", b"two", [])
    before = files_of(store)
    assert store.sweep() == 0 and later(store, 3500).sweep() == 0
    assert files_of(store) == before
    assert later(store).sweep() == len(file_of(2))
    assert before - files_of(store) == {f"{unnamed.digest}.safetensors"}
    store.delete_program("p", 1)
    later(store).sweep()
    assert not store.has_weights(digest_of(3)) and len(list((store.directory / "programs").iterdir())) == 1


def test_temporary_files_of_a_crash_are_swept(store):
    for folder in ("weights", "programs", "names", "uploads"):
        (store.directory / folder / ".new-x").write_bytes(b"12")
    assert store.sweep() == 0
    assert later(store).sweep() == 8 and not files_of(store)


def test_what_others_put_there_is_left(store):
    (store.directory / "weights" / "README").write_text("mine")
    (store.directory / "weights" / "folder").mkdir()
    later(store).sweep()
    assert (store.directory / "weights" / "README").exists()


@pytest.mark.parametrize("released_by", ["name", "delete", "program", "ask"])
def test_what_was_just_released_is_kept_for_an_hour(store, monkeypatch, released_by):
    """A call that began on it may still have to load it."""
    tensor = put(store)
    store.put_program("p", b"one", [tensor.digest]) if released_by == "program" else store.name_weights({"a": tensor})
    refreshed = []
    monkeypatch.setattr(os, "utime", lambda path, ns: refreshed.append(path.name))
    {
        "name": lambda: store.name_weights({"a": put(store, 2)}),
        "delete": lambda: store.delete_weights(["a"]),
        "program": lambda: store.delete_program("p"),
        "ask": lambda: store.has_weights(tensor.digest),
    }[released_by]()
    assert f"{tensor.digest}.safetensors" in refreshed


def test_refreshing_makes_young_and_stays_verified(store):
    digest = put(store).digest
    path = store.weights_files.path(digest)
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the file system's clock ticks within milliseconds
        store.weights_files.refresh(digest)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert not store.weights_files.sweep((), before.st_ctime + 1e-6) and path.exists()
