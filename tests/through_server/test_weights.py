"""Named weights: put once, used by name, moved at once, refused when wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import layerwire
from layerwire.errors import InvalidArgumentError, NotFoundError

X = np.arange(6, dtype=np.float32).reshape(2, 3)
W = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_by_name_is_inline(client: layerwire.Client) -> None:
    digest = client.put_weights("classifier.weight", W)
    assert len(digest) == 64 and client.put_weights("other/name", W) == digest
    np.testing.assert_array_equal(client.linear(X, "classifier.weight"), X @ W.T)
    np.testing.assert_array_equal(client.linear(X, "other/name"), X @ W.T)


def test_name_moves_at_once(client: layerwire.Client) -> None:
    client.put_weights("moving", W)
    client.put_weights("moving", W + 1)
    np.testing.assert_array_equal(client.linear(X, "moving"), X @ (W + 1).T)


def test_every_dtype_can_be_put(client: layerwire.Client) -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        client.put_weights(f"w.{dtype}", torch.ones(4, 3, dtype=dtype))
        got = client.linear(torch.ones(1, 3, dtype=dtype), f"w.{dtype}")
        assert got.dtype == dtype and got.tolist() == [[3.0] * 4]


def test_unknown_name_is_not_found(client: layerwire.Client) -> None:
    with pytest.raises(NotFoundError, match="nowhere") as caught:
        client.linear(X, "nowhere")
    assert (caught.value.operator, caught.value.field) == ("linear", "weight")


@pytest.mark.parametrize("name", ["", ".hidden", "/etc/passwd", "a/../b", "a b", "ü", "x" * 201, "a\0b"])
def test_names_with_tricks_are_refused(client: layerwire.Client, name: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.put_weights(name, W)
    assert caught.value.field == "name"


def test_weights_of_a_wrong_shape_are_refused_by_their_field(client: layerwire.Client) -> None:
    client.put_weights("narrow", W[:, :2])
    with pytest.raises(InvalidArgumentError) as caught:
        client.linear(X, "narrow")
    assert caught.value.field == "weight"
