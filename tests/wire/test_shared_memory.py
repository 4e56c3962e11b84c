"""Memory that processes share: nobody can shorten it, ranges stay within it, and none is lent twice."""

from __future__ import annotations

import contextlib
import itertools
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwire.wire.shared_memory import PAGE_BYTES, Memory, Ranges, SharedMemoryError


@pytest.fixture
def memory():
    return Memory.create("test", 10 * PAGE_BYTES)


def pages(memory):
    return os.fstat(memory.descriptor).st_blocks * 512 // PAGE_BYTES


def test_two_maps_of_a_descriptor_are_one_memory(memory):
    other = Memory(os.dup(memory.descriptor))
    memory.write(PAGE_BYTES, [b"ab", memoryview(b"cd")])
    assert bytes(other.view(PAGE_BYTES, 5)) == b"abcd\0"


def test_nobody_can_shorten_it_under_those_who_read_it(memory):
    with pytest.raises(PermissionError):
        os.ftruncate(memory.descriptor, 0)


@pytest.mark.parametrize("seals", [False, True], ids=["unsealed", "sealed, empty"])
def test_what_could_be_shortened_or_is_too_short_is_refused(seals):
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING if seals else 0)
    os.ftruncate(descriptor, 0 if seals else PAGE_BYTES)
    with pytest.raises(SharedMemoryError):
        Memory(descriptor)
    with pytest.raises(OSError, match="descriptor"):  # it was closed
        os.fstat(descriptor)


def test_other_descriptors_are_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * PAGE_BYTES)
    for descriptor in (os.open(tmp_path / "file", os.O_RDWR), os.pipe()[0], os.open(tmp_path, os.O_RDONLY)):
        with pytest.raises(SharedMemoryError):
            Memory(descriptor)


@pytest.mark.parametrize(
    ("start", "nbytes"), [(-1, 1), (0, -1), (0, 11 * PAGE_BYTES + 1), (11 * PAGE_BYTES, 1), (2**63, 2**63)]
)
def test_ranges_outside_are_refused(memory, start, nbytes):
    with pytest.raises(SharedMemoryError):
        memory.view(start, nbytes)


def test_a_view_is_released_with_the_last_part_of_it(memory):
    releases = []
    view = memory.view(PAGE_BYTES, 100, lambda: releases.append(1))
    part = view[10:20].toreadonly()
    del view
    assert not releases
    del part
    assert releases == [1]


def test_pages_are_given_back(memory):
    memory.write(PAGE_BYTES, [b"x" * 8 * PAGE_BYTES])
    assert pages(memory) == 9
    memory.give_back()
    assert pages(memory) == 1  # the first, by which it is known
    assert bytes(memory.view(PAGE_BYTES, 1)) == b"\0"


def test_its_descriptor_ends_with_it(memory):
    descriptor = memory.descriptor
    inode = os.fstat(descriptor).st_ino
    other = Memory(os.dup(descriptor))
    view = other.view(0, 1)
    descriptor = other.descriptor
    del other
    view[:] = b"x"  # the map lives on
    assert bytes(memory.view(0, 1)) == b"x"
    with contextlib.suppress(OSError):
        assert os.fstat(descriptor).st_ino != inode


def test_what_is_offered_can_be_opened_while_it_is_there(memory):
    offer = memory.offer
    other = Memory.open(offer, "test")
    other.view(PAGE_BYTES, 1)[:] = b"x"
    assert bytes(memory.view(PAGE_BYTES, 1)) == b"x"
    assert other.is_at(offer)
    process, descriptor, mark = struct.unpack("<QQ16s", offer)
    for wrong in (
        b"",
        struct.pack("<QQ16s", process, descriptor, bytes(16)),
        struct.pack("<QQ16s", process, os.pipe()[0], mark),
        struct.pack("<QQ16s", process, 2**40, mark),
        struct.pack("<QQ16s", 2**40, descriptor, mark),
    ):
        with pytest.raises(SharedMemoryError):
            Memory.open(wrong, "test")
    with pytest.raises(SharedMemoryError):
        Memory.open(offer, "other")
    os.close(os.dup(0))
    memory._close()
    assert not other.is_at(offer)


@given(st.lists(st.one_of(st.integers(0, 5 * PAGE_BYTES), st.integers(-8, -1)), max_size=60))
def test_lent_ranges_never_meet_and_all_comes_back(steps):
    ranges, lent = Ranges(1, 20 * PAGE_BYTES), {}
    for step in steps:
        if step >= 0:
            start = ranges.lend(step)
            if start is not None:
                lent[start] = max(step, 1)
        elif lent:
            start = sorted(lent)[step % len(lent)]
            del lent[start]
            assert ranges.release(start)
            assert not ranges.release(start)
        places = sorted(lent.items())
        assert all(one + nbytes <= two for (one, nbytes), (two, _) in itertools.pairwise(places))
        assert all(start >= PAGE_BYTES and start + nbytes <= 20 * PAGE_BYTES for start, nbytes in places)
        assert len(ranges) == len(lent)
    for start in lent:
        ranges.release(start)
    assert ranges.lend(19 * PAGE_BYTES) == PAGE_BYTES


def test_a_locked_range_is_locked_for_all_others_until_its_holder_is_gone(memory):
    one, other = (Memory.open(memory.offer, "test") for _ in range(2))
    assert one.lock(PAGE_BYTES, 100)
    assert not other.lock(PAGE_BYTES + 99, 100)
    assert other.is_locked(0, PAGE_BYTES + 1)
    assert not other.is_locked(PAGE_BYTES + 100, 100)
    assert not one.is_locked(PAGE_BYTES, 100)
    assert other.lock(PAGE_BYTES + 100, 100)
    one.unlock(PAGE_BYTES, 100)
    assert not other.is_locked(PAGE_BYTES, 100)
    assert one.lock(PAGE_BYTES, 100)
    del one
    assert not other.is_locked(PAGE_BYTES, 100)


def test_what_is_read_only_here_can_be_read_and_its_end_is_told(memory):
    other = Memory.open(memory.offer, "test", is_writable=False)
    memory.write(PAGE_BYTES, [b"ab"])
    releases = []
    view = other.view(PAGE_BYTES, 2, lambda: releases.append(1))
    assert bytes(view) == b"ab"
    del view
    assert releases == [1]
