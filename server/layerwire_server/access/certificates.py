"""The server's certificate and the authority of its clients' ones: files of PEM, read again when they have changed.

It knows files; neither gRPC nor ports.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import NamedTuple

from layerwire_server.access.file_state import file_state

log = logging.getLogger(__name__)


class CertificateError(Exception):
    """The files can't be used; the text is one sentence."""


class CertificateContents(NamedTuple):
    """What is in the files; `client_ca` is None where clients need no certificates."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


class Certificates:
    """What the server proves itself by, and who signs its clients' certificates.

    Args:
        certificate: a file with the server's certificate, and what links it to its authority.
        key: a file with its private key, not encrypted.
        client_ca: a file with the authorities of clients' certificates, which every client must then show; or "".

    Attributes:
        contents: what is in the files, as last seen.

    Raises:
        CertificateError: a file can't be read or isn't what it should be.
    """

    def __init__(self, certificate: str, key: str, client_ca: str = "") -> None:
        self._files = [Path(file) for file in (certificate, key, client_ca) if file]
        self._states = [file_state(file) for file in self._files]
        self.contents = self._read()

    def change(self) -> CertificateContents | None:
        """What is in the files, if that is other than before and can be used."""
        states = [file_state(file) for file in self._files]
        if states == self._states:
            return None
        self._states = states
        try:
            contents = self._read()
        except CertificateError as error:  # perhaps one file of two is there: the other will change the states again
            log.warning("the new certificate isn't used: %s", error)
            return None
        if contents == self.contents:
            return None
        self.contents = contents
        log.info("a new certificate is used")
        return contents

    def _read(self) -> CertificateContents:
        try:
            certificate, key, *authorities = [file.read_bytes() for file in self._files]
        except OSError as error:
            raise CertificateError(f"{error.filename} can't be read: {error.strerror}") from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._files[0], self._files[1], password="")  # or it would ask for one
        except (ssl.SSLError, OSError):
            raise CertificateError(
                f"{self._files[0]} and {self._files[1]} are no certificate in PEM and its key, not encrypted"
            ) from None
        try:
            for authority in authorities:
                context.load_verify_locations(cadata=authority.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise CertificateError(f"{self._files[2]} holds no certificates in PEM") from None
        return CertificateContents(certificate, key, authorities[0] if authorities else None)
