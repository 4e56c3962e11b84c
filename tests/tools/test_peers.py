"""The functions that peers serve: joined as alone, and as the answers that theirs are compared with."""

import numpy as np
import pytest
from tools.benchmarks.peers import launch
from tools.benchmarks.peers.functions import FUNCTIONS, answers

from layerwire_bench.answers.difference import difference

DTYPES = {"FP32": np.float32, "INT64": np.int64}
SMALL = [name for name in FUNCTIONS if not name.startswith("large")]


@pytest.mark.parametrize("name", SMALL)
def test_joined_calls_are_answered_as_alone(name):
    function = FUNCTIONS[name]
    random = np.random.default_rng(0)
    payloads = [random.normal(size=(rows, *function.shape)).astype(np.float32).tobytes() for rows in (1, 3, 2)]
    for joint, payload, rows in zip(answers(name, payloads), payloads, (1, 3, 2), strict=True):
        (alone,) = answers(name, [payload])
        for index, (mine, other) in enumerate(zip(_arrays(name, joint, rows), _arrays(name, alone, rows), strict=True)):
            assert difference({"y": other}, {"y": mine}, 1e-4, 1e-4) is None, index


def _arrays(name, payload, rows):
    start = 0
    for dtype, shape in FUNCTIONS[name].outputs:
        count = rows * int(np.prod(shape))
        array = np.frombuffer(payload, DTYPES[dtype], count, start)
        start += array.nbytes
        yield array
    assert start == len(payload)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_triton_is_told_each_function(name):
    text = launch._config(name)
    assert f'name: "{name}"' in text
    assert text.count("data_type") == 1 + len(FUNCTIONS[name].outputs)


def test_without_an_environment_no_peer_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "PYTHON", tmp_path / "python")
    assert launch.versions() == {}
