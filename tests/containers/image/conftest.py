"""The image's targets, built once for all tests."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.containers.image import images, pip_conf
from tests.containers.image.base_image import base_name, make_base
from tests.containers.image.container import VOLUME
from tests.containers.image.images import ROOT, Image
from tests.containers.image.podman import CACHE, podman


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The storage with the base image in it, for one process at a time, and without what a killed one has left."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock, pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1", prepend=",")  # containers are called there
        fcntl.flock(lock, fcntl.LOCK_EX)
        podman("rm", "--all", "--force", "--time=0")
        podman("volume", "rm", "--all", "--force")
        make_base(base_name(ROOT / images.DOCKERFILE), tmp_path_factory.mktemp("base"))
        yield
        podman("rm", "--all", "--force", "--time=0")
        podman("volume", "rm", "--force", VOLUME)


@pytest.fixture(scope="session")
def pip_options(storage: None, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return pip_conf.options(tmp_path_factory.mktemp("pip"))


@pytest.fixture(scope="session")
def cpu(pip_options: Sequence[str]) -> Image:
    """The target for the CPU."""
    return images.build(ROOT, "cpu", pip_options)


@pytest.fixture(scope="session")
def files(cpu: Image) -> Iterator[Path]:
    """The image's files, as a container of it sees them."""
    yield Path(podman("image", "mount", cpu.name))
    podman("image", "unmount", cpu.name)
