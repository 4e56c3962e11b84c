"""A gateway in this process, with fake workers behind it and a real channel before it."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from layerwire.v1 import layerwire_pb2_grpc
from layerwire_server.child.child import Child
from layerwire_server.config import load
from layerwire_server.gateway.router import Router
from layerwire_server.gateway.service import Gateway
from layerwire_server.metrics import Metrics
from tests.gateway.fake_worker import FakeWorker

MIB = 1024**2


class RecordingChild(Child):
    """A child without a supervisor; what it tells is kept."""

    def __init__(self, start):
        super().__init__(start)
        self.told = []

    def tell(self, kind, **values):
        self.told.append((kind, values))


class Rig:
    """A running gateway and what surrounds it."""

    def __init__(self, directory, workers, flags):
        told = {"listen": "127.0.0.1:0", "store": str(directory / "store"), "canary_interval_seconds": "0.1"}
        settings = load({**told, "lame_duck_seconds": "0", **flags})
        self.child = RecordingChild(
            {
                "role": "gateway",
                "index": 0,
                "device": "",
                "workers": workers,
                "settings": settings.to_json(),
                "runtime_directory": str(directory),
            }
        )
        self.workers = [FakeWorker(self.child.worker_path(index)) for index in range(workers)]
        self.gateway = Gateway(self.child)

    async def start(self, start_workers):
        port = await self.gateway.start()
        self.keeping = asyncio.create_task(self.gateway.keep())
        self.channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        )
        self.address = f"127.0.0.1:{port}"
        self.stub = layerwire_pb2_grpc.LayerwireServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        if start_workers:
            for worker in self.workers:
                await worker.start()
            await self.serving("", True)
            for index in range(len(self.workers)):
                await self.serving(f"worker/{index}", True)

    async def serving(self, service, state):
        """Returns when a service's health is this."""
        wanted = health_pb2.HealthCheckResponse.SERVING if state else health_pb2.HealthCheckResponse.NOT_SERVING
        watch = self.health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=10)
        async for told in watch:
            if told.status == wanted:
                watch.cancel()
                return

    def counted(self, name, **labels):
        return self.child.metrics.counter(name, **labels).value

    async def close(self):
        await self.channel.close()
        await self.gateway.stop()
        self.keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.keeping
        for worker in self.workers:
            if worker._server is not None:
                await worker.die()


@pytest_asyncio.fixture
async def rig(tmp_path):
    """Makes rigs: `await rig(workers=2, max_message_bytes="1MiB")`."""
    made = []

    async def make(workers=1, start_workers=True, **flags):
        found = Rig(tmp_path, workers, flags)
        made.append(found)
        await found.start(start_workers)
        return found

    yield make
    for found in made:
        await found.close()


@pytest.fixture
def mib():
    return MIB


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def router(metrics):
    return Router(10.0, metrics)
