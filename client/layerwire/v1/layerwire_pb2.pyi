from google.protobuf import any_pb2 as _any_pb2
from layerwire.v1 import operators_pb2 as _operators_pb2
from layerwire.v1 import program_pb2 as _program_pb2
from layerwire.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CallOptions(_message.Message):
    __slots__ = ("timeout_seconds", "priority", "deterministic", "return_timing")
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    RETURN_TIMING_FIELD_NUMBER: _ClassVar[int]
    timeout_seconds: float
    priority: int
    deterministic: bool
    return_timing: bool
    def __init__(self, timeout_seconds: _Optional[float] = ..., priority: _Optional[int] = ..., deterministic: bool = ..., return_timing: bool = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("queue_seconds", "copy_in_seconds", "kernel_seconds", "copy_out_seconds", "batch_calls", "batch_rows", "worker", "device")
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COPY_IN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COPY_OUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BATCH_CALLS_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    queue_seconds: float
    copy_in_seconds: float
    kernel_seconds: float
    copy_out_seconds: float
    batch_calls: int
    batch_rows: int
    worker: int
    device: str
    def __init__(self, queue_seconds: _Optional[float] = ..., copy_in_seconds: _Optional[float] = ..., kernel_seconds: _Optional[float] = ..., copy_out_seconds: _Optional[float] = ..., batch_calls: _Optional[int] = ..., batch_rows: _Optional[int] = ..., worker: _Optional[int] = ..., device: _Optional[str] = ...) -> None: ...

class PoolRequest(_message.Message):
    __slots__ = ("options", "operator", "input", "samples")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    operator: _operators_pb2.PoolOperator
    input: _tensor_pb2.Tensor
    samples: _tensor_pb2.Tensor
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., operator: _Optional[_Union[_operators_pb2.PoolOperator, _Mapping]] = ..., input: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., samples: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class PoolResponse(_message.Message):
    __slots__ = ("output", "indices", "timing")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    output: _tensor_pb2.Tensor
    indices: _tensor_pb2.Tensor
    timing: Timing
    def __init__(self, output: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., indices: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class UnpoolRequest(_message.Message):
    __slots__ = ("options", "operator", "input", "indices")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    operator: _operators_pb2.UnpoolOperator
    input: _tensor_pb2.Tensor
    indices: _tensor_pb2.Tensor
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., operator: _Optional[_Union[_operators_pb2.UnpoolOperator, _Mapping]] = ..., input: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., indices: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class UnpoolResponse(_message.Message):
    __slots__ = ("output", "timing")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    output: _tensor_pb2.Tensor
    timing: Timing
    def __init__(self, output: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class LinearRequest(_message.Message):
    __slots__ = ("options", "operator", "input", "weight", "bias", "input2")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    INPUT2_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    operator: _operators_pb2.LinearOperator
    input: _tensor_pb2.Tensor
    weight: _tensor_pb2.Tensor
    bias: _tensor_pb2.Tensor
    input2: _tensor_pb2.Tensor
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., operator: _Optional[_Union[_operators_pb2.LinearOperator, _Mapping]] = ..., input: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., weight: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., bias: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., input2: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class LinearResponse(_message.Message):
    __slots__ = ("output", "timing")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    output: _tensor_pb2.Tensor
    timing: Timing
    def __init__(self, output: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class ActivateRequest(_message.Message):
    __slots__ = ("options", "operator", "input", "weight")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    operator: _operators_pb2.ActivateOperator
    input: _tensor_pb2.Tensor
    weight: _tensor_pb2.Tensor
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., operator: _Optional[_Union[_operators_pb2.ActivateOperator, _Mapping]] = ..., input: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., weight: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class ActivateResponse(_message.Message):
    __slots__ = ("output", "timing")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    output: _tensor_pb2.Tensor
    timing: Timing
    def __init__(self, output: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class ConvolveRequest(_message.Message):
    __slots__ = ("options", "operator", "input", "weight", "bias")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    operator: _operators_pb2.ConvolveOperator
    input: _tensor_pb2.Tensor
    weight: _tensor_pb2.Tensor
    bias: _tensor_pb2.Tensor
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., operator: _Optional[_Union[_operators_pb2.ConvolveOperator, _Mapping]] = ..., input: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., weight: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., bias: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class ConvolveResponse(_message.Message):
    __slots__ = ("output", "timing")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    output: _tensor_pb2.Tensor
    timing: Timing
    def __init__(self, output: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class NormalizeRequest(_message.Message):
    __slots__ = ("options", "operator", "input", "weight", "bias", "running_mean", "running_var")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_MEAN_FIELD_NUMBER: _ClassVar[int]
    RUNNING_VAR_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    operator: _operators_pb2.NormalizeOperator
    input: _tensor_pb2.Tensor
    weight: _tensor_pb2.Tensor
    bias: _tensor_pb2.Tensor
    running_mean: _tensor_pb2.Tensor
    running_var: _tensor_pb2.Tensor
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., operator: _Optional[_Union[_operators_pb2.NormalizeOperator, _Mapping]] = ..., input: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., weight: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., bias: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., running_mean: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., running_var: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class NormalizeResponse(_message.Message):
    __slots__ = ("output", "batch_mean", "batch_var", "running_mean", "running_var", "timing")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    BATCH_MEAN_FIELD_NUMBER: _ClassVar[int]
    BATCH_VAR_FIELD_NUMBER: _ClassVar[int]
    RUNNING_MEAN_FIELD_NUMBER: _ClassVar[int]
    RUNNING_VAR_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    output: _tensor_pb2.Tensor
    batch_mean: _tensor_pb2.Tensor
    batch_var: _tensor_pb2.Tensor
    running_mean: _tensor_pb2.Tensor
    running_var: _tensor_pb2.Tensor
    timing: Timing
    def __init__(self, output: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., batch_mean: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., batch_var: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., running_mean: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., running_var: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class RunRequest(_message.Message):
    __slots__ = ("options", "name", "definition", "version", "inputs", "intermediates")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _tensor_pb2.Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    INTERMEDIATES_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    name: str
    definition: _program_pb2.Program
    version: int
    inputs: _containers.MessageMap[str, _tensor_pb2.Tensor]
    intermediates: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., name: _Optional[str] = ..., definition: _Optional[_Union[_program_pb2.Program, _Mapping]] = ..., version: _Optional[int] = ..., inputs: _Optional[_Mapping[str, _tensor_pb2.Tensor]] = ..., intermediates: _Optional[_Iterable[str]] = ...) -> None: ...

class RunResponse(_message.Message):
    __slots__ = ("outputs", "version", "timing")
    class OutputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _tensor_pb2.Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.MessageMap[str, _tensor_pb2.Tensor]
    version: int
    timing: Timing
    def __init__(self, outputs: _Optional[_Mapping[str, _tensor_pb2.Tensor]] = ..., version: _Optional[int] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class DifferentiateRequest(_message.Message):
    __slots__ = ("pool", "unpool", "linear", "activate", "convolve", "normalize", "run", "output_gradients", "wanted")
    class OutputGradientsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _tensor_pb2.Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...
    POOL_FIELD_NUMBER: _ClassVar[int]
    UNPOOL_FIELD_NUMBER: _ClassVar[int]
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    ACTIVATE_FIELD_NUMBER: _ClassVar[int]
    CONVOLVE_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    pool: PoolRequest
    unpool: UnpoolRequest
    linear: LinearRequest
    activate: ActivateRequest
    convolve: ConvolveRequest
    normalize: NormalizeRequest
    run: RunRequest
    output_gradients: _containers.MessageMap[str, _tensor_pb2.Tensor]
    wanted: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, pool: _Optional[_Union[PoolRequest, _Mapping]] = ..., unpool: _Optional[_Union[UnpoolRequest, _Mapping]] = ..., linear: _Optional[_Union[LinearRequest, _Mapping]] = ..., activate: _Optional[_Union[ActivateRequest, _Mapping]] = ..., convolve: _Optional[_Union[ConvolveRequest, _Mapping]] = ..., normalize: _Optional[_Union[NormalizeRequest, _Mapping]] = ..., run: _Optional[_Union[RunRequest, _Mapping]] = ..., output_gradients: _Optional[_Mapping[str, _tensor_pb2.Tensor]] = ..., wanted: _Optional[_Iterable[str]] = ...) -> None: ...

class DifferentiateResponse(_message.Message):
    __slots__ = ("gradients", "timing")
    class GradientsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _tensor_pb2.Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...
    GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    gradients: _containers.MessageMap[str, _tensor_pb2.Tensor]
    timing: Timing
    def __init__(self, gradients: _Optional[_Mapping[str, _tensor_pb2.Tensor]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class EstimateRequest(_message.Message):
    __slots__ = ("pool", "unpool", "linear", "activate", "convolve", "normalize", "run")
    POOL_FIELD_NUMBER: _ClassVar[int]
    UNPOOL_FIELD_NUMBER: _ClassVar[int]
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    ACTIVATE_FIELD_NUMBER: _ClassVar[int]
    CONVOLVE_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    pool: PoolRequest
    unpool: UnpoolRequest
    linear: LinearRequest
    activate: ActivateRequest
    convolve: ConvolveRequest
    normalize: NormalizeRequest
    run: RunRequest
    def __init__(self, pool: _Optional[_Union[PoolRequest, _Mapping]] = ..., unpool: _Optional[_Union[UnpoolRequest, _Mapping]] = ..., linear: _Optional[_Union[LinearRequest, _Mapping]] = ..., activate: _Optional[_Union[ActivateRequest, _Mapping]] = ..., convolve: _Optional[_Union[ConvolveRequest, _Mapping]] = ..., normalize: _Optional[_Union[NormalizeRequest, _Mapping]] = ..., run: _Optional[_Union[RunRequest, _Mapping]] = ...) -> None: ...

class EstimateResponse(_message.Message):
    __slots__ = ("outputs", "input_bytes", "output_bytes", "floating_point_operations")
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    FLOATING_POINT_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    input_bytes: int
    output_bytes: int
    floating_point_operations: int
    def __init__(self, outputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., input_bytes: _Optional[int] = ..., output_bytes: _Optional[int] = ..., floating_point_operations: _Optional[int] = ...) -> None: ...

class StreamRequest(_message.Message):
    __slots__ = ("calls", "cancel", "share_memory", "part")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    SHARE_MEMORY_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    calls: Calls
    cancel: Cancellation
    share_memory: ShareMemoryRequest
    part: MessagePart
    def __init__(self, calls: _Optional[_Union[Calls, _Mapping]] = ..., cancel: _Optional[_Union[Cancellation, _Mapping]] = ..., share_memory: _Optional[_Union[ShareMemoryRequest, _Mapping]] = ..., part: _Optional[_Union[MessagePart, _Mapping]] = ...) -> None: ...

class MessagePart(_message.Message):
    __slots__ = ("message_bytes", "data")
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    message_bytes: int
    data: bytes
    def __init__(self, message_bytes: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ShareMemoryRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SharedMemory(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    def __init__(self, name: _Optional[bytes] = ...) -> None: ...

class SharedMemoryRange(_message.Message):
    __slots__ = ("start", "nbytes")
    START_FIELD_NUMBER: _ClassVar[int]
    NBYTES_FIELD_NUMBER: _ClassVar[int]
    start: int
    nbytes: int
    def __init__(self, start: _Optional[int] = ..., nbytes: _Optional[int] = ...) -> None: ...

class SharedData(_message.Message):
    __slots__ = ("memory", "ranges", "room")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    memory: bytes
    ranges: _containers.RepeatedCompositeFieldContainer[SharedMemoryRange]
    room: SharedMemoryRange
    def __init__(self, memory: _Optional[bytes] = ..., ranges: _Optional[_Iterable[_Union[SharedMemoryRange, _Mapping]]] = ..., room: _Optional[_Union[SharedMemoryRange, _Mapping]] = ...) -> None: ...

class Calls(_message.Message):
    __slots__ = ("calls", "groups")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[Call]
    groups: _containers.RepeatedCompositeFieldContainer[CallGroup]
    def __init__(self, calls: _Optional[_Iterable[_Union[Call, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[CallGroup, _Mapping]]] = ...) -> None: ...

class CallGroup(_message.Message):
    __slots__ = ("template", "ids", "data", "shared")
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    template: bytes
    ids: bytes
    data: _containers.RepeatedScalarFieldContainer[bytes]
    shared: SharedData
    def __init__(self, template: _Optional[bytes] = ..., ids: _Optional[bytes] = ..., data: _Optional[_Iterable[bytes]] = ..., shared: _Optional[_Union[SharedData, _Mapping]] = ...) -> None: ...

class Cancellation(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("id", "pool", "unpool", "linear", "activate", "convolve", "normalize", "run", "differentiate")
    ID_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    UNPOOL_FIELD_NUMBER: _ClassVar[int]
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    ACTIVATE_FIELD_NUMBER: _ClassVar[int]
    CONVOLVE_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    DIFFERENTIATE_FIELD_NUMBER: _ClassVar[int]
    id: int
    pool: PoolRequest
    unpool: UnpoolRequest
    linear: LinearRequest
    activate: ActivateRequest
    convolve: ConvolveRequest
    normalize: NormalizeRequest
    run: RunRequest
    differentiate: DifferentiateRequest
    def __init__(self, id: _Optional[int] = ..., pool: _Optional[_Union[PoolRequest, _Mapping]] = ..., unpool: _Optional[_Union[UnpoolRequest, _Mapping]] = ..., linear: _Optional[_Union[LinearRequest, _Mapping]] = ..., activate: _Optional[_Union[ActivateRequest, _Mapping]] = ..., convolve: _Optional[_Union[ConvolveRequest, _Mapping]] = ..., normalize: _Optional[_Union[NormalizeRequest, _Mapping]] = ..., run: _Optional[_Union[RunRequest, _Mapping]] = ..., differentiate: _Optional[_Union[DifferentiateRequest, _Mapping]] = ...) -> None: ...

class StreamResponse(_message.Message):
    __slots__ = ("answers", "groups", "memory", "part")
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    groups: _containers.RepeatedCompositeFieldContainer[AnswerGroup]
    memory: SharedMemory
    part: MessagePart
    def __init__(self, answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[AnswerGroup, _Mapping]]] = ..., memory: _Optional[_Union[SharedMemory, _Mapping]] = ..., part: _Optional[_Union[MessagePart, _Mapping]] = ...) -> None: ...

class AnswerGroup(_message.Message):
    __slots__ = ("template", "ids", "data", "shared_ranges")
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHARED_RANGES_FIELD_NUMBER: _ClassVar[int]
    template: bytes
    ids: bytes
    data: _containers.RepeatedScalarFieldContainer[bytes]
    shared_ranges: _containers.RepeatedCompositeFieldContainer[SharedMemoryRange]
    def __init__(self, template: _Optional[bytes] = ..., ids: _Optional[bytes] = ..., data: _Optional[_Iterable[bytes]] = ..., shared_ranges: _Optional[_Iterable[_Union[SharedMemoryRange, _Mapping]]] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("code", "message", "details")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    details: _containers.RepeatedCompositeFieldContainer[_any_pb2.Any]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., details: _Optional[_Iterable[_Union[_any_pb2.Any, _Mapping]]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("id", "pool", "unpool", "linear", "activate", "convolve", "normalize", "run", "differentiate", "status")
    ID_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    UNPOOL_FIELD_NUMBER: _ClassVar[int]
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    ACTIVATE_FIELD_NUMBER: _ClassVar[int]
    CONVOLVE_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    DIFFERENTIATE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    id: int
    pool: PoolResponse
    unpool: UnpoolResponse
    linear: LinearResponse
    activate: ActivateResponse
    convolve: ConvolveResponse
    normalize: NormalizeResponse
    run: RunResponse
    differentiate: DifferentiateResponse
    status: Status
    def __init__(self, id: _Optional[int] = ..., pool: _Optional[_Union[PoolResponse, _Mapping]] = ..., unpool: _Optional[_Union[UnpoolResponse, _Mapping]] = ..., linear: _Optional[_Union[LinearResponse, _Mapping]] = ..., activate: _Optional[_Union[ActivateResponse, _Mapping]] = ..., convolve: _Optional[_Union[ConvolveResponse, _Mapping]] = ..., normalize: _Optional[_Union[NormalizeResponse, _Mapping]] = ..., run: _Optional[_Union[RunResponse, _Mapping]] = ..., differentiate: _Optional[_Union[DifferentiateResponse, _Mapping]] = ..., status: _Optional[_Union[Status, _Mapping]] = ...) -> None: ...

class PutWeightsRequest(_message.Message):
    __slots__ = ("name", "tensor")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    tensor: _tensor_pb2.Tensor
    def __init__(self, name: _Optional[str] = ..., tensor: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class PutWeightsResponse(_message.Message):
    __slots__ = ("name", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "torch_version", "workers", "operators", "limits", "numerics")
    class NumericsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    OPERATORS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FIELD_NUMBER: _ClassVar[int]
    version: str
    torch_version: str
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    operators: _containers.RepeatedScalarFieldContainer[str]
    limits: Limits
    numerics: _containers.ScalarMap[str, str]
    def __init__(self, version: _Optional[str] = ..., torch_version: _Optional[str] = ..., workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., operators: _Optional[_Iterable[str]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., numerics: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("index", "device", "device_name", "healthy")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    index: int
    device: str
    device_name: str
    healthy: bool
    def __init__(self, index: _Optional[int] = ..., device: _Optional[str] = ..., device_name: _Optional[str] = ..., healthy: bool = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_message_bytes", "max_output_bytes", "max_call_operations", "max_queue_calls", "max_queue_bytes", "max_requests_in_flight", "max_bytes_in_flight", "max_weights_bytes", "max_message_calls", "max_program_bytes", "max_store_bytes")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CALL_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_CALLS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUESTS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_WEIGHTS_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_CALLS_FIELD_NUMBER: _ClassVar[int]
    MAX_PROGRAM_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_STORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_output_bytes: int
    max_call_operations: int
    max_queue_calls: int
    max_queue_bytes: int
    max_requests_in_flight: int
    max_bytes_in_flight: int
    max_weights_bytes: int
    max_message_calls: int
    max_program_bytes: int
    max_store_bytes: int
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_output_bytes: _Optional[int] = ..., max_call_operations: _Optional[int] = ..., max_queue_calls: _Optional[int] = ..., max_queue_bytes: _Optional[int] = ..., max_requests_in_flight: _Optional[int] = ..., max_bytes_in_flight: _Optional[int] = ..., max_weights_bytes: _Optional[int] = ..., max_message_calls: _Optional[int] = ..., max_program_bytes: _Optional[int] = ..., max_store_bytes: _Optional[int] = ...) -> None: ...
