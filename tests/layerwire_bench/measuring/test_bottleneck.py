"""What the load tester itself used, and when it says that it is the bottleneck."""

import pytest

from layerwire_bench.measuring import bottleneck
from layerwire_bench.measuring.bottleneck import Ticks, Usage
from layerwire_bench.result import Latency

LATENCY = Latency(0.01, 0, 0, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01)
LATE = Latency(0.005, 0, 0, 0.005, 0.005, 0.005, 0.005, 0.005, 0.005)
VERDICTS = {
    "with time to spare": (0.5, 0.6, None, None),
    "a full event loop": (0.97, 0.6, None, "--processes 2"),
    "a full event loop on a full machine": (0.97, 1.0, None, "run the client on another"),
    "a full machine": (0.5, 0.99, None, "all cores of this machine were in use"),
    "calls sent late": (0.5, 0.6, LATE, "sent calls late"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_the_client_says_when_it_is_the_bottleneck(name):
    loop, machine, late, words = VERDICTS[name]
    usages = [Usage(0, loop, loop / 2, (0.001,)), Usage(0, loop, loop * 1.5, (0.003,))]  # two windows of a second
    found = bottleneck.client(usages, 2.0, 100, machine, late, LATENCY)
    assert (found.bottleneck is None) == (words is None)
    assert words is None or words in found.bottleneck
    assert found.busiest_cpu_ratio == pytest.approx(loop)
    assert found.cpu_seconds_per_call == pytest.approx(loop * 2 / 100)


def test_the_machine_is_as_busy_as_its_cores():
    assert bottleneck.busy_ratio(Ticks(100, 1000), Ticks(190, 1100)) == 0.9
    assert bottleneck.busy_ratio(None, Ticks(1, 2)) is None
    assert bottleneck.busy_ratio(Ticks(1, 2), Ticks(1, 2)) is None
