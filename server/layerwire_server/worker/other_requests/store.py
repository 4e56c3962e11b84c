"""Answers the store's RPCs, as far as a worker does them: names, lists, programs, the check of an uploaded file.

It knows the catalog, the store and their messages; nothing of links, frames or lanes.

Changes are made one at a time, and what calls see here has changed before one is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from layerwire.errors import InvalidArgumentError, NotFoundError, invalid
from layerwire.v1 import layerwire_pb2, program_pb2, store_pb2, tensor_pb2
from layerwire.wire import dtypes
from layerwire.wire.dtypes import DTYPES, TensorSpec
from layerwire_server import storage
from layerwire_server.link import SPAN, Family
from layerwire_server.programs.graph import StoredTensor
from layerwire_server.programs.program import Program
from layerwire_server.storage import NamedTensor, StoreError, TensorEntry
from layerwire_server.worker.other_requests import description, kernels
from layerwire_server.worker.tensors import check_data, spec_of
from layerwire_server.worker.trials.choices import Choices
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.weights_cache import await_loaded

MAX_NAMES = 8192
MAX_PAGE = 1000
PUT_KEY = "tensor"  # under which PutWeights keeps its one tensor; the SDK's larger ones too, so that digests agree
_SMALL_BYTES = 512 * 1024
_LARGE_BYTES = 8 * 1024**2  # 8192 names or constants with their digests and keys, or 4096 nodes; 0.2 GB when parsed


class Method(NamedTuple):
    """An RPC: its name in errors, its request, how large that may be beside tensors' data, and what does it."""

    name: str
    request: type[Any]
    most_bytes: int
    do: Callable[[Any], Awaitable[Any]]


