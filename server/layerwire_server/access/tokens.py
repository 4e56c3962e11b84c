"""The file of tokens: names, scopes and hashes, written by `layerwire token` and read by gateways.

It knows a file and the clock; nothing of gRPC. A token itself is seen once, by whoever makes it. It is 32 random bytes,
so its plain SHA-256 is all that needs to be kept: there is nothing to guess that a slow hash would slow down.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

Scope = Literal["infer", "admin"]
PREFIX = "layerwire_"  # by which scanners for secrets know one
_SECRET_BYTES = 32
_MOST_FILE_BYTES = 1 << 20
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}"  # it is the tenant's name, in logs too


class TokenFileError(Exception):
    """The file can't be used; the text is one sentence."""


class Token(BaseModel):
    """What is kept of a token.

    Attributes:
        id: what it is revoked by where its name has several.
        name: whose it is; several live tokens may have one name, so that one can be replaced without a pause.
        sha256: of the token, in hexadecimal digits.
        scopes: what it is for; "admin" is for changes of the store, and for all that "infer" is for.
        creation_time: when it was made.
        expires: from when on it isn't valid; None: never.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
    name: Annotated[str, StringConstraints(pattern=f"^{_NAME}$")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    creation_time: AwareDatetime
    expires: AwareDatetime | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether it hasn't expired."""
        return self.expires is None or now < self.expires

    def allows(self, scope: Scope) -> bool:
        """Whether it is for this."""
        return scope in self.scopes or "admin" in self.scopes


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: tuple[Token, ...] = ()


def digest(token: str | bytes) -> str:
    """What a token is known by."""
    return hashlib.sha256(token if isinstance(token, bytes) else token.encode()).hexdigest()


class TokenFile:
    """A file of tokens, which is always there whole.

    Args:
        path: where it is, or will be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Token, ...]:
        """All tokens, also those that have expired.

        Raises:
            TokenFileError: it isn't there, can't be read, or isn't such a file.
        """
        try:
            with self.path.open("rb") as file:
                text = file.read(_MOST_FILE_BYTES + 1)
        except OSError as error:
            raise TokenFileError(f"{self.path} can't be read: {error.strerror}") from None
        if len(text) > _MOST_FILE_BYTES:
            raise TokenFileError(f"{self.path} is larger than {_MOST_FILE_BYTES} bytes")
        try:
            return _Content.model_validate_json(text).tokens
        except ValidationError as error:  # whose text may show what the file holds
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise TokenFileError(
                f"{self.path} is no file of tokens: {place + ': ' if place else ''}{first['msg']}"
            ) from None

    def add(self, name: str, scopes: Sequence[Scope], lifetime: timedelta | None = None) -> str:
        """Makes a token, keeps its hash, and returns it.

        Raises:
            TokenFileError: the name is none, or the file can't be read or written.
        """
        secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        now = datetime.now(UTC).replace(microsecond=0)
        try:
            token = Token(
                id=secrets.token_hex(4),
                name=name,
                sha256=digest(secret),
                scopes=tuple(dict.fromkeys(scopes)),
                creation_time=now,
                expires=None if lifetime is None else now + lifetime,
            )
        except ValidationError:
            raise TokenFileError(
                f"a token's name is up to 63 letters, digits and _.@-, the first a letter or a digit, got {name!r}"
            ) from None
        except OverflowError:
            raise TokenFileError("a token can't live for so long") from None
        self._change(lambda tokens: (*tokens, token))
        return secret

    def revoke(self, name_or_id: str) -> tuple[Token, ...]:
        """Takes out the tokens of a name, or the one of an id; those that it took out.

        Raises:
            TokenFileError: there is none, or the file can't be read or written.
        """
        revoked_tokens: list[Token] = []

        def rest(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
            revoked_tokens.extend(token for token in tokens if name_or_id in (token.name, token.id))
            return tuple(token for token in tokens if token not in revoked_tokens)

        if not self.path.exists():
            raise TokenFileError(f"{self.path} can't be read: {os.strerror(2)}")
        self._change(rest)
        if not revoked_tokens:
            raise TokenFileError(f"{self.path} has no token of that name or id")
        return tuple(revoked_tokens)

    def _change(self, change: Callable[[tuple[Token, ...]], tuple[Token, ...]]) -> None:
        try:
            with self._lock():
                tokens = change(self.read() if self.path.exists() else ())
                text = _Content(tokens=tokens).model_dump_json(indent=2, exclude_none=True)
                self._write(text.encode() + b"\n")
        except OSError as error:
            raise TokenFileError(f"{self.path} can't be written: {error.strerror}") from None

    def _write(self, text: bytes) -> None:
        """Puts a whole new file in the place of the old one, for its owner alone, or as open as the old one is."""
        mode = self.path.stat().st_mode & 0o777 if self.path.exists() else 0o600
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                os.fchmod(file.fileno(), mode)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Holds off others who change the file; it is the folder that is locked, for the file itself is replaced."""
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
