"""Uploads that break off, go on, lie, collide and find no room."""

import errno
import hashlib
import os
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwire_server.storage import (
    BusyError,
    DigestError,
    InvalidNameError,
    Progress,
    ReadOnlyError,
    Store,
    StoreFullError,
    Uploads,
    durable,
)
from layerwire_server.storage import uploads as module

CONTENT = bytes(range(250)) * 8
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def uploads(store):
    return Uploads(store)


def parts(store):
    return [path.name for path in store.uploads_folder.iterdir()]


def finish(upload):
    upload.seal()
    upload.commit()


def test_a_whole_file(store, uploads):
    assert uploads.progress(DIGEST) == Progress(complete=False, received_bytes=0)
    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(CONTENT[:700])
        assert uploads.progress(DIGEST) == Progress(complete=False, received_bytes=700)
        upload.write(memoryview(CONTENT)[700:])
        path = upload.seal()
        assert path.read_bytes() == CONTENT and not store.has_weights(DIGEST)
        upload.commit()
    assert uploads.progress(DIGEST) == Progress(complete=True, received_bytes=2000)
    with store.open_weights(DIGEST) as file:
        assert file.read() == CONTENT
    assert not parts(store)


@pytest.mark.parametrize("offset", [0, 1, 699, 700])
def test_it_goes_on_where_it_broke_off(store, uploads, offset):
    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(CONTENT[:700])
    with Uploads(Store(store.directory)).begin(DIGEST, 2000, offset) as upload:
        assert upload.received_bytes == offset
        upload.write(CONTENT[offset:])
        finish(upload)
    assert store.has_weights(DIGEST)


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 800)), max_size=6), st.integers(1, 700))
def test_whatever_breaks_off_goes_on(tmp_path_factory, breaks, piece_bytes):
    store = Store(tmp_path_factory.mktemp("store"))
    for back, length in breaks:
        received = Uploads(store).progress(DIGEST).received_bytes
        offset = max(0, received - back)
        with Uploads(store).begin(DIGEST, 2000, offset) as upload:
            piece = CONTENT[offset : offset + length]
            upload.write(piece)
        assert Uploads(store).progress(DIGEST).received_bytes == offset + len(piece)
    offset = Uploads(store).progress(DIGEST).received_bytes
    with Uploads(store).begin(DIGEST, 2000, offset) as upload:
        for begin in range(offset, 2000, piece_bytes):
            upload.write(CONTENT[begin : begin + piece_bytes])
        finish(upload)
    store.open_weights(DIGEST).close()


def test_an_empty_file(store, uploads):
    digest = hashlib.sha256(b"").hexdigest()
    with uploads.begin(digest, 0) as upload:
        finish(upload)
    assert uploads.progress(digest) == Progress(complete=True, received_bytes=0)


@pytest.mark.parametrize(
    ("size", "content"),
    [(2000, CONTENT[:-1]), (1999, CONTENT[:-1]), (2000, CONTENT[:-1] + b"x"), (2000, b"")],
    ids=["short", "size wrong", "bytes wrong", "nothing"],
)
def test_what_does_not_fit_its_digest_is_gone(store, uploads, size, content):
    with uploads.begin(DIGEST, size) as upload:
        upload.write(content)
        with pytest.raises(DigestError, match=f"{size} bytes with digest"):
            upload.seal()
    assert not parts(store) and not store.has_weights(DIGEST)


def test_more_than_was_said_is_gone(store, uploads):
    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(CONTENT)
        with pytest.raises(DigestError, match="more bytes"):
            upload.write(b"x")
        with pytest.raises(BusyError):
            upload.seal()
    assert not parts(store)


def test_a_poisoned_part_does_not_poison_the_file(store, uploads):
    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(b"poison")
    with uploads.begin(DIGEST, 2000, 6) as upload:
        upload.write(CONTENT[6:])
        with pytest.raises(DigestError):
            upload.seal()
    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(CONTENT)
        finish(upload)


@pytest.mark.parametrize("offset", [-1, 701, 2001])
def test_offsets_beyond_what_is_there(store, uploads, offset):
    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(CONTENT[:700])
    with pytest.raises(DigestError, match="offset"):
        uploads.begin(DIGEST, 2000, offset)
    assert uploads.progress(DIGEST).received_bytes == 700


