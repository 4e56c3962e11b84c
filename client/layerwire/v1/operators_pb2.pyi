from layerwire.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NamedPadding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NAMED_PADDING_UNSPECIFIED: _ClassVar[NamedPadding]
    NAMED_PADDING_VALID: _ClassVar[NamedPadding]
    NAMED_PADDING_SAME: _ClassVar[NamedPadding]
NAMED_PADDING_UNSPECIFIED: NamedPadding
NAMED_PADDING_VALID: NamedPadding
NAMED_PADDING_SAME: NamedPadding

class MaxPool(_message.Message):
    __slots__ = ("spatial_dims", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    SPATIAL_DIMS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    DILATION_FIELD_NUMBER: _ClassVar[int]
    CEIL_MODE_FIELD_NUMBER: _ClassVar[int]
    RETURN_INDICES_FIELD_NUMBER: _ClassVar[int]
    spatial_dims: int
    kernel_size: _containers.RepeatedScalarFieldContainer[int]
    stride: _containers.RepeatedScalarFieldContainer[int]
    padding: _containers.RepeatedScalarFieldContainer[int]
    dilation: _containers.RepeatedScalarFieldContainer[int]
    ceil_mode: bool
    return_indices: bool
    def __init__(self, spatial_dims: _Optional[int] = ..., kernel_size: _Optional[_Iterable[int]] = ..., stride: _Optional[_Iterable[int]] = ..., padding: _Optional[_Iterable[int]] = ..., dilation: _Optional[_Iterable[int]] = ..., ceil_mode: bool = ..., return_indices: bool = ...) -> None: ...

class AvgPool(_message.Message):
    __slots__ = ("spatial_dims", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    SPATIAL_DIMS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    CEIL_MODE_FIELD_NUMBER: _ClassVar[int]
    COUNT_INCLUDE_PAD_FIELD_NUMBER: _ClassVar[int]
    DIVISOR_OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    spatial_dims: int
    kernel_size: _containers.RepeatedScalarFieldContainer[int]
    stride: _containers.RepeatedScalarFieldContainer[int]
    padding: _containers.RepeatedScalarFieldContainer[int]
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int
    def __init__(self, spatial_dims: _Optional[int] = ..., kernel_size: _Optional[_Iterable[int]] = ..., stride: _Optional[_Iterable[int]] = ..., padding: _Optional[_Iterable[int]] = ..., ceil_mode: bool = ..., count_include_pad: bool = ..., divisor_override: _Optional[int] = ...) -> None: ...

class AdaptiveMaxPool(_message.Message):
    __slots__ = ("spatial_dims", "output_size", "return_indices")
    SPATIAL_DIMS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SIZE_FIELD_NUMBER: _ClassVar[int]
    RETURN_INDICES_FIELD_NUMBER: _ClassVar[int]
    spatial_dims: int
    output_size: _containers.RepeatedScalarFieldContainer[int]
    return_indices: bool
    def __init__(self, spatial_dims: _Optional[int] = ..., output_size: _Optional[_Iterable[int]] = ..., return_indices: bool = ...) -> None: ...

class AdaptiveAvgPool(_message.Message):
    __slots__ = ("spatial_dims", "output_size")
    SPATIAL_DIMS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SIZE_FIELD_NUMBER: _ClassVar[int]
    spatial_dims: int
    output_size: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, spatial_dims: _Optional[int] = ..., output_size: _Optional[_Iterable[int]] = ...) -> None: ...

class LpPool(_message.Message):
    __slots__ = ("spatial_dims", "norm_type", "kernel_size", "stride", "ceil_mode")
    SPATIAL_DIMS_FIELD_NUMBER: _ClassVar[int]
    NORM_TYPE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    CEIL_MODE_FIELD_NUMBER: _ClassVar[int]
    spatial_dims: int
    norm_type: float
    kernel_size: _containers.RepeatedScalarFieldContainer[int]
    stride: _containers.RepeatedScalarFieldContainer[int]
    ceil_mode: bool
    def __init__(self, spatial_dims: _Optional[int] = ..., norm_type: _Optional[float] = ..., kernel_size: _Optional[_Iterable[int]] = ..., stride: _Optional[_Iterable[int]] = ..., ceil_mode: bool = ...) -> None: ...

class FractionalMaxPool(_message.Message):
    __slots__ = ("spatial_dims", "kernel_size", "output_size", "output_ratio", "return_indices")
    SPATIAL_DIMS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SIZE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_RATIO_FIELD_NUMBER: _ClassVar[int]
    RETURN_INDICES_FIELD_NUMBER: _ClassVar[int]
    spatial_dims: int
    kernel_size: _containers.RepeatedScalarFieldContainer[int]
    output_size: _containers.RepeatedScalarFieldContainer[int]
    output_ratio: _containers.RepeatedScalarFieldContainer[float]
    return_indices: bool
    def __init__(self, spatial_dims: _Optional[int] = ..., kernel_size: _Optional[_Iterable[int]] = ..., output_size: _Optional[_Iterable[int]] = ..., output_ratio: _Optional[_Iterable[float]] = ..., return_indices: bool = ...) -> None: ...

class PoolOperator(_message.Message):
    __slots__ = ("max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool", "lp_pool", "fractional_max_pool")
    MAX_POOL_FIELD_NUMBER: _ClassVar[int]
    AVG_POOL_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_MAX_POOL_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_AVG_POOL_FIELD_NUMBER: _ClassVar[int]
    LP_POOL_FIELD_NUMBER: _ClassVar[int]
    FRACTIONAL_MAX_POOL_FIELD_NUMBER: _ClassVar[int]
    max_pool: MaxPool
    avg_pool: AvgPool
    adaptive_max_pool: AdaptiveMaxPool
    adaptive_avg_pool: AdaptiveAvgPool
    lp_pool: LpPool
    fractional_max_pool: FractionalMaxPool
    def __init__(self, max_pool: _Optional[_Union[MaxPool, _Mapping]] = ..., avg_pool: _Optional[_Union[AvgPool, _Mapping]] = ..., adaptive_max_pool: _Optional[_Union[AdaptiveMaxPool, _Mapping]] = ..., adaptive_avg_pool: _Optional[_Union[AdaptiveAvgPool, _Mapping]] = ..., lp_pool: _Optional[_Union[LpPool, _Mapping]] = ..., fractional_max_pool: _Optional[_Union[FractionalMaxPool, _Mapping]] = ...) -> None: ...

class MaxUnpool(_message.Message):
    __slots__ = ("spatial_dims", "kernel_size", "stride", "padding", "output_size")
    SPATIAL_DIMS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SIZE_FIELD_NUMBER: _ClassVar[int]
    spatial_dims: int
    kernel_size: _containers.RepeatedScalarFieldContainer[int]
    stride: _containers.RepeatedScalarFieldContainer[int]
    padding: _containers.RepeatedScalarFieldContainer[int]
    output_size: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, spatial_dims: _Optional[int] = ..., kernel_size: _Optional[_Iterable[int]] = ..., stride: _Optional[_Iterable[int]] = ..., padding: _Optional[_Iterable[int]] = ..., output_size: _Optional[_Iterable[int]] = ...) -> None: ...

