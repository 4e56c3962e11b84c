from layerwire.v1 import program_pb2 as _program_pb2
from layerwire.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetUploadRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class GetUploadResponse(_message.Message):
    __slots__ = ("complete", "received_bytes")
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    complete: bool
    received_bytes: int
    def __init__(self, complete: bool = ..., received_bytes: _Optional[int] = ...) -> None: ...

class UploadRequest(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("digest", "size", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: str
    size: int
    offset: int
    def __init__(self, digest: _Optional[str] = ..., size: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class UploadResponse(_message.Message):
    __slots__ = ("digest", "tensors")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    digest: str
    tensors: _containers.RepeatedCompositeFieldContainer[StoredTensorInfo]
    def __init__(self, digest: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[StoredTensorInfo, _Mapping]]] = ...) -> None: ...

class StoredTensorInfo(_message.Message):
    __slots__ = ("key", "dtype", "shape")
    KEY_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    key: str
    dtype: _tensor_pb2.DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, key: _Optional[str] = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class NameWeightsRequest(_message.Message):
    __slots__ = ("weights",)
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    weights: _containers.RepeatedCompositeFieldContainer[NamedWeights]
    def __init__(self, weights: _Optional[_Iterable[_Union[NamedWeights, _Mapping]]] = ...) -> None: ...

class NamedWeights(_message.Message):
    __slots__ = ("name", "tensor", "pinned")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    name: str
    tensor: _program_pb2.StoredTensor
    pinned: bool
    def __init__(self, name: _Optional[str] = ..., tensor: _Optional[_Union[_program_pb2.StoredTensor, _Mapping]] = ..., pinned: bool = ...) -> None: ...

class NameWeightsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListWeightsRequest(_message.Message):
    __slots__ = ("prefix", "page_size", "page_token")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    page_size: int
    page_token: str
    def __init__(self, prefix: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListWeightsResponse(_message.Message):
    __slots__ = ("weights", "next_page_token")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    weights: _containers.RepeatedCompositeFieldContainer[WeightsInfo]
    next_page_token: str
    def __init__(self, weights: _Optional[_Iterable[_Union[WeightsInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WeightsInfo(_message.Message):
    __slots__ = ("name", "tensor", "dtype", "shape", "pinned")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    name: str
    tensor: _program_pb2.StoredTensor
    dtype: _tensor_pb2.DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    pinned: bool
    def __init__(self, name: _Optional[str] = ..., tensor: _Optional[_Union[_program_pb2.StoredTensor, _Mapping]] = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., pinned: bool = ...) -> None: ...

class GetWeightsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetWeightsResponse(_message.Message):
    __slots__ = ("info", "data")
    INFO_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    info: WeightsInfo
    data: bytes
    def __init__(self, info: _Optional[_Union[WeightsInfo, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class DeleteWeightsRequest(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteWeightsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PutProgramRequest(_message.Message):
    __slots__ = ("name", "program", "version", "keep_default_version", "pinned")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KEEP_DEFAULT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    name: str
    program: _program_pb2.Program
    version: int
    keep_default_version: bool
    pinned: bool
    def __init__(self, name: _Optional[str] = ..., program: _Optional[_Union[_program_pb2.Program, _Mapping]] = ..., version: _Optional[int] = ..., keep_default_version: bool = ..., pinned: bool = ...) -> None: ...

class PutProgramResponse(_message.Message):
    __slots__ = ("name", "version", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    digest: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class ListProgramsRequest(_message.Message):
    __slots__ = ("prefix", "page_size", "page_token")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    page_size: int
    page_token: str
    def __init__(self, prefix: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListProgramsResponse(_message.Message):
    __slots__ = ("programs", "next_page_token")
    PROGRAMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    programs: _containers.RepeatedCompositeFieldContainer[ProgramInfo]
    next_page_token: str
    def __init__(self, programs: _Optional[_Iterable[_Union[ProgramInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ProgramInfo(_message.Message):
    __slots__ = ("name", "default_version", "versions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    default_version: int
    versions: _containers.RepeatedCompositeFieldContainer[ProgramVersion]
    def __init__(self, name: _Optional[str] = ..., default_version: _Optional[int] = ..., versions: _Optional[_Iterable[_Union[ProgramVersion, _Mapping]]] = ...) -> None: ...

class ProgramVersion(_message.Message):
    __slots__ = ("version", "digest", "put_seconds", "pinned")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    version: int
    digest: str
    put_seconds: float
    pinned: bool
    def __init__(self, version: _Optional[int] = ..., digest: _Optional[str] = ..., put_seconds: _Optional[float] = ..., pinned: bool = ...) -> None: ...

class GetProgramRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetProgramResponse(_message.Message):
    __slots__ = ("name", "version", "digest", "program", "inputs", "outputs", "nodes", "batched", "alone_because", "parameters", "parameter_bytes", "floating_point_operations", "peak_bytes", "kernels")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    BATCHED_FIELD_NUMBER: _ClassVar[int]
    ALONE_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_BYTES_FIELD_NUMBER: _ClassVar[int]
    FLOATING_POINT_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    digest: str
    program: _program_pb2.Program
    inputs: _containers.RepeatedCompositeFieldContainer[_program_pb2.ProgramInput]
    outputs: _containers.RepeatedCompositeFieldContainer[_program_pb2.ProgramInput]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeInfo]
    batched: bool
    alone_because: str
    parameters: int
    parameter_bytes: int
    floating_point_operations: int
    peak_bytes: int
    kernels: _containers.RepeatedCompositeFieldContainer[KernelChoice]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ..., program: _Optional[_Union[_program_pb2.Program, _Mapping]] = ..., inputs: _Optional[_Iterable[_Union[_program_pb2.ProgramInput, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[_program_pb2.ProgramInput, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[NodeInfo, _Mapping]]] = ..., batched: bool = ..., alone_because: _Optional[str] = ..., parameters: _Optional[int] = ..., parameter_bytes: _Optional[int] = ..., floating_point_operations: _Optional[int] = ..., peak_bytes: _Optional[int] = ..., kernels: _Optional[_Iterable[_Union[KernelChoice, _Mapping]]] = ...) -> None: ...

class NodeInfo(_message.Message):
    __slots__ = ("name", "operator", "outputs", "parameters", "floating_point_operations", "folded_into")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    FLOATING_POINT_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    FOLDED_INTO_FIELD_NUMBER: _ClassVar[int]
    name: str
    operator: str
    outputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    parameters: int
    floating_point_operations: int
    folded_into: str
    def __init__(self, name: _Optional[str] = ..., operator: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., parameters: _Optional[int] = ..., floating_point_operations: _Optional[int] = ..., folded_into: _Optional[str] = ...) -> None: ...

class SetDefaultVersionRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class SetDefaultVersionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteProgramRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class DeleteProgramResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListKernelsRequest(_message.Message):
    __slots__ = ("prefix", "page_size", "page_token")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    page_size: int
    page_token: str
    def __init__(self, prefix: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListKernelsResponse(_message.Message):
    __slots__ = ("kernels", "next_page_token", "environment")
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    kernels: _containers.RepeatedCompositeFieldContainer[KernelChoice]
    next_page_token: str
    environment: str
    def __init__(self, kernels: _Optional[_Iterable[_Union[KernelChoice, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., environment: _Optional[str] = ...) -> None: ...

class KernelChoice(_message.Message):
    __slots__ = ("operator", "parameters", "inputs", "kernel", "times_as_fast", "same_bits", "trials", "start_seconds")
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    TIMES_AS_FAST_FIELD_NUMBER: _ClassVar[int]
    SAME_BITS_FIELD_NUMBER: _ClassVar[int]
    TRIALS_FIELD_NUMBER: _ClassVar[int]
    START_SECONDS_FIELD_NUMBER: _ClassVar[int]
    operator: str
    parameters: str
    inputs: str
    kernel: str
    times_as_fast: float
    same_bits: bool
    trials: _containers.RepeatedCompositeFieldContainer[KernelTrial]
    start_seconds: float
    def __init__(self, operator: _Optional[str] = ..., parameters: _Optional[str] = ..., inputs: _Optional[str] = ..., kernel: _Optional[str] = ..., times_as_fast: _Optional[float] = ..., same_bits: bool = ..., trials: _Optional[_Iterable[_Union[KernelTrial, _Mapping]]] = ..., start_seconds: _Optional[float] = ...) -> None: ...

class KernelTrial(_message.Message):
    __slots__ = ("kernel", "result", "times_as_fast")
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    TIMES_AS_FAST_FIELD_NUMBER: _ClassVar[int]
    kernel: str
    result: str
    times_as_fast: float
    def __init__(self, kernel: _Optional[str] = ..., result: _Optional[str] = ..., times_as_fast: _Optional[float] = ...) -> None: ...
