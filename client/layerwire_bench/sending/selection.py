"""From what the user selects to a workload: an operator, a stored program, or a mix from a file.

It asks the first server what it has to be asked; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerwire import Client
from layerwire.errors import NotFoundError, UnimplementedError
from layerwire_bench.plan import TargetSpec
from layerwire_bench.sending import mix, operators, programs
from layerwire_bench.sending.tensors import Array, SampleSettings, Source
from layerwire_bench.workload import Sample, Workload

_TIMEOUT_SECONDS = 60.0
_MANY_BYTES = 64 << 10


class Selection:
    """Makes workloads for targets, of which the first with an address is asked what is stored.

    Attributes:
        notes: sentences to be shown with the result.

    Raises (all methods): ValueError in words for the user, LayerwireError where the server refuses.
    """

    def __init__(self, targets: Sequence[TargetSpec], settings: SampleSettings) -> None:
        self._servers = [target for target in targets if target.address is not None]
        self._settings = replace(settings, fetch=self._weights)
        self.notes: list[str] = []

    def operator(self, function: str, shape: Sequence[int], dtype: str, **options: Any) -> Workload:
        """One operator with a shape; options of None are left out."""
        arguments = {name: value for name, value in options.items() if value is not None}
        entry, samples = operators.entry_for(function, shape, arguments, dtype=dtype, settings=self._settings)
        self._note_weights(samples[0])
        return mix.workload([(entry, samples)])

    def program(
        self, program: str, version: int | None, rows: int | None, shapes: Iterable[tuple[str, Source]]
    ) -> Workload:
        """A stored program, with shapes of its inputs by name."""
        stored = self._program(program, version)
        return mix.workload([programs.entry_for(stored, dict(shapes), rows=rows, settings=self._settings)])

    def mix(self, file: Path) -> Workload:
        """The calls of a file, whose weights are put on all servers that take them."""
        calls = mix.load(file, self._program, self._settings)
        for address in dict.fromkeys(str(one.address) for one in self._servers if calls.weights and one.how != "oip"):
            with Client(address, timeout=_TIMEOUT_SECONDS) as client:
                for name, array in calls.weights.items():
                    client.put_weights(name, array)
        return calls.workload

    def _note_weights(self, sample: Sample) -> None:
        """A weight that goes along with each call often costs more than the call."""
        tensors = (sample.request.tensors.get(name) for name in ("weight", "bias"))
        nbytes = sum(one.nbytes for one in tensors if one is not None and not isinstance(one, str))
        if self._servers and nbytes > _MANY_BYTES:
            remedy = "`layerwire put-weights`, and name:NAME here, keep them on the server."
            self.notes.append(f"Each call brings {nbytes / 2**20:.1f} MiB of weights along: {remedy}")

    def _weights(self, name: str) -> Array | None:
        """Stored weights of the first server, to compute with them here; None where it has none of that name."""
        if not self._servers or self._servers[0].how == "oip":
            return None
        try:
            with Client(str(self._servers[0].address), timeout=_TIMEOUT_SECONDS) as client:
                array: Array = client.get_weights(name)
        except (NotFoundError, UnimplementedError):
            return None
        return array

    def _program(self, name: str, version: int | None) -> programs.Program:
        """What the first server knows of a program, or of a model where it is another server's."""
        if not self._servers:
            raise ValueError(f"run {name}: a program is taken from a server: give ADDRESS, and --compare stream local")
        first = self._servers[0]
        try:
            with Client(str(first.address), timeout=_TIMEOUT_SECONDS) as client:
                program = programs.stored_program(client, name, version)
        except UnimplementedError:
            if first.how != "oip":
                raise
            program = _model(str(first.address), name, version)
        if program.note is not None:
            self.notes.append(f"Answers of {name} are compared with the first one: {program.note}.")
        return program


def _model(address: str, name: str, version: int | None) -> programs.Program:
    from layerwire_bench.servers import inference

    model = inference.model(address, name, "" if version is None else str(version))
    strange = next((one for one in model.inputs if one.dtype is None), None)
    if strange is not None:
        raise ValueError(f"run {name}: its input {strange.name} is {strange.datatype}, which can't be filled at random")
    inputs = tuple(programs.Input(one.name, str(one.dtype), tuple(one.shape)) for one in model.inputs)
    return programs.Program(name, version, inputs, note=f"{address} doesn't tell what the model computes")
