"""Addresses of this host: tried and held, before gRPC gets them.

It knows sockets; nothing of what is served there.
"""

from __future__ import annotations

import errno
import os
import socket

_UNIX = "unix:"
# What connecting to a path says when nobody has it, and when somebody has; EAGAIN is a full backlog.
_NOBODY = frozenset({errno.ECONNREFUSED, errno.ENOENT})
_SOMEBODY = frozenset({0, errno.EAGAIN, errno.EPROTOTYPE})


class PortError(Exception):
    """An address can't be had; the text is one sentence that says which, and why."""


def split(address: str) -> tuple[str, int]:
    """Host, without brackets, and port of host:port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


class Reservation:
    """A hold on an address for as long as the server runs: bound and never listening.

    Linux lets gRPC bind and listen beside it, as both reuse the address and this one doesn't listen, but gives the port
    to nobody who asks for any free one, while a gateway is being replaced. It fails when somebody listens already.

    Args:
        address: host:port, with port 0 for a free one; or unix:path, which isn't held, only refused when it is served.
        flag: where the address comes from, for the error.
        share: whether several gateways are to listen on it.

    Attributes:
        address: the same with the real port.

    Raises:
        PortError: somebody has it, or there is no such address here.
    """

    def __init__(self, address: str, flag: str, *, share: bool) -> None:
        self.address = address
        self._socket: socket.socket | None = None
        try:
            if address.startswith(_UNIX):
                _refuse_if_served(address.removeprefix(_UNIX))
                return
            host, port = split(address)
            family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            _refuse_if_listening(family, kind, place)
            self._socket = socket.socket(family, kind)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.bind(place)
        except OSError as error:
            self.close()
            raise PortError(f"{flag}: {address} can't be had: {error.strerror or error}") from None
        self.address = address.rpartition(":")[0] + f":{self._socket.getsockname()[1]}"

    def close(self) -> None:
        """Lets go of it."""
        if self._socket is not None:
            self._socket.close()


def _refuse_if_served(path: str) -> None:
    # gRPC unlinks a socket's file and binds its own, whoever listens on it; that of a dead server is to be replaced.
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code not in _NOBODY:
        number = errno.EADDRINUSE if code in _SOMEBODY else code
        raise OSError(number, os.strerror(number))


def _refuse_if_listening(family: int, kind: int, place: object) -> None:
    # Without SO_REUSEPORT on this socket, a listener that has it doesn't let us in.
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(place)  # type: ignore[arg-type]  # getaddrinfo's own
