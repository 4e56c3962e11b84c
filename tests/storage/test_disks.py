"""Disks that are damaged, full or read-only: refused by name, and the store is as before."""

import errno
import json
import os
import subprocess

import pytest

from layerwire_server.storage import (
    DamagedError,
    ReadOnlyError,
    Store,
    StoreError,
    StoreFullError,
)
from tests.storage.dying_store import digest_of, file_of, state_of
from tests.storage.stores import files_of, later, put


def test_damaged_weights_are_told_but_once_verified_ones_are_not_summed_again(store, monkeypatch):
    digest = put(store).digest
    store.open_weights(digest).close()
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", None)
        store.open_weights(digest).close()
    path = store.weights_files.path(digest)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedError):
        store.open_weights(digest)
    put(store)
    store.open_weights(digest).close()


def test_damaged_program(store):
    _, version = store.put_program("p", b"program", [])
    assert store.read_program(version.digest) == b"program"
    store.program_files.path(version.digest).write_bytes(b"PROGRAM")
    with pytest.raises(DamagedError):
        store.read_program(version.digest)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"names": 1}',
        b'{"names": {"../a": {}}}',
        b'{"names": {"a": {"digest": "x", "key": "a"}}}',
        b'{"names": {"a": {"key": "a"}}}',
        b'{"names": {"a": 1}}',
        b"\xff",
        b"[" * 100_000,
    ],
    ids=repr,
)
def test_damaged_names_are_told_and_nothing_is_swept(store, content):
    tensor = put(store)
    path = store.directory / "names" / "weights.json"
    path.write_bytes(content)
    for call in (store.weights, later(store).sweep, lambda: store.name_weights({"a": tensor})):
        with pytest.raises(DamagedError, match="weights.json"):
            call()
    assert store.has_weights(tensor.digest) and path.read_bytes() == content


def test_a_default_version_that_is_not_there(store):
    path = store.directory / "names" / "programs.json"
    path.write_text(json.dumps({"names": {"p": {"default_version": 2, "versions": {"1": {"digest": "0" * 64}}}}}))
    with pytest.raises(DamagedError):
        store.programs()


@pytest.fixture
def small_disk(tmp_path):
    """A mounted file system of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def check_full(store, call):
    before, state = files_of(store), state_of(store)
    with pytest.raises(StoreFullError):
        call()
    assert (files_of(store), state_of(store)) == (before, state)


def test_full_disk(small_disk):
    store = Store(small_disk / "store")
    tensor = put(store)
    store.name_weights({"a": tensor})
    check_full(store, lambda: store.put_weights([bytes(1 << 20)]))
    check_full(store, lambda: store.put_program("p", bytes(1 << 20), []))
    check_full(store, lambda: store.name_weights({f"{'n' * 190}{i}": tensor for i in range(5000)}))
    store.put_program("p", b"one", [tensor.digest])
    assert put(store, 2).digest == digest_of(2)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_disk_that_refuses(store, monkeypatch, number, call):
    tensor = put(store)
    store.name_weights({"a": tensor})
    before, state = files_of(store), state_of(store)

    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    expected = {errno.EIO: StoreError, errno.EROFS: ReadOnlyError}.get(number, StoreFullError)
    for change in (
        lambda: store.put_weights([bytes(100)]),
        lambda: store.name_weights({"b": tensor}),
        lambda: store.put_program("p", b"one", []),
    ):
        with pytest.raises(StoreError) as caught:
            change()
        assert type(caught.value) is expected
    assert (files_of(store), state_of(store)) == (before, state)


def test_the_stores_own_limit(directory):
    store = Store(directory, max_bytes=2000)
    tensor = put(store)
    store.name_weights({"a": tensor})
    check_full(store, lambda: store.put_weights([bytes(1000), bytes(1000)]))
    check_full(store, lambda: store.put_program("p", bytes(2000), []))
    check_full(store, lambda: store.name_weights({f"{'n' * 190}{i}": tensor for i in range(10)}))
    store.put_weights([bytes(store.room_bytes())])
    assert (store.used_bytes(), store.room_bytes()) == (2000, 0)
    check_full(store, lambda: store.put_weights([b"1"]))
    store.delete_weights(["a"])
    assert later(store).sweep() > 0 and not store.weights()


def check_read_only(directory):
    store = Store(directory)
    assert store.read_only
    tensor = store.find_weights("a")
    assert store.has_weights(tensor.digest)
    with store.open_weights(tensor.digest) as file:
        assert file.read() == file_of(1)
    assert store.read_program(store.find_program("p")[1].digest) == b"one"
    for call in (
        lambda: store.put_weights([b"1"]),
        lambda: store.name_weights({"b": tensor}),
        lambda: store.delete_weights(["a"]),
        lambda: store.put_program("p", b"two", []),
        lambda: store.set_default_version("p", 1),
        lambda: store.delete_program("p"),
        store.sweep,
    ):
        with pytest.raises(ReadOnlyError):
            call()


def test_mounted_read_only(small_disk):
    store = Store(small_disk)
    store.name_weights({"a": put(store)})
    store.put_program("p", b"one", [])
    (small_disk / "uploads").rmdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert store.has_weights(digest_of(1))  # it was writable when this store was opened
    with pytest.raises(ReadOnlyError):
        store.put_weights([b"1"])
    check_read_only(small_disk)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_to_write(store):
    store.name_weights({"a": put(store)})
    store.put_program("p", b"one", [])
    folders = [store.directory, *(path for path in store.directory.iterdir())]
    for folder in folders:
        folder.chmod(0o500)
    check_read_only(store.directory)
    for folder in folders:
        folder.chmod(0o700)
