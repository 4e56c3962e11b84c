"""Answers what the Open Inference Protocol asks of models, which are the store's programs: what they are, their calls.

It knows the catalog, statistics and the protocol's messages; nothing of frames, links or devices.
"""

from __future__ import annotations

from layerwire.errors import NotFoundError
from layerwire.inference_v2 import open_inference_pb2
from layerwire.v1 import program_pb2
from layerwire.wire.dtypes import INFERENCE_NAMES
from layerwire_server.link import Family
from layerwire_server.programs.program import Program
from layerwire_server.worker.lanes.lane import Limits
from layerwire_server.worker.model_statistics import ModelCounters
from layerwire_server.worker.other_requests import description
from layerwire_server.worker.other_requests.store import Method
from layerwire_server.worker.request_kinds.infer import (
    DEFAULT_PRIORITY_LEVEL,
    PRIORITY_LEVELS,
    version_of,
)
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.weights_cache import await_loaded

PLATFORM = "layerwire_program"
BACKEND = "layerwire"
_MOST_BYTES = 65536
_SHOWN = 200


class Models:
    """What a worker knows of models.

    Attributes:
        methods: by the family of their frames.

    Args:
        catalog: its programs.
        statistics: of their calls.
        limits: of batches.
    """

    def __init__(self, catalog: Catalog, statistics: ModelCounters, limits: Limits) -> None:
        self._catalog = catalog
        self._statistics = statistics
        self._limits = limits
        pb = open_inference_pb2
        self.methods: dict[Family, Method] = {
            Family.MODEL_READY: Method("model_ready", pb.ModelReadyRequest, _MOST_BYTES, self._ready),
            Family.MODEL_METADATA: Method("model_metadata", pb.ModelMetadataRequest, _MOST_BYTES, self._metadata),
            Family.MODEL_CONFIG: Method("model_config", pb.ModelConfigRequest, _MOST_BYTES, self._config),
            Family.MODEL_STATISTICS: Method(
                "model_statistics", pb.ModelStatisticsRequest, _MOST_BYTES, self._statistics_of
            ),
            Family.REPOSITORY_INDEX: Method("repository_index", pb.RepositoryIndexRequest, _MOST_BYTES, self._index),
        }

    async def _ready(self, request: open_inference_pb2.ModelReadyRequest) -> open_inference_pb2.ModelReadyResponse:
        versions = self._versions(request.name)
        version = version_of(request.version)
        return open_inference_pb2.ModelReadyResponse(ready=version in versions if version else bool(versions))

    async def _metadata(
        self, request: open_inference_pb2.ModelMetadataRequest
    ) -> open_inference_pb2.ModelMetadataResponse:
        program = await self._program(request.name, version_of(request.version))
        return open_inference_pb2.ModelMetadataResponse(
            name=request.name,
            versions=map(str, self._versions(request.name)),
            platform=PLATFORM,
            inputs=map(_metadata_of, program.message.inputs),
            outputs=map(_metadata_of, description.outputs(program.plain)),
        )

    async def _config(self, request: open_inference_pb2.ModelConfigRequest) -> open_inference_pb2.ModelConfigResponse:
        program = await self._program(request.name, version_of(request.version))
        batched = program.variant.batched
        config = open_inference_pb2.ModelConfig(
            name=request.name,
            platform=PLATFORM,
            backend=BACKEND,
            version_policy=open_inference_pb2.ModelVersionPolicy(all=open_inference_pb2.ModelVersionPolicy.All()),
            max_batch_size=self._limits.batch_rows if batched else 0,
        )
        outputs = description.outputs(program.plain)
        for sides, tensors in ((config.input, program.message.inputs), (config.output, outputs)):
            for tensor in tensors:
                sides.add(
                    name=tensor.name,
                    data_type=f"TYPE_{INFERENCE_NAMES[tensor.dtype]}",
                    dims=tensor.shape[1:] if batched else tensor.shape,
                )
        if batched:
            config.dynamic_batching.max_queue_delay_microseconds = int(self._limits.max_delay_seconds * 1e6)
            config.dynamic_batching.priority_levels = PRIORITY_LEVELS
            config.dynamic_batching.default_priority_level = DEFAULT_PRIORITY_LEVEL
        return open_inference_pb2.ModelConfigResponse(config=config)

    async def _statistics_of(
        self, request: open_inference_pb2.ModelStatisticsRequest
    ) -> open_inference_pb2.ModelStatisticsResponse:
        number = version_of(request.version)
        statistics = [
            self._statistics.of(name, version)
            for name in ([request.name] if request.name else self._catalog.names.programs)
            for version in self._versions(name)
            if number in (None, version)
        ]
        if request.name and not statistics:
            raise _unknown(request.name, request.version)
        return open_inference_pb2.ModelStatisticsResponse(model_stats=statistics)

    async def _index(self, _: open_inference_pb2.RepositoryIndexRequest) -> open_inference_pb2.RepositoryIndexResponse:
        index = open_inference_pb2.RepositoryIndexResponse.ModelIndex
        return open_inference_pb2.RepositoryIndexResponse(
            models=[
                index(name=name, version=str(version), state="READY")
                for name in self._catalog.names.programs
                for version in self._versions(name)
            ]
        )

    def _versions(self, name: str) -> list[int]:
        """The numbers of a model's versions; none if there is no such model."""
        program = self._catalog.names.programs.get(name)
        return [] if program is None else list(program.versions)

    async def _program(self, name: str, version: int | None) -> Program:
        if name not in self._catalog.names.programs:
            raise _unknown(name, "")
        return (await await_loaded(lambda: self._catalog.program(name, version)))[1]


def _metadata_of(tensor: program_pb2.ProgramInput) -> open_inference_pb2.ModelMetadataResponse.TensorMetadata:
    return open_inference_pb2.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=INFERENCE_NAMES[tensor.dtype], shape=tensor.shape
    )


def _unknown(name: str, version: str) -> NotFoundError:
    suffix = f" version {version[:_SHOWN]}" if version else ""
    return NotFoundError(f"no model named {name[:_SHOWN]!r}{suffix}", field="name")
