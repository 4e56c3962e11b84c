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
from layerwire_server.child.control import DeathCause
from layerwire_server.config import load
from layerwire_server.gateway.router import Router
from layerwire_server.gateway.service import Gateway
from layerwire_server.metrics import Metrics
from tests.gateway.fake_worker import FakeWorker

MIB = 1024**2


class RecordingChild(Child):
    """A child without a supervisor; what it says is kept."""

    def __init__(self, start):
        super().__init__(start)
        self.messages = []

    def tell(self, kind, **values):
        self.messages.append((kind, values))


class Rig:
    """A running gateway and what surrounds it."""

    def __init__(self, directory, workers, flags):
        defaults = {"listen": "127.0.0.1:0", "store": str(directory / "store"), "canary_interval_seconds": "0.1"}
        settings = load({**defaults, "lame_duck_seconds": "0", **flags})
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

    async def start(self, start_workers, credentials=None):
        port = await self.gateway.start()
        self.keep_task = asyncio.create_task(self.gateway.keep())
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = (
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
            if credentials is None
            else grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)
        )
        self.address = f"127.0.0.1:{port}"
        self.stub = layerwire_pb2_grpc.LayerwireServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        if start_workers:
            for worker in self.workers:
                await worker.start()
            await self.wait_for_health("", True)
            for index in range(len(self.workers)):
                await self.wait_for_health(f"worker/{index}", True)

    async def wait_for_health(self, service, state):
        """Returns when a service's health is this."""
        goal = health_pb2.HealthCheckResponse.SERVING if state else health_pb2.HealthCheckResponse.NOT_SERVING
        watch = self.health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=300)
        async for answer in watch:
            if answer.status == goal:
                watch.cancel()
                return

    async def kill(self, index):
        """A worker dies of a fault of its own, and the supervisor says so."""
        await self.workers[index].die()
        self.child.on_worker_death(index, DeathCause.FAULT)

    def count(self, name, **labels):
        return self.child.metrics.counter(name, **labels).value

    async def close(self):
        await self.channel.close()
        await self.gateway.stop()
        self.keep_task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.keep_task
        for worker in self.workers:
            if worker._server is not None:
                await worker.die()


@pytest_asyncio.fixture
async def rig(tmp_path):
    """Makes rigs: `await rig(workers=2, max_message_bytes="1MiB")`."""
    rigs = []

    async def make(workers=1, start_workers=True, credentials=None, **flags):
        rig = Rig(tmp_path, workers, flags)
        rigs.append(rig)
        await rig.start(start_workers, credentials)
        return rig

    yield make
    for rig in rigs:
        await rig.close()


@pytest.fixture
def mib():
    return MIB


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def router(metrics):
    return Router(10.0, metrics)
