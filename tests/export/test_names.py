"""Names of values: unique, short enough, clear of further outputs."""

from __future__ import annotations

from layerwire.export.names import MAX_CHARACTERS, Names


def test_taken_names_get_a_number():
    names = Names()
    assert [names.claim("a") for _ in range(3)] == ["a", "a_2", "a_3"]


def test_outputs_of_nodes_are_kept_free():
    names = Names()
    assert names.claim("pool.indices") == "pool.indices"
    assert names.claim("pool", ("output", "indices")) == "pool_2"
    assert names.claim("pool_2.indices") == "pool_2.indices_2"


def test_long_names_keep_their_end():
    names = Names()
    made = [names.claim("block." * 60 + "conv") for _ in range(12)]
    assert len(set(made)) == 12
    assert all(len(name) <= MAX_CHARACTERS for name in made)
    assert made[0].endswith("block.conv")
