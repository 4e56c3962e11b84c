"""The store as this worker knows it: names as of now, programs that passed their checks, and copies on the device.

It knows the store, programs and copies; nothing of calls, lanes or frames.

Names are a snapshot that is replaced as a whole, on the loop's thread, after what the new names point to has been
brought where the old was in use: a call sees either all of a change or nothing of it, and none waits for a load.
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
from layerwire_server.programs.graph import Inline, Recipe, Stored
from layerwire_server.programs.program import Program
from layerwire_server.programs.run import Run
from layerwire_server.programs.variant import Facts
from layerwire_server.storage.errors import StoreError
from layerwire_server.storage.names import NamedProgram, NamedTensor
from layerwire_server.storage.store import Store
from layerwire_server.worker.weights.single_flight import Once
from layerwire_server.worker.weights.stored_tensors import Originals
from layerwire_server.worker.weights.weights_cache import Absent, Bound, Copies, Weights, here

log = logging.getLogger(__name__)

_PROGRAMS = 128  # that passed their checks, with their plans but without weights
_SHOWN = 200


class Named(NamedTuple):
    """A snapshot of names."""

    weights: Mapping[str, NamedTensor]
    programs: Mapping[str, NamedProgram]
    version: int


class Catalog:
    """All that a worker has of a store. Its methods belong to the loop's thread unless they say otherwise.

    Attributes:
        copies, store, originals: the arguments.

    Args:
        store: the store.
        originals: its files of weights.
        copies: those on the device.
        facts: what programs are checked against.
    """

    def __init__(self, store: Store, originals: Originals, copies: Copies, facts: Facts) -> None:
        self.copies = copies
        self.store = store
        self.originals = originals
        self._facts = facts
        self._programs: OrderedDict[str, Program] = OrderedDict()
        self._coming = Once()
        self._checking = asyncio.Semaphore(1)  # checks hold Python's lock: several at once would only slow calls down
        self._names = Named({}, {}, 0)
        self._stored: dict[str, Stored] = {}
        self._adopt(self._snapshot())

    def weights(self, name: str) -> Weights:
        """The tensor of a name, as of now.

        Raises:
            NotFoundError: there is no such name.
            Absent: it isn't in memory.
        """
        stored = self._stored.get(name)
        if stored is None:
            raise NotFoundError(f"no weights named {name[:_SHOWN]!r}: put them with put_weights")
        return self.copies.weights(stored)

    def program(self, name: str, version: int | None) -> tuple[int, Program]:
        """A program by name, as of now, with the number of its version; the default one if none is asked for.

        Raises:
            NotFoundError: there is no such name or version.
            Absent: it isn't in memory.
        """
        named = self._names.programs.get(name)
        if named is None:
            raise NotFoundError(f"no program named {name[:_SHOWN]!r}", operator="run", field="name")
        number = named.default_version if version is None else version
        found = named.versions.get(number)
        if found is None:
            raise NotFoundError(f"program {name} has no version {number}", operator="run", field="version")
        return number, self._program(found.digest, lambda: self.load(found.digest))

    def definition(self, message: program_pb2.Program) -> Program:
        """A program that a call brings.

        Raises:
            NotFoundError: it names weights that aren't there.
            Absent: it hasn't been checked yet.
        """
        resolved = self.resolved(message)
        content = resolved.SerializeToString(deterministic=True)
        digest = hashlib.sha256(content).hexdigest()
        return self._program(digest, lambda: self.checked(resolved, digest))

    def resolved(self, message: program_pb2.Program) -> program_pb2.Program:
        """The program with tensors of files in place of the names of its constants.

        Raises:
            NotFoundError: there is no such name.
        """
        resolved = program_pb2.Program()
        resolved.CopyFrom(message)
        resolved.DiscardUnknownFields()
        for constant in resolved.constants:
            if constant.WhichOneof("content") == "tensor" and constant.tensor.WhichOneof("content") == "name":
                found = self._names.weights.get(constant.tensor.name)
                if found is None:
                    rule = f"is {constant.tensor.name[:_SHOWN]!r}, and there are no such weights"
                    raise NotFoundError(f"program: constant {constant.name[:_SHOWN]} {rule}", field=constant.name)
                constant.stored.digest, constant.stored.key = found.digest, found.key
        return resolved

    def checked(self, message: program_pb2.Program, digest: str) -> Program:
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
        return self.checked(message, digest)

    def spec_of(self, recipe: Recipe) -> TensorSpec:
        """The spec of a program's constant. For any thread.

        Raises:
            InvalidArgumentError: the store has no such tensor.
        """
        if isinstance(recipe, Inline):
            return recipe.spec
        try:
            return self.originals.spec(recipe)
        except (StoreError, NotFoundError) as error:
            raise InvalidArgumentError(f"program: {error}", operator="program", field=recipe.key[:_SHOWN]) from None

    def bound(self, run: Run) -> Bound:
        """The weights of a program's operator.

        Raises:
            Absent: they aren't in memory.
        """
        return self.copies.bound(run.digest, run.variant)

    async def refresh(self) -> None:
        """Adopts what the store's names say now, once what was in use under the old ones is there under the new."""
        if self._names.version == await asyncio.to_thread(self.store.names_version):
            return
        names = await asyncio.to_thread(self._snapshot)
        await asyncio.gather(*(self._bring(digest) for digest in self._replacements(names)))
        self._adopt(names)

    @property
    def names(self) -> Named:
        """The names as of now."""
        return self._names

    def _program(self, digest: str, load: Callable[[], Program]) -> Program:
        program = self._programs.get(digest)
        if program is None:
            raise Absent(lambda: self._load(digest, load))
        self._programs.move_to_end(digest)
        return program

    async def _load(self, digest: str, load: Callable[[], Program]) -> None:
        if digest in self._programs:  # it came between Absent and now
            return

        async def bring() -> None:
            async with self._checking:
                self._programs[digest] = await asyncio.to_thread(load)
            if len(self._programs) > _PROGRAMS:
                self._programs.popitem(last=False)

        await self._coming.do(digest, bring)

    def _snapshot(self) -> Named:
        version = self.store.names_version()  # before the names: what changes meanwhile is seen next time
        return Named(self.store.weights(), self.store.programs(), version)

    def _adopt(self, names: Named) -> None:
        self._names = names
        self._stored = {name: Stored(found.digest, found.key) for name, found in names.weights.items()}
        pinned = {(found.digest, found.key) for found in names.weights.values() if found.pinned}
        versions = (version for program in names.programs.values() for version in program.versions.values())
        pinned |= {(version.digest, "") for version in versions if version.pinned}
        self.copies.pin(frozenset(pinned))

    def _replacements(self, names: Named) -> list[str]:
        """Digests of the new default versions of programs whose old ones are in use."""
        found = []
        for name, program in names.programs.items():
            new = program.versions[program.default_version].digest
            old = self._names.programs.get(name)
            used = old is not None and old.versions[old.default_version].digest in self._programs
            if used and new not in self._programs:
                found.append(new)
        return found

    async def _bring(self, digest: str) -> None:
        def bound() -> Bound:
            program = self._program(digest, lambda: self.load(digest))
            return self.copies.bound(program.digest, program.variant)

        try:
            await here(bound)
        except LayerwireError:
            log.exception("a program is passed over")
