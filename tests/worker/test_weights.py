"""Named weights: kept durably, moved at once, seen by workers that weren't told, refused when damaged or too many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from layerwire import codec
from layerwire.errors import InvalidArgumentError, NotFoundError, ResourceExhaustedError
from layerwire.v1 import layerwire_pb2 as pb
from layerwire_server.store import Store, StoreError, name_is_valid
from layerwire_server.worker.weights import WeightsHolder


def holder(path: Path, max_bytes: int = 1 << 20) -> WeightsHolder:
    return WeightsHolder(Store(path), lambda tensor: tensor, max_bytes)


def request(name: str, *values: float) -> pb.PutWeightsRequest:
    return pb.PutWeightsRequest(name=name, tensor=codec.from_numpy(np.array(values, np.float32)))


def put(weights: WeightsHolder, name: str, *values: float) -> str:
    kept = weights.keep(request(name, *values))
    weights.adopt(name, kept)
    return kept.digest


def test_weights_outlive_their_holder(tmp_path: Path) -> None:
    digest = put(holder(tmp_path), "a/b.weight", 1.0, 2.0)
    again = holder(tmp_path).get("a/b.weight")
    assert again.digest == digest
    assert again.tensor.tolist() == [1.0, 2.0]


def test_a_worker_that_was_not_told_finds_them(tmp_path: Path) -> None:
    one, other = holder(tmp_path), holder(tmp_path)
    put(one, "w", 1.0)
    with pytest.raises(NotFoundError):
        other.get("w")
    other.refresh()
    assert other.get("w").tensor.tolist() == [1.0]
    put(one, "w", 2.0)
    other.refresh()
    assert other.get("w").tensor.tolist() == [2.0]


def test_equal_tensors_are_held_once_and_unnamed_ones_not_at_all(tmp_path: Path) -> None:
    weights = holder(tmp_path)
    assert put(weights, "a", 1.0) == put(weights, "b", 1.0)
    assert weights.nbytes == 4
    held = weights.get("a")
    put(weights, "a", 2.0)
    put(weights, "b", 2.0)
    assert weights.nbytes == 4
    assert held.tensor.tolist() == [1.0], "a call that has them keeps them"


def test_too_many_bytes_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    weights = holder(tmp_path, max_bytes=8)
    put(weights, "a", 1.0)
    with pytest.raises(ResourceExhaustedError, match="--max-weights-bytes 8"):
        weights.keep(request("b", 2.0, 3.0))
    assert Store(tmp_path).names().keys() == {"a"}


def test_damaged_weights_are_passed_over(tmp_path: Path) -> None:
    digest = put(holder(tmp_path), "a", 1.0)
    put(holder(tmp_path), "b", 2.0)
    (tmp_path / "weights" / digest).write_bytes(b"nonsense")
    weights = holder(tmp_path)
    assert weights.get("b").tensor.tolist() == [2.0]
    with pytest.raises(NotFoundError):
        weights.get("a")
    with pytest.raises(StoreError, match="damaged"):
        weights.load(digest)


def test_what_a_crash_left_is_not_seen(tmp_path: Path) -> None:
    put(holder(tmp_path), "a", 1.0)
    (tmp_path / "names" / ".new-x").write_text("0" * 64)
    (tmp_path / "names" / "half").write_text("0" * 10)
    assert Store(tmp_path).names().keys() == {"a"}


@pytest.mark.parametrize("name", ["", ".a", "/a", "a/../b", "a\n", "a b", "x" * 201, "é"])
def test_names_with_tricks(tmp_path: Path, name: str) -> None:
    assert not name_is_valid(name)
    with pytest.raises(InvalidArgumentError) as caught:
        holder(tmp_path).keep(request(name, 1.0))
    assert caught.value.field == "name"


def test_data_is_checked(tmp_path: Path) -> None:
    wrong = request("a", 1.0)
    wrong.tensor.data = b"123"
    with pytest.raises(InvalidArgumentError) as caught:
        holder(tmp_path).keep(wrong)
    assert caught.value.field == "tensor"
    with pytest.raises(InvalidArgumentError):
        holder(tmp_path).keep(pb.PutWeightsRequest(name="a"))


def test_the_device_gets_its_own_copy(tmp_path: Path) -> None:
    weights = WeightsHolder(Store(tmp_path), lambda tensor: tensor + 0, 1 << 20)
    put(weights, "a", 1.0)
    found = weights.get("a")
    assert torch.equal(found.host, found.tensor)
    assert found.host.data_ptr() != found.tensor.data_ptr()
