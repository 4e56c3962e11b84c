"""Names of weights: what they may be, how they move, and who sees it."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwire_server.storage import (
    HeaderError,
    InvalidNameError,
    MissingError,
    NamedTensor,
    Store,
    StoreError,
    check_name,
    import_file,
    page,
    write_safetensors,
)
from tests.storage.dying_store import digest_of, file_of
from tests.storage.stores import files_of, put


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
    pages, after = [], ""
    while True:
        entries_of_page, after = page(entries, "net/", after, 10)
        pages += entries_of_page
        assert len(entries_of_page) <= 10
        if not after:
            break
    assert pages == [(name, number) for name, number in entries.items() if name != "other"]
    assert page(entries, "net/", "", 25)[1] == ""


@given(st.text(max_size=12) | st.from_regex(r"[A-Za-z0-9._/-]{1,12}", fullmatch=True))
def test_valid_names_stay_in_their_place(name):
    try:
        check_name(name)
    except InvalidNameError:
        return
    assert Path("/root", name).resolve().is_relative_to("/root") and not name.startswith((".", "/"))


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
