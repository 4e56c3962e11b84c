"""A worker for each module of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.programs.local import Worker


@pytest.fixture(scope="module")
def worker(tmp_path_factory) -> Iterator[Worker]:
    instance = Worker(tmp_path_factory.mktemp("store"))
    yield instance
    instance.close()
