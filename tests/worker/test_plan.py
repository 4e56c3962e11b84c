"""Plans and lanes of calls: what may share a batch and what may not, and what a call may cost."""

from __future__ import annotations

import pytest

from layerwire.errors import InvalidArgumentError
from layerwire_server.operators.operator import Merge
from layerwire_server.worker.plan import CallLimits, Plans
from layerwire_server.worker.request_kinds import KINDS
from tests.operator_cases import Case, T
from tests.operators.local import Local, message_of, request_of

X = T((2, 3, 8, 8))


@pytest.fixture
def local() -> Local:
    return Local()


def test_equal_meaning_is_one_lane(local: Local) -> None:
    calls = [
        local.decode(Case("", "max_pool2d", (T(shape), size), {"stride": stride}))
        for shape, size, stride in [
            ((2, 3, 8, 8), 2, None),
            ((1, 5, 8, 8), [2, 2], 2),
            ((4, 8, 8), (2, 2), (2, 2)),
        ]
    ]
    assert len({call.key for call in calls}) == 1
    assert [call.rows for call in calls] == [6, 5, 4]


def test_other_parameters_dtypes_and_shapes_are_other_lanes(local: Local) -> None:
    calls = [
        local.decode(Case("", "max_pool2d", (T(shape, dtype), size), {"ceil_mode": ceil}))
        for shape, dtype, size, ceil in [
            ((2, 3, 8, 8), "float32", 2, False),
            ((2, 3, 8, 8), "float32", 3, False),
            ((2, 3, 8, 8), "float32", 2, True),
            ((2, 3, 8, 8), "float64", 2, False),
            ((2, 3, 8, 9), "float32", 2, False),
        ]
    ]
    assert len({call.key for call in calls}) == 5


def test_elementwise_calls_of_any_shape_share_a_lane(local: Local) -> None:
    calls = [local.decode(Case("", "relu", (T(shape),))) for shape in [(3,), (2, 5), (1, 1, 64), (65,), (0, 4)]]
    assert len({call.key for call in calls}) == 1
    assert [call.rows for call in calls] == [1, 1, 1, 2, 0]


def test_equal_inline_weights_share_a_lane_and_others_do_not(local: Local) -> None:
    one, same, other = (T((4, 3, 3, 3), seed=seed) for seed in (1, 1, 2))
    keys = [local.decode(Case("", "conv2d", (X, weight))).key for weight in (one, same, other)]
    assert keys[0] is keys[1] and keys[0] is not keys[2]


def test_equal_bytes_of_another_shape_are_other_weights(local: Local) -> None:
    zeros = [T(values=[[[[0.0] * b] * a] * 3] * 4) for a, b in ((2, 3), (3, 2))]
    keys = [local.decode(Case("", "conv2d", (X, weight))).key for weight in zeros]
    assert keys[0] is not keys[1]


def test_batch_statistics_are_never_shared(local: Local) -> None:
    calls = [local.decode(Case("", "batch_norm", (X, None, None), {"training": True})) for _ in range(2)]
    assert all(call.key.merge is Merge.ALONE for call in calls)


@pytest.mark.parametrize(
    ("limits", "words"),
    [(CallLimits(100, 1e9), "--max-output-bytes"), (CallLimits(1 << 20, 10.0), "--max-call-operations")],
    ids=["bytes", "operations"],
)
def test_calls_over_a_limit_are_refused_by_its_flag(local: Local, limits: CallLimits, words: str) -> None:
    local.decoder._plans = Plans(limits, "cpu")
    with pytest.raises(InvalidArgumentError, match=words):
        local.decode(Case("", "conv2d", (X, T((4, 3, 3, 3)))))


def test_small_request_for_huge_work_is_refused_before_it_is_tried(local: Local) -> None:
    with pytest.raises(InvalidArgumentError, match="--max-output-bytes"):
        local.decode(Case("", "adaptive_avg_pool1d", (T((1, 1, 1)), 10**9)))


def test_tensor_that_is_not_taken_is_refused(local: Local) -> None:
    message = message_of(request_of(Case("", "relu", (X,)))).activate
    message.weight.CopyFrom(message.input)
    with pytest.raises(InvalidArgumentError, match="relu: weight is not taken"):
        local.decoder.decode(KINDS["activate"], message, 0.0, 0.0)


@pytest.mark.parametrize("field", ["operator", "options"])
def test_unknown_fields_are_not_kept(local: Local, field: str) -> None:
    """Plans are looked up by encoded parameters, and a million bytes of unknown fields must not become a key."""
    message = message_of(request_of(Case("", "relu", (X,)))).activate
    padding = b"\xfa\x3f" + b"\x80\x80\x40" + bytes(1 << 20)  # field 1023, a megabyte
    getattr(message, field).MergeFromString(padding)
    with pytest.raises(InvalidArgumentError, match=f"{field}: must be at most 4096 bytes"):
        local.decoder.decode(KINDS["activate"], message, 0.0, float("inf"))
