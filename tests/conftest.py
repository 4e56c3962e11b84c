"""What all tests share: whether there is a CUDA device, and the word about it."""

from __future__ import annotations

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
        if "gpu" in item.keywords:
            item.add_marker(skip)
