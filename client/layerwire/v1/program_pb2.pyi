from layerwire.v1 import operators_pb2 as _operators_pb2
from layerwire.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PadMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAD_MODE_UNSPECIFIED: _ClassVar[PadMode]
    PAD_MODE_CONSTANT: _ClassVar[PadMode]
    PAD_MODE_REFLECT: _ClassVar[PadMode]
    PAD_MODE_REPLICATE: _ClassVar[PadMode]
    PAD_MODE_CIRCULAR: _ClassVar[PadMode]

class UpsampleMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UPSAMPLE_MODE_UNSPECIFIED: _ClassVar[UpsampleMode]
    UPSAMPLE_MODE_NEAREST: _ClassVar[UpsampleMode]
    UPSAMPLE_MODE_LINEAR: _ClassVar[UpsampleMode]
    UPSAMPLE_MODE_BILINEAR: _ClassVar[UpsampleMode]
    UPSAMPLE_MODE_BICUBIC: _ClassVar[UpsampleMode]
    UPSAMPLE_MODE_TRILINEAR: _ClassVar[UpsampleMode]
    UPSAMPLE_MODE_AREA: _ClassVar[UpsampleMode]
    UPSAMPLE_MODE_NEAREST_EXACT: _ClassVar[UpsampleMode]
PAD_MODE_UNSPECIFIED: PadMode
PAD_MODE_CONSTANT: PadMode
PAD_MODE_REFLECT: PadMode
PAD_MODE_REPLICATE: PadMode
PAD_MODE_CIRCULAR: PadMode
UPSAMPLE_MODE_UNSPECIFIED: UpsampleMode
UPSAMPLE_MODE_NEAREST: UpsampleMode
UPSAMPLE_MODE_LINEAR: UpsampleMode
UPSAMPLE_MODE_BILINEAR: UpsampleMode
UPSAMPLE_MODE_BICUBIC: UpsampleMode
UPSAMPLE_MODE_TRILINEAR: UpsampleMode
UPSAMPLE_MODE_AREA: UpsampleMode
UPSAMPLE_MODE_NEAREST_EXACT: UpsampleMode

