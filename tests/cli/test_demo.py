"""The demo as a user runs it, and its parts where they can go wrong."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from matplotlib.image import imread

from layerwire.demo import callers, command, digits, photograph, server


def row(output: str, name: str) -> list[float]:
    """The numbers of a row of the table: layer by layer, deployed."""
    number = r"([\d.,e+-]+)"
    match = re.search(rf"^\s*{re.escape(name)}\s+{number}\D+{number}", output, flags=re.MULTILINE)
    assert match, output
    return [float(value.replace(",", "")) for value in match.groups()]


def check(shown: str, output: Path) -> None:
    """What the demo shows holds together, and its picture has something in it."""
    local = re.search(r"accuracy of local torch: ([\d.]+)%", shown)
    assert local, shown
    assert row(shown, "accuracy") == [float(local[1])] * 2
    assert float(local[1]) > 95
    assert max(row(shown, "largest difference")) < 1e-3
    assert row(shown, "calls") == [digits.HELD_OUT * 11, digits.HELD_OUT]
    assert min(row(shown, "digits/s")) > 0
    assert all(1 <= calls <= command.CALLERS for calls in row(shown, "mean calls per batch"))
    assert all(0 < p50 <= p99 for p50, p99 in zip(row(shown, "latency p50"), row(shown, "latency p99"), strict=True))
    picture = imread(output / command.PICTURE)
    assert min(picture.shape[:2]) > 800
    assert picture[..., :3].std() > 0.1


def test_demo_and_the_load_test_that_it_tells_of(tmp_path, cli):
    words = [sys.executable, "-m", "layerwire.cli", "demo", "--keep", "--output", str(tmp_path)]
    errors = tmp_path / "stderr"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True, stdin=subprocess.DEVNULL) as demo,
    ):
        assert demo.stdout is not None
        shown = list(until("layerwire bench", demo.stdout))
        assert "layerwire bench" in shown[-1], errors.read_text()
        page = tmp_path / "bench.html"
        quick = ["--html", str(page), "--concurrency", "4", "--window", "100ms", "--warmup", "100ms"]
        words = [sys.executable, "-m", "layerwire.cli", *shown[-1].split()[1:], *quick]
        bench = subprocess.run(words, capture_output=True, text=True, check=False)
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()
    assert bench.returncode == 0, bench.stderr
    assert "<svg" in page.read_text()
    assert (demo.returncode, rest.strip(), errors.read_text()) == (0, "Done.", "")
    check("".join(shown), tmp_path)
    address = re.search(r"127\.0\.0\.1:\d+", "".join(shown))
    assert address
    assert cli("health", address[0]).exit_code == 2


def until(words: str, lines: Iterable[str]) -> Iterator[str]:
    """The lines up to the one with these words, or to the end."""
    for line in lines:
        yield line
        if words in line:
            return


def test_a_demo_ends_its_server(tmp_path, cli, monkeypatch):
    addresses: list[str] = []
    monkeypatch.setattr(command, "_run", lambda _console, address, _output: addresses.append(address))
    shown = cli("demo", "--output", tmp_path)
    assert (shown.exit_code, shown.stdout.splitlines()[-1]) == (0, "Done.")
    assert cli("health", addresses[0]).exit_code == 2


def test_server_that_cannot_start(tmp_path):
    with pytest.raises(server.ServerError, match="No such option"), server.serve(tmp_path / "log", "--nonsense"):
        pytest.fail("it started")


def test_server_is_stopped_when_its_user_fails(tmp_path, cli):
    def use() -> None:
        with server.serve(tmp_path / "log", "--device", "cpu") as (address, _):
            addresses.append(address)
            raise KeyError("a mistake")

    addresses: list[str] = []
    with pytest.raises(KeyError):
        use()
    assert cli("health", addresses[0]).exit_code == 2


@pytest.mark.parametrize("missing", command.NEEDS)
def test_demo_says_what_to_install(cli, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    result = cli("demo")
    assert result.exit_code == 2
    assert "pip install 'layerwire[demo]'" in result.stderr


def test_an_output_that_cannot_be_made_is_one_sentence(cli, tmp_path):
    (tmp_path / "file").touch()
    result = cli("demo", "--output", tmp_path / "file" / "x")
    assert result.exit_code == 2
    message = f"Error: Invalid value for '--output': {tmp_path}/file/x can't be written: Not a directory"
    assert result.stderr.splitlines()[-1] == message


def test_an_address_that_is_none_is_one_sentence(cli):
    result = cli("demo", "--address", "localhost")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == 'Error: address must be "host:port", got "localhost"'


def test_a_server_that_is_not_there_is_one_sentence(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "WAIT_SECONDS", 2.0)
    result = cli("demo", "--address", "127.0.0.1:1", "--output", tmp_path)
    assert result.exit_code == 1
    reason = "127.0.0.1:1: connection refused; is a server running there?"
    assert result.stderr == f"Error: not ready within 2 s: {reason} (deadline exceeded)\n"


def test_photograph_runs_alike_here_and_there(address):
    import layerwire

    pixels, filters = photograph.load()[:, :64, :96], photograph.kernels()
    weight = torch.stack(list(filters.values()))
    with layerwire.Client(address) as client:
        remote = photograph.stages(client, pixels, weight)
    local = photograph.stages(F, pixels, weight)
    assert [stage.title for stage in remote] == [stage.title for stage in local]
    assert photograph.difference(remote, local) < 1e-5
    unpooled = local[-1].values
    assert torch.equal(unpooled[unpooled != 0], local[2].values[unpooled != 0])


def test_difference_sees_one_wrong_element():
    stage = photograph.Stage("", torch.zeros(1, 2, 2))
    other = photograph.Stage("", torch.tensor([[[0.0, 0.0], [0.0, -0.5]]]))
    assert photograph.difference([stage], [other]) == 0.5


def test_measured_quantiles():
    measured = callers.Measurement([0.4, 0.1, 0.5, 0.3, 0.2])
    assert [measured.quantile_seconds(part) for part in (0, 0.5, 0.99, 1)] == [0.1, 0.3, 0.5, 0.5]


def test_accuracy():
    logits = torch.eye(10)[torch.tensor([3, 1, 4, 1])]
    assert digits.accuracy(logits, torch.tensor([3, 1, 4, 5])) == 0.75