class StoreRequests:
    """What a worker does for the store.

    Attributes:
        methods: by the family of their frames.

    Args:
        catalog: what the worker has of the store.
        device_type: what programs run on.
        choices: of kernels; None where there are none to choose from.
    """

    def __init__(self, catalog: Catalog, device_type: str, choices: Choices | None) -> None:
        self._choices = choices
        self._catalog = catalog
        self._store = catalog.store
        self._device_type = device_type
        self._change_lock = asyncio.Lock()
        self._refresh_lock = asyncio.Lock()
        small, large = _SMALL_BYTES, _LARGE_BYTES
        self.methods: dict[Family, Method] = {
            Family.PUT_WEIGHTS: Method("put_weights", layerwire_pb2.PutWeightsRequest, small, self._put_weights),
            Family.CHECK_UPLOAD: Method("upload", store_pb2.UploadHeader, small, self._check_upload),
            Family.NAME_WEIGHTS: Method("name_weights", store_pb2.NameWeightsRequest, large, self._name_weights),
            Family.LIST_WEIGHTS: Method("list_weights", store_pb2.ListWeightsRequest, small, self._list_weights),
            Family.FIND_WEIGHTS: Method("get_weights", store_pb2.GetWeightsRequest, small, self._find_weights),
            Family.DELETE_WEIGHTS: Method(
                "delete_weights", store_pb2.DeleteWeightsRequest, large, self._delete_weights
            ),
            Family.PUT_PROGRAM: Method("put_program", store_pb2.PutProgramRequest, large, self._put_program),
            Family.LIST_PROGRAMS: Method("list_programs", store_pb2.ListProgramsRequest, small, self._list_programs),
            Family.GET_PROGRAM: Method("get_program", store_pb2.GetProgramRequest, small, self._get_program),
            Family.SET_DEFAULT_VERSION: Method(
                "set_default_version", store_pb2.SetDefaultVersionRequest, small, self._set_default_version
            ),
            Family.DELETE_PROGRAM: Method(
                "delete_program", store_pb2.DeleteProgramRequest, small, self._delete_program
            ),
            Family.LIST_KERNELS: Method("list_kernels", store_pb2.ListKernelsRequest, small, self._list_kernels),
        }

    @property
    def is_refreshing(self) -> bool:
        """Whether `refresh` is at work."""
        return self._refresh_lock.locked()

    async def refresh(self) -> None:
        """Lets calls see what the store's names say now."""
        async with self._refresh_lock:  # else an older look at the names could be adopted after a newer one
            await self._catalog.refresh()

    async def sweep(self) -> None:
        """Deletes what nothing in the store points to any more, if it may."""
        if not self._store.read_only:
            await asyncio.to_thread(self._store.sweep)

    async def _change(self, change: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        async with self._change_lock:
            result = await asyncio.to_thread(change, *args, **kwargs)
            await self.refresh()
        return result

    # weights

    async def _put_weights(self, request: layerwire_pb2.PutWeightsRequest) -> layerwire_pb2.PutWeightsResponse:
        storage.check_name(request.name)
        if request.tensor.WhichOneof("content") != "data":
            raise invalid("put_weights", "tensor", "must bring its data")
        spec = spec_of(request.tensor, "put_weights", "tensor")
        data = request.tensor.data
        check_data(data, spec, "put_weights", "tensor")
        digest = await self._change(self._put_one, request.name, spec, data)
        return layerwire_pb2.PutWeightsResponse(name=request.name, digest=digest)

    def _put_one(self, name: str, spec: TensorSpec, data: bytes) -> str:
        contents = {PUT_KEY: (dtypes.DTYPE_NAMES[spec.dtype], spec.shape, data)}
        digest = self._store.put_weights(storage.write_safetensors(contents))
        self._store.name_weights({name: NamedTensor(digest, PUT_KEY)})
        return digest

    async def _check_upload(self, header: store_pb2.UploadHeader) -> store_pb2.UploadResponse:
        entries = await asyncio.to_thread(self._read_upload, header)
        tensors = [
            store_pb2.StoredTensorInfo(key=key, dtype=_dtype(entry), shape=entry.shape)
            for key, entry in entries.items()
        ]
        return store_pb2.UploadResponse(digest=header.digest, tensors=tensors)

    def _read_upload(self, header: store_pb2.UploadHeader) -> Mapping[str, TensorEntry]:
        try:
            with storage.part_of(self._store, header.digest).open("rb") as file:
                return storage.read_header(file)
        except FileNotFoundError:
            raise NotFoundError(f"upload: there is no part of {header.digest}", operator="upload") from None

    async def _name_weights(self, request: store_pb2.NameWeightsRequest) -> store_pb2.NameWeightsResponse:
        _check_count("name_weights", "weights", len(request.weights))
        tensors = {
            storage.check_name(entry.name): NamedTensor(entry.tensor.digest, entry.tensor.key, entry.pinned)
            for entry in request.weights
        }
        if len(tensors) < len(request.weights):
            raise invalid("name_weights", "weights", "must have each name once")
        await self._change(self._name_all, tensors)
        return store_pb2.NameWeightsResponse()

    def _name_all(self, tensors: Mapping[str, NamedTensor]) -> None:
        for tensor in tensors.values():
            self._catalog.stored_tensors.spec(StoredTensor(tensor.digest, tensor.key))  # raises where there is none
        self._store.name_weights(tensors)

    async def _list_weights(self, request: store_pb2.ListWeightsRequest) -> store_pb2.ListWeightsResponse:
        tensors, next_page_token = _page(self._catalog.names.weights, request, "list_weights")
        infos = await asyncio.to_thread(lambda: [self._weights_info(name, tensor) for name, tensor in tensors])
        return store_pb2.ListWeightsResponse(weights=infos, next_page_token=next_page_token)

    def _weights_info(self, name: str, tensor: NamedTensor) -> store_pb2.WeightsInfo:
        """All that is known; without dtype if the file is gone or damaged, so that a list still shows the rest."""
        try:
            entry = self._catalog.stored_tensors.header(tensor.digest).get(tensor.key)
        except StoreError:
            entry = None
        place = program_pb2.StoredTensor(digest=tensor.digest, key=tensor.key)
        info = store_pb2.WeightsInfo(name=name, tensor=place, pinned=tensor.pinned)
        if entry is not None:
            info.dtype = _dtype(entry)
            info.shape.extend(entry.shape)
        return info

    async def _find_weights(self, request: store_pb2.GetWeightsRequest) -> store_pb2.GetWeightsResponse:
        tensor = self._catalog.names.weights.get(storage.check_name(request.name))
        if tensor is None:
            raise NotFoundError(f"get_weights: no weights named {request.name!r}", field="name")
        header = await asyncio.to_thread(self._catalog.stored_tensors.header, tensor.digest)
        entry = header.get(tensor.key)
        if entry is None:
            raise NotFoundError(f"get_weights: {request.name!r} points to a tensor that isn't there", field="name")
        info = self._weights_info(request.name, tensor)
        return store_pb2.GetWeightsResponse(info=info, data=SPAN.pack(entry.begin, entry.end))

    async def _delete_weights(self, request: store_pb2.DeleteWeightsRequest) -> store_pb2.DeleteWeightsResponse:
        _check_count("delete_weights", "names", len(request.names))
        await self._change(self._store.delete_weights, list(request.names))
        return store_pb2.DeleteWeightsResponse()

    # programs

    async def _put_program(self, request: store_pb2.PutProgramRequest) -> store_pb2.PutProgramResponse:
        storage.check_name(request.name)
        self._store.check_writable()
        program = await self._load(lambda: self._catalog.definition(request.program))
        number, version = await self._change(
            self._store.put_program,
            request.name,
            program.message.SerializeToString(deterministic=True),
            {recipe.digest for _, recipe in program.graph.constants if isinstance(recipe, StoredTensor)},
            version=_version(request),
            keep_default_version=request.keep_default_version,
            pinned=request.pinned,
        )
        return store_pb2.PutProgramResponse(name=request.name, version=number, digest=version.digest)

    async def _list_programs(self, request: store_pb2.ListProgramsRequest) -> store_pb2.ListProgramsResponse:
        entries, next_page_token = _page(self._catalog.names.programs, request, "list_programs")
        programs = [
            store_pb2.ProgramInfo(
                name=name,
                default_version=program.default_version,
                versions=[
                    store_pb2.ProgramVersion(
                        version=number, digest=version.digest, put_seconds=version.put_seconds, pinned=version.pinned
                    )
                    for number, version in program.versions.items()
                ],
            )
            for name, program in entries
        ]
        return store_pb2.ListProgramsResponse(programs=programs, next_page_token=next_page_token)

    async def _get_program(self, request: store_pb2.GetProgramRequest) -> store_pb2.GetProgramResponse:
        number, program = await await_loaded(lambda: self._catalog.program(request.name, _version(request)))
        response = await asyncio.to_thread(description.describe, program, self._device_type)
        response.name, response.version = request.name, number
        if self._choices is not None:
            response.kernels.extend(kernels.of_program(self._choices.all, program.digest))
        return response

    async def _set_default_version(
        self, request: store_pb2.SetDefaultVersionRequest
    ) -> store_pb2.SetDefaultVersionResponse:
        await self._load(lambda: self._catalog.program(request.name, request.version)[1])
        await self._change(self._store.set_default_version, request.name, request.version)
        return store_pb2.SetDefaultVersionResponse()

    async def _delete_program(self, request: store_pb2.DeleteProgramRequest) -> store_pb2.DeleteProgramResponse:
        await self._change(self._store.delete_program, request.name, _version(request))
        return store_pb2.DeleteProgramResponse()

    async def _list_kernels(self, request: store_pb2.ListKernelsRequest) -> store_pb2.ListKernelsResponse:
        if self._choices is None:
            return store_pb2.ListKernelsResponse()
        choices = await asyncio.to_thread(lambda choices: kernels.by_name(choices.all), self._choices)
        page, next_page_token = _page(choices, request, "list_kernels")
        return store_pb2.ListKernelsResponse(
            kernels=[choice for _, choice in page],
            next_page_token=next_page_token,
            environment=self._choices.environment,
        )

    async def _load(self, find: Callable[[], Program]) -> Program:
        """The program, once it and its weights are in memory: what can't be loaded is refused before names change."""

        def load() -> Program:
            program = find()
            self._catalog.weights_cache.program_weights(program.digest, program.variant)
            return program

        return await await_loaded(load)


def _page(entries: Mapping[str, Any], request: Any, method: str) -> tuple[list[tuple[str, Any]], str]:
    if request.page_size > MAX_PAGE:
        raise invalid(method, "page_size", f"must be at most {MAX_PAGE}, got {request.page_size}")
    return storage.page(entries, request.prefix, request.page_token, request.page_size or MAX_PAGE)


def _check_count(method: str, field: str, count: int) -> None:
    if not 1 <= count <= MAX_NAMES:
        raise InvalidArgumentError(f"{method}: {field} must be 1 to {MAX_NAMES}, got {count}", field=field)


def _version(request: Any) -> int | None:
    return request.version if request.HasField("version") else None


def _dtype(entry: TensorEntry) -> tensor_pb2.DataType:
    return tensor_pb2.DataType.Name(DTYPES[entry.dtype])  # type: ignore[return-value]  # messages take names too
