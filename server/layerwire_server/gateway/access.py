"""Whether an RPC may begin, and by whose token: decided by its metadata, before its request is read.

It knows tokens, which method needs what, and gRPC's credentials; nothing of requests.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from layerwire.errors import LayerwireError, PermissionDeniedError, UnauthenticatedError
from layerwire_server.access.certificates import CertificateContents, Certificates
from layerwire_server.access.file_state import file_state
from layerwire_server.access.tokens import Token, TokenFile, TokenFileError, digest
from layerwire_server.metrics import Metrics

log = logging.getLogger(__name__)

_KEY = "authorization"
_SCHEME = "bearer "
_MOST_TOKEN_CHARACTERS = 512
_WRONG = "the token isn't valid, or no longer"


class Caller(NamedTuple):
    """Whose an RPC is, by its token.

    Attributes:
        name: the token's.
        sha256: of the token.
    """

    name: str
    sha256: str


ANYBODY = Caller("", "")  # who needs no token


class Access:
    """Decides for each RPC.

    Args:
        tokens: the file with the tokens; None: none are asked for.
        admin_methods: full names ("/package.Service/Method") of what needs the scope "admin".
        open_services: beginnings of full names ("/package.Service/") of what needs no token at all.

    Raises:
        TokenFileError: the file can't be used.
    """

    def __init__(
        self, tokens: Path | None, admin_methods: Iterable[str], open_services: Iterable[str], metrics: Metrics
    ) -> None:
        self._file = None if tokens is None else TokenFile(tokens)
        self._admin_methods = frozenset(method.encode() for method in admin_methods)
        self._open_services = tuple(service.encode() for service in open_services)
        self._rejections = {
            reason: metrics.counter("layerwire_rejected_total", reason=reason)
            for reason in ("unauthenticated", "permission")
        }
        self._tokens: Mapping[str, Token] = {}
        self._file_state: object = None
        if self._file is not None:
            self._file_state = file_state(self._file.path)
            self._tokens = _by_digest(self._file.read())

    @property
    def needs_tokens(self) -> bool:
        """Whether RPCs need tokens."""
        return self._file is not None

    def caller(self, event: Any) -> Caller:
        """Whose an RPC is that gRPC tells of.

        Raises:
            LayerwireError: it may not begin.
        """
        method = event.call_details.method
        if self._file is None or method.startswith(self._open_services):
            return ANYBODY
        try:
            token = self._token(event.invocation_metadata)
            if method in self._admin_methods and not token.allows("admin"):
                raise PermissionDeniedError(f"the token has no scope admin, which {method.decode()} needs")
            if not token.allows("infer"):
                raise PermissionDeniedError("the token has no scope for this")
        except LayerwireError as error:
            self._rejections["unauthenticated" if isinstance(error, UnauthenticatedError) else "permission"].add()
            raise error.with_traceback(None) from None
        return Caller(token.name, token.sha256)

    def is_welcome(self, caller: Caller) -> bool:
        """Whether an RPC that has begun may go on: its token is still there, and hasn't expired."""
        if self._file is None or not caller.sha256:
            return True
        token = self._tokens.get(caller.sha256)
        return token is not None and token.is_live(datetime.now(UTC))

    def refresh(self) -> None:
        """Reads the file again if it has changed; one that can't be read changes nothing."""
        if self._file is None:
            return
        state = file_state(self._file.path)
        if state == self._file_state:
            return
        self._file_state = state
        try:
            self._tokens = _by_digest(self._file.read())
        except TokenFileError as error:
            log.warning("tokens stay as they were: %s", error)
        else:
            log.info("tokens are read again: %d", len(self._tokens))

    def _token(self, metadata: Iterable[Any]) -> Token:
        values = [value for key, value in metadata if key == _KEY]
        if not values:
            raise UnauthenticatedError("a token is needed: metadata authorization, Bearer TOKEN")
        value = values[0]
        if len(values) > 1 or not isinstance(value, str) or value[: len(_SCHEME)].lower() != _SCHEME:
            raise UnauthenticatedError("metadata authorization must be there once, as Bearer TOKEN")
        secret = value[len(_SCHEME) :].strip()
        if len(secret) > _MOST_TOKEN_CHARACTERS:
            raise UnauthenticatedError(_WRONG)
        # What is looked up is a hash, so what the time tells of it says nothing about any token.
        sha256 = digest(secret)
        token = self._tokens.get(sha256)
        if token is None or not hmac.compare_digest(token.sha256, sha256) or not token.is_live(datetime.now(UTC)):
            raise UnauthenticatedError(_WRONG)
        return token


def server_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """GRPC's credentials, which look for changes at each handshake."""

    def change() -> Any:  # called in whatever thread shakes hands
        contents = certificates.change()
        return None if contents is None else _configuration(contents)

    contents = certificates.contents
    return grpc.dynamic_ssl_server_credentials(
        _configuration(contents), change, require_client_authentication=contents.client_ca is not None
    )


def _configuration(contents: CertificateContents) -> Any:
    return grpc.ssl_server_certificate_configuration([(contents.key, contents.certificate)], contents.client_ca)


def _by_digest(tokens: Iterable[Token]) -> dict[str, Token]:
    return {token.sha256: token for token in tokens}
