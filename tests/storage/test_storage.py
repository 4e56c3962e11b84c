"""The store's files and names: durable, shared by processes, and as before after whatever fails."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwire_server.storage import (
    ConflictError,
    DamagedError,
    HeaderError,
    InvalidNameError,
    MissingError,
    NamedTensor,
    ReadOnlyError,
    Store,
    StoreError,
    StoreFullError,
    check_name,
    import_file,
    page,
    write_safetensors,
)
from layerwire_server.storage import names as names_of_store
from tests.storage import dying_store
from tests.storage.dying_store import digest_of, file_of, state_of

SCRIPT = [sys.executable, "-m", "tests.storage.dying_store"]
OLD = 3601.0


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(directory):
    return Store(directory)


def put(store, number=1):
    return NamedTensor(store.put_weights([file_of(number)]), "a")


def later(store, seconds=OLD):
    return Store(store.directory, clock=lambda: time.time() + seconds)


def files_of(store):
    return {path.name for path in store.directory.rglob("*") if path.is_file() and path.name != ".lock"}


# Weights and names


def test_weights_are_read_by_another_store(store):
    tensor = put(store)
    store.name_weights({"net/fc.weight": tensor})
    other = Store(store.directory)
    assert other.find_weights("net/fc.weight") == tensor
    with other.open_weights(tensor.digest) as file:
        assert file.read() == file_of(1)
    assert tensor.digest == digest_of(1)


def test_names_move_and_go(store):
    first, second = put(store, 1), put(store, 2)
    store.name_weights({"a": first, "b": first})
    store.name_weights({"a": NamedTensor(second.digest, "other", pinned=True)})
    assert dict(store.weights()) == {"a": NamedTensor(second.digest, "other", pinned=True), "b": first}
    store.delete_weights(["a"])
    assert dict(store.weights()) == {"b": first}


def test_names_go_all_or_none(store):
    store.name_weights({"a": put(store)})
    with pytest.raises(MissingError, match="'b'"):
        store.delete_weights(["a", "b"])
    assert set(store.weights()) == {"a"}


def test_a_name_needs_a_file(store):
    with pytest.raises(MissingError):
        store.name_weights({"a": put(store), "b": NamedTensor("0" * 64, "a")})
    assert not store.weights()


@pytest.mark.parametrize(
    "name", ["", ".a", "/a", "a/../b", "..", "a" * 201, "a b", "a\n", "a\0", "ä", "a\\b", "%2e"], ids=repr
)
def test_names_that_break_the_rule(store, name):
    tensor = put(store)
    before = files_of(store)
    for call in (
        lambda: store.name_weights({name: tensor}),
        lambda: store.put_program(name, b"x", []),
        lambda: store.find_weights(name),
        lambda: store.find_program(name),
        lambda: store.delete_program(name),
    ):
        with pytest.raises(InvalidNameError, match="1 to 200"):
            call()
    assert files_of(store) == before


@pytest.mark.parametrize("digest", ["", "0" * 63, "A" * 64, "../" + "0" * 61, "0" * 64 + "\n"], ids=repr)
def test_digests_that_are_none(store, digest):
    with pytest.raises(InvalidNameError, match="64 hexadecimal"):
        store.open_weights(digest)
    with pytest.raises(InvalidNameError, match="64 hexadecimal"):
        store.put_program("p", b"x", [digest])
    assert not store.programs()


def test_names_that_differ_in_case_only(store):
    store.name_weights({"a": put(store, 1), "A": put(store, 2)})
    assert store.find_weights("a") != store.find_weights("A")


def test_what_was_returned_never_changes(store):
    tensor = put(store)
    store.name_weights({"a": tensor})
    seen = store.weights()
    store.name_weights({"b": tensor})
    assert set(seen) == {"a"}


def test_pages():
    entries = {f"net/{number:03}": number for number in range(25)} | {"other": 0}
    found, after = [], ""
    while True:
        entries_of_page, after = page(entries, "net/", after, 10)
        found += entries_of_page
        assert len(entries_of_page) <= 10
        if not after:
            break
    assert found == [(name, number) for name, number in entries.items() if name != "other"]
    assert page(entries, "net/", "", 25)[1] == ""


@given(st.text(max_size=12) | st.from_regex(r"[A-Za-z0-9._/-]{1,12}", fullmatch=True))
def test_valid_names_stay_in_their_place(name):
    try:
        check_name(name)
    except InvalidNameError:
        return
    assert Path("/root", name).resolve().is_relative_to("/root") and not name.startswith((".", "/"))


# Damage


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


# Programs


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


# Changes are seen


def test_every_change_is_seen_by_every_store(store):
    other = Store(store.directory)
    seen = [other.names_version()]
    tensor = put(store)
    assert other.names_version() == seen[-1]
    for call in (
        lambda: store.name_weights({"a": tensor}),
        lambda: store.name_weights({"b": tensor}),
        lambda: store.delete_weights(["b"]),
        lambda: store.put_program("p", b"one", []),
        lambda: store.put_program("p", b"two", []),
        lambda: store.set_default_version("p", 1),
        lambda: store.set_default_version("p", 2),
        lambda: store.delete_program("p", 1),
    ):
        call()
        assert other.names_version() == store.names_version()
        seen.append(other.names_version())
    assert len(set(seen)) == len(seen)


def test_changes_within_one_tick_are_seen(store, monkeypatch):
    """Inode, size and time may all come back; what the file says of its change does not."""
    tensors = [NamedTensor(put(store, number).digest, "a") for number in (1, 2)]
    store.name_weights({"a": tensors[0]})
    path, reader = store.directory / "names" / "weights.json", Store(store.directory)
    status, seen = path.stat(), set()
    for number in range(6):
        store.name_weights({"a": tensors[number % 2]})
        content = path.read_bytes()
        assert len(content) == status.st_size
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        seen.add((reader.names_version(), reader.find_weights("a")))
    assert len(seen) == 6


# Sweeping


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


# Directories made elsewhere


def test_files_and_names_put_there_by_hand(directory):
    (directory / "weights").mkdir(parents=True)
    (directory / "names").mkdir()
    (directory / "weights" / f"{digest_of(1)}.safetensors").write_bytes(file_of(1))
    names = {"a": {"digest": digest_of(1), "key": "a"}}
    (directory / "names" / "weights.json").write_text(json.dumps({"names": names}, indent=2))
    store = Store(directory)
    assert store.find_weights("a") == NamedTensor(digest_of(1), "a")
    store.name_weights({"b": NamedTensor(digest_of(1), "a")})
    assert set(store.weights()) == {"a", "b"}


def test_import(store, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"".join(write_safetensors({"w": ("float32", (2,), bytes(8)), "b": ("int8", (), b"1")})))
    names = import_file(store, path, "net/", pinned=True)
    assert names == dict(store.weights()) and set(names) == {"net/w", "net/b"}
    assert {(tensor.key, tensor.pinned) for tensor in names.values()} == {("w", True), ("b", True)}


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"nonsense", HeaderError), (b"".join(write_safetensors({"a b": ("int8", (), b"1")})), InvalidNameError)],
    ids=["header", "key"],
)
def test_import_of_what_is_wrong(store, tmp_path, content, error):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(error):
        import_file(store, path)
    assert not files_of(store)


def test_a_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="can't be made"):
        Store(tmp_path / "file" / "store")


# Full and read-only


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


# Crashes and other processes


def states_of_steps(directory):
    store, states = dying_store.opened(directory), []
    states.append(state_of(store))
    for step in dying_store.STEPS:
        step(store)
        states.append(state_of(store))
    return states


def test_a_crash_anywhere_leaves_the_state_before_or_after(tmp_path):
    states = states_of_steps(tmp_path / "whole")
    reached = 0
    for point in range(1, 1000):
        directory = tmp_path / str(point)
        ended = subprocess.run([*SCRIPT, str(directory), "steps", str(point)], timeout=60)
        store = dying_store.opened(directory)
        state = state_of(store)
        assert state in states[reached:]
        reached = states.index(state, reached)
        for digest in names_of_store.weights_digests(state[0].values(), state[1].values()):
            store.open_weights(digest).close()
        for digest in names_of_store.program_digests(state[1].values()):
            store.read_program(digest)
        if ended.returncode == 0:
            break
        assert ended.returncode == 9
        store.sweep(0)
        assert not [name for name in files_of(store) if name.startswith(".new-") or name.endswith(".part")]
        for step in dying_store.STEPS[:2]:
            step(store)
    assert state == states[-1] and point > 40


def test_killed_at_any_time(directory):
    """Names that move together are never seen apart, by readers meanwhile and after a kill."""
    store = Store(directory)
    for number in (0, 1):
        put(store, number)
    for _ in range(5):
        child = subprocess.Popen([*SCRIPT, str(directory), "move"], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "moving\n"
        seen = set()
        while len(seen) < 10:
            names = store.weights()
            assert names["a"] == names["b"]
            seen.add(store.names_version())
        child.send_signal(signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
        child.stdout.close()
        assert store.find_weights("a") == store.find_weights("b")


def test_processes_and_threads_at_the_same_time_lose_nothing(store):
    children = [subprocess.Popen([*SCRIPT, str(store.directory), "names", prefix]) for prefix in ("x", "y")]
    tensor = put(store, 0)
    threads = [
        threading.Thread(target=lambda p=prefix: [store.name_weights({f"{p}/{i}": tensor}) for i in range(50)])
        for prefix in ("t", "u")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [child.wait(60) for child in children] == [0, 0]
    assert set(store.weights()) == {f"{prefix}/{number}" for prefix in "xytu" for number in range(50)}
    for tensor in store.weights().values():
        store.open_weights(tensor.digest).close()
