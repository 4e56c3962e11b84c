"""Addresses of servers, "host:port": what is one, and which are this host itself.

It knows how gRPC writes them; neither channels nor credentials.
"""

from __future__ import annotations

import ipaddress
import re

# gRPC's own forms, which it reads itself: https://github.com/grpc/grpc/blob/master/doc/naming.md
_NAMED = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):.")
_SOCKETS = ("unix:", "unix-abstract:")
_HOST = re.compile(r"[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+(%\w+)?\]")
# What people write in place of a host, and what they are told.
_MISTAKES = {
    re.compile(r"[a-z]+://.*"): "without a scheme",
    re.compile(r"[0-9A-Fa-f:]*::[0-9A-Fa-f:]*|([0-9A-Fa-f]+:){2,}[0-9A-Fa-f]*"): "with brackets round IPv6",
}


def check(address: str) -> None:
    """Whether it is an address, as far as can be told without asking for it.

    Raises:
        TypeError: it is no string.
        ValueError: it is not "host:port", nor one of gRPC's own forms.
    """
    if not isinstance(address, str):
        raise TypeError(f'address must be "host:port", got {type(address).__name__}')
    if address.startswith(_SOCKETS) and _NAMED.match(address):
        return
    host, _, port = address.rpartition(":")
    if not (_NAMED.match(address) or _HOST.fullmatch(host)):
        hint = next((f", {told}" for pattern, told in _MISTAKES.items() if pattern.fullmatch(host)), "")
        raise ValueError(f'address must be "host:port"{hint}, got "{address}"')
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise ValueError(f'address must be "host:port", got "{address}"')


def is_loopback(address: str) -> bool:
    """Whether what is sent there stays on this host."""
    if address.startswith(_SOCKETS):
        return True
    host = address.removeprefix("ipv4:").removeprefix("ipv6:").rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
