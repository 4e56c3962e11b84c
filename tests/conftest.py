"""What all tests share: whether there is a CUDA device, and the word about it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

CUDA = torch.cuda.is_available()


def pytest_report_header() -> str:
    return f"cuda: {torch.cuda.get_device_name()}" if CUDA else "cuda: no device, tests marked gpu are skipped"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CUDA:
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def threads_stay() -> Iterator[None]:
    """What runs in this process may set torch's threads; a lone plane's mean depends on their number."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
