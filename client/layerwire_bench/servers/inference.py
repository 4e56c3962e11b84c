"""What a server of the Open Inference Protocol tells of itself and its models, and what it counted of them.

It knows the protocol's messages and its statistics extension, which Triton has and Layerwire; nothing of load. The
messages can't be loaded beside tritonclient's, so it is imported only where the protocol is spoken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from layerwire.errors import InternalError, LayerwireError, make
from layerwire.inference_v2 import open_inference_pb2 as messages
from layerwire.transport import reasons
from layerwire.transport.settings import Settings, make_settings
from layerwire_bench.result import Phase, Server
from layerwire_bench.servers.readings import MORE, SPARE_CALLS, STARTED_ANEW, Counters
from layerwire_bench.targets.inference import DATATYPES

_TIMEOUT_SECONDS = 10.0
_DURATIONS = ("success", "queue", "compute_input", "compute_infer", "compute_output")


class _Connection(NamedTuple):
    """A server that can be asked, by blocking calls: settings for it alone, and a channel to it."""

    settings: Settings
    channel: grpc.Channel

    @property
    def address(self) -> str:
        """The server's "host:port"."""
        return self.settings.addresses[0]

    def ask(self, method: str, **fields: Any) -> Any:
        """What a method of the protocol answers to a request of these fields.

        Raises:
            LayerwireError: it answered with an error, or couldn't be reached.
        """
        path = f"/inference.GRPCInferenceService/{method}"
        request, answer = getattr(messages, f"{method}Request"), getattr(messages, f"{method}Response")
        call: Any = self.channel.unary_unary(path)
        try:
            payload, metadata = request(**fields).SerializeToString(), self.settings.metadata
            return answer.FromString(call(payload, timeout=_TIMEOUT_SECONDS, metadata=metadata))
        except grpc.RpcError as error:
            reason = reasons.explain(error.details() or "", tls=self.settings.credentials is not None)
            raise make(error.code(), f"{self.address}: {reason}") from None
        except DecodeError:
            raise InternalError(f"{self.address}: the answer of {path} is no message of its type") from None


@contextmanager
def _connect(address: str) -> Iterator[_Connection]:
    settings = make_settings(address, None, None, None)
    with settings.blocking_channel(address) as channel:
        yield _Connection(settings, channel)


def facts(address: str) -> dict[str, str]:
    """What a server says of itself; raises LayerwireError where it can't be asked."""
    with _connect(address) as server:
        answer = server.ask("ServerMetadata")
    return {"server": f"{answer.name} {answer.version}".strip(), "extensions": ", ".join(answer.extensions)}


class ModelTensor(NamedTuple):
    """An input or output of a model.

    Attributes:
        datatype: the protocol's name, "FP32".
        dtype: torch's, "float32"; None where torch has none, as of BYTES.
        shape: with -1 along axes that take any size.
    """

    name: str
    datatype: str
    dtype: str | None
    shape: tuple[int, ...]


class Model(NamedTuple):
    """A model: its versions, all of them, what it takes and gives."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[ModelTensor, ...]
    outputs: tuple[ModelTensor, ...]


def model(address: str, name: str, version: str = "") -> Model:
    """A model of a server.

    Raises:
        NotFoundError: there is none of that name and version.
        LayerwireError: the server couldn't be asked.
    """
    with _connect(address) as server:
        answer = server.ask("ModelMetadata", name=name, version=version)
    inputs, outputs = (tuple(_tensor(one) for one in tensors) for tensors in (answer.inputs, answer.outputs))
    return Model(answer.name, tuple(answer.versions), inputs, outputs)


def _tensor(one: Any) -> ModelTensor:
    dtype, _ = DATATYPES.get(one.datatype, (None, ""))
    return ModelTensor(one.name, one.datatype, dtype, tuple(one.shape))


class ModelCounters(Counters[Counter[str]]):
    """Models' statistics, all of them together.

    Args:
        address: of the server, "host:port".
        models: name and version of each that is sent; "" for all its versions.
    """

    def __init__(self, address: str, models: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self._address = address
        self._models = tuple(models)

    def read(self) -> Counter[str]:
        """The counts by name; raises LayerwireError if the server has no such statistics, or doesn't know a model."""
        counts: Counter[str] = Counter()
        with _connect(self._address) as server:
            for name, version in self._models:
                for model in server.ask("ModelStatistics", name=name, version=version).model_stats:
                    counts["rows"] += model.inference_count
                    counts["batches"] += model.execution_count
                    for duration in _DURATIONS:
                        counts[f"{duration}.count"] += getattr(model.inference_stats, duration).count
                        counts[f"{duration}.ns"] += getattr(model.inference_stats, duration).ns
        return counts

    def _read(self) -> Counter[str] | None:
        try:
            return self.read()
        except LayerwireError:
            return None

    def _growth(self, before: Counter[str], after: Counter[str], calls: int) -> Server:
        anew = any(after[name] < count for name, count in before.items())
        growth = after if anew else Counter({name: count - before[name] for name, count in after.items()})
        batches, successes = growth["batches"], growth["success.count"]
        note = None
        if anew:
            note = STARTED_ANEW
        elif successes > MORE * calls + SPARE_CALLS:
            note = f"others called at the same time: the server answered {successes:,} calls"
        return Server(
            source=f"ModelStatistics of {', '.join(name for name, _ in self._models)} at {self._address}",
            calls=successes,
            queue=_phase(growth, "queue"),
            copy_in=_phase(growth, "compute_input"),
            kernel=_phase(growth, "compute_infer"),
            copy_out=_phase(growth, "compute_output"),
            batch_calls=successes / batches if batches else None,
            batch_rows=growth["rows"] / batches if batches else None,
            note=note,
        )


def _phase(growth: Counter[str], name: str) -> Phase | None:
    count = growth[f"{name}.count"]
    return Phase(growth[f"{name}.ns"] / count * 1e-9) if count else None