class Program(_message.Message):
    __slots__ = ("inputs", "constants", "nodes", "outputs", "fold_batch_norm")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    CONSTANTS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    FOLD_BATCH_NORM_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[ProgramInput]
    constants: _containers.RepeatedCompositeFieldContainer[Constant]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    outputs: _containers.RepeatedCompositeFieldContainer[ProgramOutput]
    fold_batch_norm: bool
    def __init__(self, inputs: _Optional[_Iterable[_Union[ProgramInput, _Mapping]]] = ..., constants: _Optional[_Iterable[_Union[Constant, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[ProgramOutput, _Mapping]]] = ..., fold_batch_norm: bool = ...) -> None: ...

class ProgramInput(_message.Message):
    __slots__ = ("name", "dtype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: _tensor_pb2.DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Constant(_message.Message):
    __slots__ = ("name", "tensor", "stored")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    name: str
    tensor: _tensor_pb2.Tensor
    stored: StoredTensor
    def __init__(self, name: _Optional[str] = ..., tensor: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., stored: _Optional[_Union[StoredTensor, _Mapping]] = ...) -> None: ...

class StoredTensor(_message.Message):
    __slots__ = ("digest", "key")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    digest: str
    key: str
    def __init__(self, digest: _Optional[str] = ..., key: _Optional[str] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("name", "inputs", "pool", "unpool", "linear", "activate", "convolve", "normalize", "transform")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    UNPOOL_FIELD_NUMBER: _ClassVar[int]
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    ACTIVATE_FIELD_NUMBER: _ClassVar[int]
    CONVOLVE_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    TRANSFORM_FIELD_NUMBER: _ClassVar[int]
    name: str
    inputs: _containers.RepeatedCompositeFieldContainer[NodeInput]
    pool: _operators_pb2.PoolOperator
    unpool: _operators_pb2.UnpoolOperator
    linear: _operators_pb2.LinearOperator
    activate: _operators_pb2.ActivateOperator
    convolve: _operators_pb2.ConvolveOperator
    normalize: _operators_pb2.NormalizeOperator
    transform: TransformOperator
    def __init__(self, name: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[NodeInput, _Mapping]]] = ..., pool: _Optional[_Union[_operators_pb2.PoolOperator, _Mapping]] = ..., unpool: _Optional[_Union[_operators_pb2.UnpoolOperator, _Mapping]] = ..., linear: _Optional[_Union[_operators_pb2.LinearOperator, _Mapping]] = ..., activate: _Optional[_Union[_operators_pb2.ActivateOperator, _Mapping]] = ..., convolve: _Optional[_Union[_operators_pb2.ConvolveOperator, _Mapping]] = ..., normalize: _Optional[_Union[_operators_pb2.NormalizeOperator, _Mapping]] = ..., transform: _Optional[_Union[TransformOperator, _Mapping]] = ...) -> None: ...

class NodeInput(_message.Message):
    __slots__ = ("field", "value")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    field: str
    value: str
    def __init__(self, field: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class ProgramOutput(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class TransformOperator(_message.Message):
    __slots__ = ("reshape", "flatten", "permute", "concatenate", "add", "subtract", "multiply", "divide", "matmul", "mean", "pad", "upsample", "channel_shuffle", "dropout", "identity", "narrow")
    RESHAPE_FIELD_NUMBER: _ClassVar[int]
    FLATTEN_FIELD_NUMBER: _ClassVar[int]
    PERMUTE_FIELD_NUMBER: _ClassVar[int]
    CONCATENATE_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    SUBTRACT_FIELD_NUMBER: _ClassVar[int]
    MULTIPLY_FIELD_NUMBER: _ClassVar[int]
    DIVIDE_FIELD_NUMBER: _ClassVar[int]
    MATMUL_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    PAD_FIELD_NUMBER: _ClassVar[int]
    UPSAMPLE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_SHUFFLE_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    NARROW_FIELD_NUMBER: _ClassVar[int]
    reshape: Reshape
    flatten: Flatten
    permute: Permute
    concatenate: Concatenate
    add: Add
    subtract: Subtract
    multiply: Multiply
    divide: Divide
    matmul: Matmul
    mean: Mean
    pad: Pad
    upsample: Upsample
    channel_shuffle: ChannelShuffle
    dropout: Dropout
    identity: Identity
    narrow: Narrow
    def __init__(self, reshape: _Optional[_Union[Reshape, _Mapping]] = ..., flatten: _Optional[_Union[Flatten, _Mapping]] = ..., permute: _Optional[_Union[Permute, _Mapping]] = ..., concatenate: _Optional[_Union[Concatenate, _Mapping]] = ..., add: _Optional[_Union[Add, _Mapping]] = ..., subtract: _Optional[_Union[Subtract, _Mapping]] = ..., multiply: _Optional[_Union[Multiply, _Mapping]] = ..., divide: _Optional[_Union[Divide, _Mapping]] = ..., matmul: _Optional[_Union[Matmul, _Mapping]] = ..., mean: _Optional[_Union[Mean, _Mapping]] = ..., pad: _Optional[_Union[Pad, _Mapping]] = ..., upsample: _Optional[_Union[Upsample, _Mapping]] = ..., channel_shuffle: _Optional[_Union[ChannelShuffle, _Mapping]] = ..., dropout: _Optional[_Union[Dropout, _Mapping]] = ..., identity: _Optional[_Union[Identity, _Mapping]] = ..., narrow: _Optional[_Union[Narrow, _Mapping]] = ...) -> None: ...

class Reshape(_message.Message):
    __slots__ = ("shape",)
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Flatten(_message.Message):
    __slots__ = ("start_dim", "end_dim")
    START_DIM_FIELD_NUMBER: _ClassVar[int]
    END_DIM_FIELD_NUMBER: _ClassVar[int]
    start_dim: int
    end_dim: int
    def __init__(self, start_dim: _Optional[int] = ..., end_dim: _Optional[int] = ...) -> None: ...

class Permute(_message.Message):
    __slots__ = ("dims",)
    DIMS_FIELD_NUMBER: _ClassVar[int]
    dims: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, dims: _Optional[_Iterable[int]] = ...) -> None: ...

class Concatenate(_message.Message):
    __slots__ = ("dim",)
    DIM_FIELD_NUMBER: _ClassVar[int]
    dim: int
    def __init__(self, dim: _Optional[int] = ...) -> None: ...

class Add(_message.Message):
    __slots__ = ("alpha",)
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    alpha: float
    def __init__(self, alpha: _Optional[float] = ...) -> None: ...

class Subtract(_message.Message):
    __slots__ = ("alpha",)
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    alpha: float
    def __init__(self, alpha: _Optional[float] = ...) -> None: ...

class Multiply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Divide(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Matmul(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Mean(_message.Message):
    __slots__ = ("dims", "keepdim")
    DIMS_FIELD_NUMBER: _ClassVar[int]
    KEEPDIM_FIELD_NUMBER: _ClassVar[int]
    dims: _containers.RepeatedScalarFieldContainer[int]
    keepdim: bool
    def __init__(self, dims: _Optional[_Iterable[int]] = ..., keepdim: bool = ...) -> None: ...

class Pad(_message.Message):
    __slots__ = ("pad", "mode", "value")
    PAD_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    pad: _containers.RepeatedScalarFieldContainer[int]
    mode: PadMode
    value: float
    def __init__(self, pad: _Optional[_Iterable[int]] = ..., mode: _Optional[_Union[PadMode, str]] = ..., value: _Optional[float] = ...) -> None: ...

class Upsample(_message.Message):
    __slots__ = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SCALE_FACTOR_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    ALIGN_CORNERS_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTE_SCALE_FACTOR_FIELD_NUMBER: _ClassVar[int]
    ANTIALIAS_FIELD_NUMBER: _ClassVar[int]
    size: _containers.RepeatedScalarFieldContainer[int]
    scale_factor: _containers.RepeatedScalarFieldContainer[float]
    mode: UpsampleMode
    align_corners: bool
    recompute_scale_factor: bool
    antialias: bool
    def __init__(self, size: _Optional[_Iterable[int]] = ..., scale_factor: _Optional[_Iterable[float]] = ..., mode: _Optional[_Union[UpsampleMode, str]] = ..., align_corners: bool = ..., recompute_scale_factor: bool = ..., antialias: bool = ...) -> None: ...

class ChannelShuffle(_message.Message):
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: int
    def __init__(self, groups: _Optional[int] = ...) -> None: ...

class Dropout(_message.Message):
    __slots__ = ("p",)
    P_FIELD_NUMBER: _ClassVar[int]
    p: float
    def __init__(self, p: _Optional[float] = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Narrow(_message.Message):
    __slots__ = ("dim", "start", "length")
    DIM_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    dim: int
    start: int
    length: int
    def __init__(self, dim: _Optional[int] = ..., start: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...