@pytest.mark.parametrize("digest", ["", "../" * 21 + "a", DIGEST.upper(), DIGEST + ".part"])
def test_digests_that_are_none(uploads, digest):
    for call in (lambda: uploads.progress(digest), lambda: uploads.begin(digest, 1)):
        with pytest.raises(InvalidNameError):
            call()


def test_a_damaged_file_is_mended(store, uploads, monkeypatch):
    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(CONTENT)
        finish(upload)
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", None)
        assert uploads.progress(DIGEST).complete  # it was summed as it came
    store.weights_files.path(DIGEST).write_bytes(CONTENT[:-1] + b"x")
    for taking in (uploads, Uploads(Store(store.directory))):
        assert taking.progress(DIGEST) == Progress(complete=False, received_bytes=0)
    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(CONTENT)
        finish(upload)
    assert Uploads(Store(store.directory)).progress(DIGEST).complete


def test_discarded(store, uploads):
    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(CONTENT)
        upload.seal()
        upload.discard()
    assert not parts(store) and not store.has_weights(DIGEST)


def test_nothing_to_go_on_with_leaves_nothing(store, uploads):
    with uploads.begin(DIGEST, 2000):
        assert parts(store) == [f"{DIGEST}.part"]
    with pytest.raises(DigestError):
        uploads.begin(DIGEST, 2000, 5)
    assert not parts(store)


def test_a_part_longer_than_the_file_is_cut(store, uploads):
    with uploads.begin(DIGEST, 3000) as upload:
        upload.write(bytes(3000))
    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(CONTENT)
        finish(upload)
    with Store(store.directory).open_weights(DIGEST) as file:
        assert file.read() == CONTENT


# Two at a time


def test_a_part_that_is_swept_between_open_and_lock(store, uploads, monkeypatch):
    lock_now, swept = durable.lock_now, []

    def lock_late(descriptor):
        if not swept:
            swept.append((store.uploads_folder / f"{DIGEST}.part").unlink())
        return lock_now(descriptor)

    monkeypatch.setattr(durable, "lock_now", lock_late)
    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(CONTENT)
        finish(upload)
    assert swept and store.has_weights(DIGEST)


def test_the_newer_takes_over(store, uploads):
    older = uploads.begin(DIGEST, 2000)
    older.write(CONTENT[:700])
    with uploads.begin(DIGEST, 2000, 700) as newer:
        for call in (lambda: older.write(b"x"), older.seal, older.commit):
            with pytest.raises(BusyError, match="newer"):
                call()
        older.discard()
        older.close()
        newer.write(CONTENT[700:])
        finish(newer)
    assert store.has_weights(DIGEST)


def test_the_newer_need_not_wait_until_the_older_has_hashed(store, uploads, monkeypatch):
    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(CONTENT)
    monkeypatch.setattr(durable, "PIECE_BYTES", 100)
    reading, go_on, outcome = threading.Event(), threading.Event(), []
    read = os.read

    def held(descriptor, length):
        if threading.current_thread() is thread:
            reading.set()
            assert go_on.wait(300)
        return read(descriptor, length)

    def begin():
        try:
            uploads.begin(DIGEST, 2000, 2000)
        except BusyError as error:
            outcome.append(str(error))

    original = module.Upload.end

    def end(upload, reason):
        if upload._descriptor is not None:  # the one that hashes; it must see why before it is let go on
            upload._end_reason = upload._end_reason or reason
            go_on.set()
        original(upload, reason)

    thread = threading.Thread(target=begin)
    monkeypatch.setattr(os, "read", held)
    monkeypatch.setattr(module.Upload, "end", end)
    thread.start()
    assert reading.wait(300)
    with uploads.begin(DIGEST, 2000, 2000) as newer:
        finish(newer)
    thread.join(300)
    assert outcome == ["upload: a newer upload of the same file has taken its place"]


def test_another_process_is_busy_and_dies(store, uploads):
    command = [sys.executable, "-m", "tests.storage.dying_store", str(store.directory), "upload", DIGEST]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "begun\n"
    with pytest.raises(BusyError, match="another process"):
        uploads.begin(DIGEST, 2000)
    assert store.sweep(-1) == 0  # not even a part of the future goes while it is written
    assert uploads.progress(DIGEST).received_bytes == 4
    child.kill()
    child.communicate(timeout=300)
    with uploads.begin(DIGEST, 2000) as upload:
        second = subprocess.run(command, input="", capture_output=True, text=True, timeout=500)
        assert second.stdout == "BusyError\n"
        upload.write(CONTENT)
        finish(upload)