class UnpoolOperator(_message.Message):
    __slots__ = ("max_unpool",)
    MAX_UNPOOL_FIELD_NUMBER: _ClassVar[int]
    max_unpool: MaxUnpool
    def __init__(self, max_unpool: _Optional[_Union[MaxUnpool, _Mapping]] = ...) -> None: ...

class Linear(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Bilinear(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CosineSimilarity(_message.Message):
    __slots__ = ("dim", "eps")
    DIM_FIELD_NUMBER: _ClassVar[int]
    EPS_FIELD_NUMBER: _ClassVar[int]
    dim: int
    eps: float
    def __init__(self, dim: _Optional[int] = ..., eps: _Optional[float] = ...) -> None: ...

class LinearOperator(_message.Message):
    __slots__ = ("linear", "bilinear", "cosine_similarity")
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    BILINEAR_FIELD_NUMBER: _ClassVar[int]
    COSINE_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    linear: Linear
    bilinear: Bilinear
    cosine_similarity: CosineSimilarity
    def __init__(self, linear: _Optional[_Union[Linear, _Mapping]] = ..., bilinear: _Optional[_Union[Bilinear, _Mapping]] = ..., cosine_similarity: _Optional[_Union[CosineSimilarity, _Mapping]] = ...) -> None: ...

class Relu(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Relu6(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeakyRelu(_message.Message):
    __slots__ = ("negative_slope",)
    NEGATIVE_SLOPE_FIELD_NUMBER: _ClassVar[int]
    negative_slope: float
    def __init__(self, negative_slope: _Optional[float] = ...) -> None: ...

class Prelu(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Rrelu(_message.Message):
    __slots__ = ("lower", "upper", "training", "seed")
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    lower: float
    upper: float
    training: bool
    seed: int
    def __init__(self, lower: _Optional[float] = ..., upper: _Optional[float] = ..., training: bool = ..., seed: _Optional[int] = ...) -> None: ...

class Elu(_message.Message):
    __slots__ = ("alpha",)
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    alpha: float
    def __init__(self, alpha: _Optional[float] = ...) -> None: ...

class Selu(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Celu(_message.Message):
    __slots__ = ("alpha",)
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    alpha: float
    def __init__(self, alpha: _Optional[float] = ...) -> None: ...

class Gelu(_message.Message):
    __slots__ = ("approximate",)
    APPROXIMATE_FIELD_NUMBER: _ClassVar[int]
    approximate: str
    def __init__(self, approximate: _Optional[str] = ...) -> None: ...

class Silu(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Mish(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Softplus(_message.Message):
    __slots__ = ("beta", "threshold")
    BETA_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    beta: float
    threshold: float
    def __init__(self, beta: _Optional[float] = ..., threshold: _Optional[float] = ...) -> None: ...

class Softsign(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Hardtanh(_message.Message):
    __slots__ = ("min_val", "max_val")
    MIN_VAL_FIELD_NUMBER: _ClassVar[int]
    MAX_VAL_FIELD_NUMBER: _ClassVar[int]
    min_val: float
    max_val: float
    def __init__(self, min_val: _Optional[float] = ..., max_val: _Optional[float] = ...) -> None: ...

class Hardsigmoid(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Hardswish(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Logsigmoid(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Tanhshrink(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Softshrink(_message.Message):
    __slots__ = ("lambd",)
    LAMBD_FIELD_NUMBER: _ClassVar[int]
    lambd: float
    def __init__(self, lambd: _Optional[float] = ...) -> None: ...

class Hardshrink(_message.Message):
    __slots__ = ("lambd",)
    LAMBD_FIELD_NUMBER: _ClassVar[int]
    lambd: float
    def __init__(self, lambd: _Optional[float] = ...) -> None: ...

class Threshold(_message.Message):
    __slots__ = ("threshold", "value")
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    threshold: float
    value: float
    def __init__(self, threshold: _Optional[float] = ..., value: _Optional[float] = ...) -> None: ...

class Glu(_message.Message):
    __slots__ = ("dim",)
    DIM_FIELD_NUMBER: _ClassVar[int]
    dim: int
    def __init__(self, dim: _Optional[int] = ...) -> None: ...

class Softmax(_message.Message):
    __slots__ = ("dim", "dtype")
    DIM_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    dim: int
    dtype: _tensor_pb2.DataType
    def __init__(self, dim: _Optional[int] = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ...) -> None: ...

class Softmin(_message.Message):
    __slots__ = ("dim", "dtype")
    DIM_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    dim: int
    dtype: _tensor_pb2.DataType
    def __init__(self, dim: _Optional[int] = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ...) -> None: ...

class LogSoftmax(_message.Message):
    __slots__ = ("dim", "dtype")
    DIM_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    dim: int
    dtype: _tensor_pb2.DataType
    def __init__(self, dim: _Optional[int] = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ...) -> None: ...

class Tanh(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Sigmoid(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GumbelSoftmax(_message.Message):
    __slots__ = ("tau", "hard", "dim", "seed")
    TAU_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    tau: float
    hard: bool
    dim: int
    seed: int
    def __init__(self, tau: _Optional[float] = ..., hard: bool = ..., dim: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class ActivateOperator(_message.Message):
    __slots__ = ("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "hardtanh", "hardsigmoid", "hardswish", "logsigmoid", "tanhshrink", "softshrink", "hardshrink", "threshold", "glu", "softmax", "softmin", "log_softmax", "tanh", "sigmoid", "gumbel_softmax")
    RELU_FIELD_NUMBER: _ClassVar[int]
    RELU6_FIELD_NUMBER: _ClassVar[int]
    LEAKY_RELU_FIELD_NUMBER: _ClassVar[int]
    PRELU_FIELD_NUMBER: _ClassVar[int]
    RRELU_FIELD_NUMBER: _ClassVar[int]
    ELU_FIELD_NUMBER: _ClassVar[int]
    SELU_FIELD_NUMBER: _ClassVar[int]
    CELU_FIELD_NUMBER: _ClassVar[int]
    GELU_FIELD_NUMBER: _ClassVar[int]
    SILU_FIELD_NUMBER: _ClassVar[int]
    MISH_FIELD_NUMBER: _ClassVar[int]
    SOFTPLUS_FIELD_NUMBER: _ClassVar[int]
    SOFTSIGN_FIELD_NUMBER: _ClassVar[int]
    HARDTANH_FIELD_NUMBER: _ClassVar[int]
    HARDSIGMOID_FIELD_NUMBER: _ClassVar[int]
    HARDSWISH_FIELD_NUMBER: _ClassVar[int]
    LOGSIGMOID_FIELD_NUMBER: _ClassVar[int]
    TANHSHRINK_FIELD_NUMBER: _ClassVar[int]
    SOFTSHRINK_FIELD_NUMBER: _ClassVar[int]
    HARDSHRINK_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    GLU_FIELD_NUMBER: _ClassVar[int]
    SOFTMAX_FIELD_NUMBER: _ClassVar[int]
    SOFTMIN_FIELD_NUMBER: _ClassVar[int]
    LOG_SOFTMAX_FIELD_NUMBER: _ClassVar[int]
    TANH_FIELD_NUMBER: _ClassVar[int]
    SIGMOID_FIELD_NUMBER: _ClassVar[int]
    GUMBEL_SOFTMAX_FIELD_NUMBER: _ClassVar[int]
    relu: Relu
    relu6: Relu6
    leaky_relu: LeakyRelu
    prelu: Prelu
    rrelu: Rrelu
    elu: Elu
    selu: Selu
    celu: Celu
    gelu: Gelu
    silu: Silu
    mish: Mish
    softplus: Softplus
    softsign: Softsign
    hardtanh: Hardtanh
    hardsigmoid: Hardsigmoid
    hardswish: Hardswish
    logsigmoid: Logsigmoid
    tanhshrink: Tanhshrink
    softshrink: Softshrink
    hardshrink: Hardshrink
    threshold: Threshold
    glu: Glu
    softmax: Softmax
    softmin: Softmin
    log_softmax: LogSoftmax
    tanh: Tanh
    sigmoid: Sigmoid
    gumbel_softmax: GumbelSoftmax
    def __init__(self, relu: _Optional[_Union[Relu, _Mapping]] = ..., relu6: _Optional[_Union[Relu6, _Mapping]] = ..., leaky_relu: _Optional[_Union[LeakyRelu, _Mapping]] = ..., prelu: _Optional[_Union[Prelu, _Mapping]] = ..., rrelu: _Optional[_Union[Rrelu, _Mapping]] = ..., elu: _Optional[_Union[Elu, _Mapping]] = ..., selu: _Optional[_Union[Selu, _Mapping]] = ..., celu: _Optional[_Union[Celu, _Mapping]] = ..., gelu: _Optional[_Union[Gelu, _Mapping]] = ..., silu: _Optional[_Union[Silu, _Mapping]] = ..., mish: _Optional[_Union[Mish, _Mapping]] = ..., softplus: _Optional[_Union[Softplus, _Mapping]] = ..., softsign: _Optional[_Union[Softsign, _Mapping]] = ..., hardtanh: _Optional[_Union[Hardtanh, _Mapping]] = ..., hardsigmoid: _Optional[_Union[Hardsigmoid, _Mapping]] = ..., hardswish: _Optional[_Union[Hardswish, _Mapping]] = ..., logsigmoid: _Optional[_Union[Logsigmoid, _Mapping]] = ..., tanhshrink: _Optional[_Union[Tanhshrink, _Mapping]] = ..., softshrink: _Optional[_Union[Softshrink, _Mapping]] = ..., hardshrink: _Optional[_Union[Hardshrink, _Mapping]] = ..., threshold: _Optional[_Union[Threshold, _Mapping]] = ..., glu: _Optional[_Union[Glu, _Mapping]] = ..., softmax: _Optional[_Union[Softmax, _Mapping]] = ..., softmin: _Optional[_Union[Softmin, _Mapping]] = ..., log_softmax: _Optional[_Union[LogSoftmax, _Mapping]] = ..., tanh: _Optional[_Union[Tanh, _Mapping]] = ..., sigmoid: _Optional[_Union[Sigmoid, _Mapping]] = ..., gumbel_softmax: _Optional[_Union[GumbelSoftmax, _Mapping]] = ...) -> None: ...

class Conv(_message.Message):
    __slots__ = ("spatial_dims", "stride", "padding", "named_padding", "dilation", "groups")
    SPATIAL_DIMS_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    NAMED_PADDING_FIELD_NUMBER: _ClassVar[int]
    DILATION_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    spatial_dims: int
    stride: _containers.RepeatedScalarFieldContainer[int]
    padding: _containers.RepeatedScalarFieldContainer[int]
    named_padding: NamedPadding
    dilation: _containers.RepeatedScalarFieldContainer[int]
    groups: int
    def __init__(self, spatial_dims: _Optional[int] = ..., stride: _Optional[_Iterable[int]] = ..., padding: _Optional[_Iterable[int]] = ..., named_padding: _Optional[_Union[NamedPadding, str]] = ..., dilation: _Optional[_Iterable[int]] = ..., groups: _Optional[int] = ...) -> None: ...

class ConvTranspose(_message.Message):
    __slots__ = ("spatial_dims", "stride", "padding", "output_padding", "groups", "dilation")
    SPATIAL_DIMS_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_PADDING_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    DILATION_FIELD_NUMBER: _ClassVar[int]
    spatial_dims: int
    stride: _containers.RepeatedScalarFieldContainer[int]
    padding: _containers.RepeatedScalarFieldContainer[int]
    output_padding: _containers.RepeatedScalarFieldContainer[int]
    groups: int
    dilation: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, spatial_dims: _Optional[int] = ..., stride: _Optional[_Iterable[int]] = ..., padding: _Optional[_Iterable[int]] = ..., output_padding: _Optional[_Iterable[int]] = ..., groups: _Optional[int] = ..., dilation: _Optional[_Iterable[int]] = ...) -> None: ...

class ConvTbc(_message.Message):
    __slots__ = ("pad",)
    PAD_FIELD_NUMBER: _ClassVar[int]
    pad: int
    def __init__(self, pad: _Optional[int] = ...) -> None: ...

class Unfold(_message.Message):
    __slots__ = ("kernel_size", "dilation", "padding", "stride")
    KERNEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    DILATION_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    kernel_size: _containers.RepeatedScalarFieldContainer[int]
    dilation: _containers.RepeatedScalarFieldContainer[int]
    padding: _containers.RepeatedScalarFieldContainer[int]
    stride: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, kernel_size: _Optional[_Iterable[int]] = ..., dilation: _Optional[_Iterable[int]] = ..., padding: _Optional[_Iterable[int]] = ..., stride: _Optional[_Iterable[int]] = ...) -> None: ...

class Fold(_message.Message):
    __slots__ = ("output_size", "kernel_size", "dilation", "padding", "stride")
    OUTPUT_SIZE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    DILATION_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    output_size: _containers.RepeatedScalarFieldContainer[int]
    kernel_size: _containers.RepeatedScalarFieldContainer[int]
    dilation: _containers.RepeatedScalarFieldContainer[int]
    padding: _containers.RepeatedScalarFieldContainer[int]
    stride: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, output_size: _Optional[_Iterable[int]] = ..., kernel_size: _Optional[_Iterable[int]] = ..., dilation: _Optional[_Iterable[int]] = ..., padding: _Optional[_Iterable[int]] = ..., stride: _Optional[_Iterable[int]] = ...) -> None: ...

class ConvolveOperator(_message.Message):
    __slots__ = ("conv", "conv_transpose", "conv_tbc", "unfold", "fold")
    CONV_FIELD_NUMBER: _ClassVar[int]
    CONV_TRANSPOSE_FIELD_NUMBER: _ClassVar[int]
    CONV_TBC_FIELD_NUMBER: _ClassVar[int]
    UNFOLD_FIELD_NUMBER: _ClassVar[int]
    FOLD_FIELD_NUMBER: _ClassVar[int]
    conv: Conv
    conv_transpose: ConvTranspose
    conv_tbc: ConvTbc
    unfold: Unfold
    fold: Fold
    def __init__(self, conv: _Optional[_Union[Conv, _Mapping]] = ..., conv_transpose: _Optional[_Union[ConvTranspose, _Mapping]] = ..., conv_tbc: _Optional[_Union[ConvTbc, _Mapping]] = ..., unfold: _Optional[_Union[Unfold, _Mapping]] = ..., fold: _Optional[_Union[Fold, _Mapping]] = ...) -> None: ...

class BatchNorm(_message.Message):
    __slots__ = ("training", "momentum", "eps", "return_statistics")
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    EPS_FIELD_NUMBER: _ClassVar[int]
    RETURN_STATISTICS_FIELD_NUMBER: _ClassVar[int]
    training: bool
    momentum: float
    eps: float
    return_statistics: bool
    def __init__(self, training: bool = ..., momentum: _Optional[float] = ..., eps: _Optional[float] = ..., return_statistics: bool = ...) -> None: ...

class LayerNorm(_message.Message):
    __slots__ = ("normalized_shape", "eps")
    NORMALIZED_SHAPE_FIELD_NUMBER: _ClassVar[int]
    EPS_FIELD_NUMBER: _ClassVar[int]
    normalized_shape: _containers.RepeatedScalarFieldContainer[int]
    eps: float
    def __init__(self, normalized_shape: _Optional[_Iterable[int]] = ..., eps: _Optional[float] = ...) -> None: ...

class GroupNorm(_message.Message):
    __slots__ = ("num_groups", "eps")
    NUM_GROUPS_FIELD_NUMBER: _ClassVar[int]
    EPS_FIELD_NUMBER: _ClassVar[int]
    num_groups: int
    eps: float
    def __init__(self, num_groups: _Optional[int] = ..., eps: _Optional[float] = ...) -> None: ...

class InstanceNorm(_message.Message):
    __slots__ = ("use_input_stats", "momentum", "eps")
    USE_INPUT_STATS_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    EPS_FIELD_NUMBER: _ClassVar[int]
    use_input_stats: bool
    momentum: float
    eps: float
    def __init__(self, use_input_stats: bool = ..., momentum: _Optional[float] = ..., eps: _Optional[float] = ...) -> None: ...

class RmsNorm(_message.Message):
    __slots__ = ("normalized_shape", "eps")
    NORMALIZED_SHAPE_FIELD_NUMBER: _ClassVar[int]
    EPS_FIELD_NUMBER: _ClassVar[int]
    normalized_shape: _containers.RepeatedScalarFieldContainer[int]
    eps: float
    def __init__(self, normalized_shape: _Optional[_Iterable[int]] = ..., eps: _Optional[float] = ...) -> None: ...

class LocalResponseNorm(_message.Message):
    __slots__ = ("size", "alpha", "beta", "k")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    size: int
    alpha: float
    beta: float
    k: float
    def __init__(self, size: _Optional[int] = ..., alpha: _Optional[float] = ..., beta: _Optional[float] = ..., k: _Optional[float] = ...) -> None: ...

class LpNormalize(_message.Message):
    __slots__ = ("p", "dim", "eps")
    P_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    EPS_FIELD_NUMBER: _ClassVar[int]
    p: float
    dim: int
    eps: float
    def __init__(self, p: _Optional[float] = ..., dim: _Optional[int] = ..., eps: _Optional[float] = ...) -> None: ...

class NormalizeOperator(_message.Message):
    __slots__ = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm", "normalize")
    BATCH_NORM_FIELD_NUMBER: _ClassVar[int]
    LAYER_NORM_FIELD_NUMBER: _ClassVar[int]
    GROUP_NORM_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_NORM_FIELD_NUMBER: _ClassVar[int]
    RMS_NORM_FIELD_NUMBER: _ClassVar[int]
    LOCAL_RESPONSE_NORM_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    batch_norm: BatchNorm
    layer_norm: LayerNorm
    group_norm: GroupNorm
    instance_norm: InstanceNorm
    rms_norm: RmsNorm
    local_response_norm: LocalResponseNorm
    normalize: LpNormalize
    def __init__(self, batch_norm: _Optional[_Union[BatchNorm, _Mapping]] = ..., layer_norm: _Optional[_Union[LayerNorm, _Mapping]] = ..., group_norm: _Optional[_Union[GroupNorm, _Mapping]] = ..., instance_norm: _Optional[_Union[InstanceNorm, _Mapping]] = ..., rms_norm: _Optional[_Union[RmsNorm, _Mapping]] = ..., local_response_norm: _Optional[_Union[LocalResponseNorm, _Mapping]] = ..., normalize: _Optional[_Union[LpNormalize, _Mapping]] = ...) -> None: ...
