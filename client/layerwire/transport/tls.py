"""How a client proves a server, and itself: `TLS`, and gRPC's credentials made of it.

It knows certificates' files; neither addresses nor channels.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import grpc

File: TypeAlias = str | PathLike[str]


@dataclass(frozen=True)
class TLS:
    """Certificates in files of PEM: `Client(address, tls=TLS(ca="ca.pem"))`.

    Attributes:
        ca: the authorities that the server's certificate must come from; None: the system's.
        certificate: the client's own, for servers that ask for one, with what links it to their authority.
        key: the certificate's private key, not encrypted.
        server_name: the name that the server's certificate must be for; None: the host of the address.

    Raises:
        ValueError: of certificate and key there is one without the other.
    """

    ca: File | None = None
    certificate: File | None = None
    key: File | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("tls: certificate and key go together, got one of them")

    def credentials(self) -> grpc.ChannelCredentials:
        """Credentials for gRPC, which itself would tell of a bad file only in its log, and late.

        Raises:
            OSError: a file can't be read.
            ValueError: one isn't what it should be.
        """
        read = [None if file is None else Path(file).read_bytes() for file in (self.ca, self.key, self.certificate)]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except ssl.SSLError:
            raise ValueError(f"tls: {self.ca} holds no certificates in PEM") from None
        try:
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, password="")  # or it would ask for one
        except ssl.SSLError:
            raise ValueError(
                f"tls: {self.certificate} and {self.key} are no certificate in PEM and its key, not encrypted"
            ) from None
        return grpc.ssl_channel_credentials(*read)


Tls: TypeAlias = bool | File | TLS | grpc.ChannelCredentials | None


def make_credentials(tls: Tls) -> tuple[grpc.ChannelCredentials | None, str | None]:
    """Credentials for gRPC, None for plain connections, and the name that the server's certificate must be for.

    Raises:
        TypeError: `tls` is nothing that can be made credentials.
        OSError, ValueError: as of `TLS.credentials`.
    """
    if tls is None or tls is False:
        return None, None
    if isinstance(tls, grpc.ChannelCredentials):
        return tls, None
    if isinstance(tls, str | PathLike):
        tls = TLS(ca=tls)
    certificates = TLS() if tls is True else tls
    if not isinstance(certificates, TLS):
        raise TypeError(
            f"tls must be True, a path, layerwire.TLS or grpc.ChannelCredentials, got {type(certificates).__name__}"
        )
    return certificates.credentials(), certificates.server_name
