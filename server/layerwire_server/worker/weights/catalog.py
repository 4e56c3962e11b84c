"""The store as this worker knows it: names as of now, programs that passed their checks, and the device's weights.

It knows the store, programs and the weights cache; nothing of calls, lanes or frames.

Names are a snapshot that is replaced as a whole, on the loop's thread, after what the new names point to has been
loaded where the old was in use: a call sees either all of a change or nothing of it, and none waits for a load.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from google.protobuf.message import DecodeError

from layerwire.errors import InvalidArgumentError, LayerwireError, NotFoundError
from layerwire.v1 import program_pb2
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.programs.graph import Inline, Recipe, StoredTensor
from layerwire_server.programs.program import Program
from layerwire_server.programs.run import Run
from layerwire_server.programs.variant import Facts
from layerwire_server.storage.errors import StoreError
from layerwire_server.storage.names import NamedProgram, NamedTensor
from layerwire_server.storage.store import Store
from layerwire_server.worker.weights.single_flight import SingleFlight
from layerwire_server.worker.weights.stored_tensors import StoredTensors
from layerwire_server.worker.weights.weights_cache import CacheMiss, ProgramWeights, Weights, WeightsCache, await_loaded

log = logging.getLogger(__name__)

_PROGRAMS = 128  # that passed their checks, with their plans but without weights
_SHOWN = 200


class Names(NamedTuple):
    """A snapshot of names."""

    weights: Mapping[str, NamedTensor]
    programs: Mapping[str, NamedProgram]
    version: int


class Catalog:
    """All that a worker has of a store. Its methods belong to the loop's thread unless they say otherwise.

    Attributes:
        store, stored_tensors, weights_cache: the arguments.

    Args:
        store: the store.
        stored_tensors: those of its files.
        weights_cache: those on the device.
        facts: what programs are checked against.
    """

    def __init__(self, store: Store, stored_tensors: StoredTensors, weights_cache: WeightsCache, facts: Facts) -> None:
        self.store = store
        self.stored_tensors = stored_tensors
        self.weights_cache = weights_cache
        self._facts = facts
        self._programs: OrderedDict[str, Program] = OrderedDict()
        self._loads = SingleFlight()
        self._check_slot = asyncio.Semaphore(1)  # checks hold Python's lock: several at once would only slow calls down
        self._names = Names({}, {}, 0)
        self._tensors: dict[str, StoredTensor] = {}
        self._adopt(self._snapshot())

    def weights(self, name: str) -> Weights:
        """The tensor of a name, as of now.

        Raises:
            NotFoundError: there is no such name.
            CacheMiss: it isn't in memory.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            raise NotFoundError(f"no weights named {name[:_SHOWN]!r}: put them with put_weights")
        return self.weights_cache.weights(tensor)

    def program(self, name: str, version: int | None) -> tuple[int, Program]:
        """A program by name, as of now, with the number of its version; the default one if none is asked for.

        Raises:
            NotFoundError: there is no such name or version.
            CacheMiss: it isn't in memory.
        """
        entry = self._names.programs.get(name)
        if entry is None:
            raise NotFoundError(f"no program named {name[:_SHOWN]!r}", operator="run", field="name")
        number = entry.default_version if version is None else version
        stored_version = entry.versions.get(number)
        if stored_version is None:
            raise NotFoundError(f"program {name} has no version {number}", operator="run", field="version")
        return number, self._program(stored_version.digest, lambda: self.load(stored_version.digest))

    def hold_program(self, digest: str) -> bool:
        """Whether a program is in memory; it was used just now."""
        if digest not in self._programs:
            return False
        self._programs.move_to_end(digest)
        return True

    def definition(self, message: program_pb2.Program) -> Program:
        """A program that comes with a call.

        Raises:
            NotFoundError: it names weights that aren't there.
            CacheMiss: it hasn't been checked yet.
        """
        message = self.resolve_names(message)
        content = message.SerializeToString(deterministic=True)
        digest = hashlib.sha256(content).hexdigest()
        return self._program(digest, lambda: self.check(message, digest))

    def resolve_names(self, message: program_pb2.Program) -> program_pb2.Program:
        """The program with tensors of files in place of the names of its constants.

        Raises:
            NotFoundError: there is no such name.
        """
        copy = program_pb2.Program()
        copy.CopyFrom(message)
        copy.DiscardUnknownFields()
        for constant in copy.constants:
            if constant.WhichOneof("content") == "tensor" and constant.tensor.WhichOneof("content") == "name":
                tensor = self._names.weights.get(constant.tensor.name)
                if tensor is None:
                    rule = f"is {constant.tensor.name[:_SHOWN]!r}, and there are no such weights"
                    raise NotFoundError(f"program: constant {constant.name[:_SHOWN]} {rule}", field=constant.name)
                constant.stored.digest, constant.stored.key = tensor.digest, tensor.key
        return copy

    def check(self, message: program_pb2.Program, digest: str) -> Program:
        """A program whose constants are resolved, checked as a whole. For any thread; it takes its time.

        Raises:
            LayerwireError: it is wrong; the message names the node.
        """
        return Program(digest, message, self.spec_of, self._facts)

    def load(self, digest: str) -> Program:
        """A program of the store, checked as a whole. For any thread; it takes its time.

        Raises:
            StoreError: it isn't there, or damaged.
            LayerwireError: it can't run here.
        """
        message = program_pb2.Program()
        try:
            message.ParseFromString(self.store.read_program(digest))
        except DecodeError as error:
            raise StoreError(f"program {digest} is none") from error
        return self.check(message, digest)

    def spec_of(self, recipe: Recipe) -> TensorSpec:
        """The spec of a program's constant. For any thread.

        Raises:
            InvalidArgumentError: the store has no such tensor.
        """
        if isinstance(recipe, Inline):
            return recipe.spec
        try:
            return self.stored_tensors.spec(recipe)
        except (StoreError, NotFoundError) as error:
            raise InvalidArgumentError(f"program: {error}", operator="program", field=recipe.key[:_SHOWN]) from None

    def program_weights(self, run: Run) -> ProgramWeights:
        """The weights of a program's operator.

        Raises:
            CacheMiss: they aren't in memory.
        """
        return self.weights_cache.program_weights(run.digest, run.variant)

    async def refresh(self) -> None:
        """Adopts what the store's names say now, once what was in use under the old ones is there under the new."""
        if self._names.version == await asyncio.to_thread(self.store.names_version):
            return
        names = await asyncio.to_thread(self._snapshot)
        await asyncio.gather(*(self._load_replacement(digest) for digest in self._replacements(names)))
        self._adopt(names)

    @property
    def names(self) -> Names:
        """The names as of now."""
        return self._names

    def _program(self, digest: str, load: Callable[[], Program]) -> Program:
        program = self._programs.get(digest)
        if program is None:
            raise CacheMiss(lambda: self._load(digest, load))
        self._programs.move_to_end(digest)
        return program

    async def _load(self, digest: str, load: Callable[[], Program]) -> None:
        if digest in self._programs:  # it came between CacheMiss and now
            return

        async def check() -> None:
            async with self._check_slot:
                self._programs[digest] = await asyncio.to_thread(load)
            if len(self._programs) > _PROGRAMS:
                self._programs.popitem(last=False)

        await self._loads.do(digest, check)

    def _snapshot(self) -> Names:
        version = self.store.names_version()  # before the names: what changes meanwhile is seen next time
        return Names(self.store.weights(), self.store.programs(), version)

    def _adopt(self, names: Names) -> None:
        self._names = names
        self._tensors = {name: StoredTensor(tensor.digest, tensor.key) for name, tensor in names.weights.items()}
        keys = {(tensor.digest, tensor.key) for tensor in names.weights.values() if tensor.pinned}
        versions = (version for program in names.programs.values() for version in program.versions.values())
        keys |= {(version.digest, "") for version in versions if version.pinned}
        self.weights_cache.pin(frozenset(keys))

    def _replacements(self, names: Names) -> list[str]:
        """Digests of the new default versions of programs whose old ones are in use."""
        digests = []
        for name, program in names.programs.items():
            new = program.versions[program.default_version].digest
            old = self._names.programs.get(name)
            in_use = old is not None and old.versions[old.default_version].digest in self._programs
            if in_use and new not in self._programs:
                digests.append(new)
        return digests

    async def _load_replacement(self, digest: str) -> None:
        def find() -> ProgramWeights:
            program = self._program(digest, lambda: self.load(digest))
            return self.weights_cache.program_weights(program.digest, program.variant)

        try:
            await await_loaded(find)
        except LayerwireError:
            log.exception("a program is passed over")
