"""Blocks of planes that threads share: each block once, in its place, and nothing left running behind a failure."""

from __future__ import annotations

import threading

import pytest
import torch

from layerwire_server.operators import blocks
from tests.served import PATIENCE_SECONDS

PLANES = torch.arange(11 * 4 * 4, dtype=torch.float32).view(11, 4, 4)


@pytest.fixture(autouse=True)
def _two_threads_and_small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 2 * 4 * 4 * 4)  # two planes, and one in the last block
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


def in_blocks(way, *, is_plain=lambda block, piece: True, eager=lambda block: (block - 1, block[:, 0])):
    return blocks.in_blocks(PLANES, 2, way, eager, is_plain)


@pytest.mark.parametrize("is_inference", [False, True], ids=["plain", "inference"])
def test_two_threads_have_blocks_at_once_and_all_lie_in_their_places(is_inference):
    both = threading.Barrier(2)
    firsts, threads = [], {}

    def way(block):
        if threading.get_ident() not in threads:
            both.wait(PATIENCE_SECONDS)  # neither goes on before the other has a block
        threads[threading.get_ident()] = torch.get_num_threads(), torch.is_inference_mode_enabled()
        firsts.append(int(block[0, 0, 0]) // 16)
        return block + 1, block[:, 0]

    # The others are left to eager.
    with torch.inference_mode(is_inference):
        answer, rows = in_blocks(way, is_plain=lambda block, piece: bool(block[0, 0, 0] != 4 * 16))
        expected = PLANES + 1
        expected[4:6] = PLANES[4:6] - 1
        assert torch.equal(answer, expected)
        assert torch.equal(rows, PLANES[:, 0])
        assert answer.is_inference() == is_inference
    assert sorted(firsts) == [0, 2, 4, 6, 8, 10]
    assert list(threads.values()) == [(1, is_inference)] * 2


@pytest.mark.parametrize("is_callers", [True, False], ids=["caller's block", "other's block"])
def test_a_block_that_fails_waits_for_those_that_run(is_callers):
    caller, both, failure, ended = threading.get_ident(), threading.Barrier(2), threading.Event(), []

    def way(block):
        if not failure.is_set():
            both.wait(PATIENCE_SECONDS)  # one block a thread
            if (threading.get_ident() == caller) == is_callers:
                failure.set()
                raise MemoryError("of a block")
            failure.wait(PATIENCE_SECONDS)
        ended.append(len(block))
        return (block,)

    with pytest.raises(MemoryError, match="of a block"):
        in_blocks(way)
    count = len(ended)
    assert 1 <= count < 6
    assert torch.equal(in_blocks(lambda block: (block + 1,))[0], PLANES + 1)
    assert len(ended) == count


def test_one_thread_of_torchs_is_one_thread():
    torch.set_num_threads(1)
    threads = set()

    def way(block):
        threads.add(threading.get_ident())
        return (block,)

    assert torch.equal(in_blocks(way)[0], PLANES)
    torch.set_num_threads(2)
    assert threads == {threading.get_ident()}
