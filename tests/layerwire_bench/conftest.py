"""One server with programs in its store for all tests here that ask for `served`."""

from tests.inference.conftest import no_worker_dies, served

__all__ = ["no_worker_dies", "served"]