def test_parts_are_swept_when_nobody_goes_on(store, uploads):
    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(CONTENT[:700])
        assert store.sweep(-1) == 0
    assert store.sweep() == 0
    assert store.sweep(-1) == 700 and not parts(store)


def test_ended_uploads_are_not_remembered(uploads):
    for number in range(5):
        with uploads.begin(hashlib.sha256(bytes([number])).hexdigest(), 10) as upload:
            upload.write(b"x")
    assert len(uploads._active) == 1


# No room


def test_the_largest_file(store):
    with pytest.raises(StoreFullError, match="at most 1999"):
        Uploads(store, max_file_bytes=1999).begin(DIGEST, 2000)
    assert not parts(store)


def test_the_stores_limit_counts_parts(store, monkeypatch):
    monkeypatch.setattr(module, "_ROOM_CHECK_BYTES", 1)
    store = Store(store.directory, max_bytes=3000)
    uploads, other = Uploads(store), hashlib.sha256(CONTENT[:-1]).hexdigest()
    with uploads.begin(DIGEST, 2000) as first, uploads.begin(other, 1999) as second:
        first.write(CONTENT[:1500])
        second.write(CONTENT[:1000])
        second.write(CONTENT[:500])
        with pytest.raises(StoreFullError, match="limit"):
            second.write(b"x")
        assert parts(store) == [f"{DIGEST}.part"]
        first.write(CONTENT[1500:])
        finish(first)
    with pytest.raises(StoreFullError):
        uploads.begin(other, 1999)
    assert not parts(store)


def test_going_on_needs_room_for_the_rest_only(store):
    with Uploads(store).begin(DIGEST, 2000) as upload:
        upload.write(CONTENT[:1500])
    with Uploads(Store(store.directory, max_bytes=2000)).begin(DIGEST, 2000, 1500) as upload:
        upload.write(CONTENT[1500:])
        finish(upload)


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk(store, uploads, monkeypatch, call):
    original = getattr(os, call)

    def full(*args):
        if call == "write" and len(args[1]) > 1:
            return original(args[0], args[1][:1])
        raise OSError(errno.ENOSPC, "full")

    with uploads.begin(DIGEST, 2000) as upload:
        upload.write(CONTENT[:1000])
        monkeypatch.setattr(os, call, full)
        with pytest.raises(StoreFullError, match="disk is full"):
            upload.write(CONTENT[1000:])
            upload.seal()
    assert not parts(store) and not store.has_weights(DIGEST)


def test_a_full_small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        store = Store(place)
        with Uploads(store).begin(DIGEST, 1 << 20) as upload, pytest.raises(StoreFullError):
            upload.write(bytes(1 << 20))
        assert not parts(store)
        with Uploads(store).begin(DIGEST, 2000) as upload:
            upload.write(CONTENT)
            finish(upload)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        with pytest.raises(ReadOnlyError):
            Uploads(store).begin(hashlib.sha256(b"").hexdigest(), 0)
        assert Uploads(Store(place)).progress(DIGEST).complete
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


MEMORY = """
import hashlib, resource, sys
from pathlib import Path
from layerwire_server.storage import Store, Uploads
piece, summed = bytes(1 << 20), hashlib.sha256()
for _ in range(128):
    summed.update(piece)
store, digest = Store(Path(sys.argv[1])), summed.hexdigest()
with Uploads(store).begin(digest, 128 << 20) as upload:
    upload.write(piece)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Uploads(store).begin(digest, 128 << 20, 1 << 20) as upload:
    for _ in range(127):
        upload.write(piece)
with Uploads(store).begin(digest, 128 << 20, 128 << 20) as upload:
    upload.seal()
    upload.commit()
store.open_weights(digest).close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_stays_flat(tmp_path):
    """128 MiB are written, hashed again and verified within 8 MiB."""
    ended = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "store")], capture_output=True, text=True, check=True, timeout=100
    )
    assert int(ended.stdout) * 1024 < 8 << 20
