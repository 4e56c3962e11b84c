"""An empty store for each test."""

import pytest

from layerwire_server.storage import Store


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(directory):
    return Store(directory)
