"""A client's settings, checked once: addresses, credentials, metadata, limits; and the channels made of them.

It knows gRPC's credentials, options and forms of addresses; neither calls nor loops.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import grpc.aio

from layerwire.transport.profile import profile
from layerwire.transport.tls import Tls, make_credentials
from layerwire.wire import message_parts
from layerwire.wire.shared_memory import IS_AVAILABLE

Metadata: TypeAlias = Mapping[str, str | bytes] | Sequence[tuple[str, str | bytes]]

DEFAULT_MAX_MESSAGE_BYTES = 64 << 20
DEFAULT_MAX_CALLS_IN_FLIGHT = 4096
DEFAULT_MAX_BYTES_IN_FLIGHT = 256 << 20

_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[ -~]*")
_AUTHORIZATION = "authorization"
_CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    *message_parts.CHANNEL_OPTIONS,
    # Each client has connections of its own, so that closing one, or a fork, leaves others alone.
    ("grpc.use_local_subchannel_pool", 1),
    # The stream's own back-off decides when to try again; the channel's only must not be slower.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A server that vanishes without a word is noticed: pings when idle, TCP_USER_TIMEOUT for what isn't acknowledged.
    # grpcio's servers hang up on pings more often than every 300 seconds.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

# gRPC's own forms, which it reads itself: https://github.com/grpc/grpc/blob/master/doc/naming.md
_NAMED = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):.")
_SOCKETS = ("unix:", "unix-abstract:")
_HOST = re.compile(r"[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+(%\w+)?\]")
# What people write in place of a host, and the rule that it breaks.
_MISTAKES = {
    re.compile(r"[a-z]+://.*"): "without a scheme",
    re.compile(r"[0-9A-Fa-f:]*::[0-9A-Fa-f:]*|([0-9A-Fa-f]+:){2,}[0-9A-Fa-f]*"): "with brackets round IPv6",
}


@dataclass(frozen=True)
class Settings:
    """What is said once, when a client is made."""

    addresses: tuple[str, ...]
    metadata: tuple[tuple[str, str | bytes], ...] = field(default=(), repr=False)  # it may hold a token
    credentials: grpc.ChannelCredentials | None = None
    server_name: str | None = None
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    max_retries: int = 2
    max_calls_in_flight: int = DEFAULT_MAX_CALLS_IN_FLIGHT
    max_bytes_in_flight: int = DEFAULT_MAX_BYTES_IN_FLIGHT
    shared_memory: str = "auto"

    def shares_memory(self, address: str) -> bool:
        """Whether memory may be shared with the server there, if it is on this host indeed."""
        return self.shared_memory == "auto" and IS_AVAILABLE and is_loopback(address)

    def channel(self, address: str) -> grpc.aio.Channel:
        """A channel to one of the addresses, on the running loop."""
        options = self._options(address)
        if self.credentials is None:
            return grpc.aio.insecure_channel(address, options=options)
        return grpc.aio.secure_channel(address, self.credentials, options=options)

    def blocking_channel(self, address: str) -> grpc.Channel:
        """A channel for RPCs that a thread waits for, to one of the addresses."""
        if self.credentials is None:
            return grpc.insecure_channel(address, self._options(address))
        return grpc.secure_channel(address, self.credentials, self._options(address))

    def _options(self, address: str) -> tuple[tuple[str, Any], ...]:
        options: tuple[tuple[str, Any], ...] = (
            *_CHANNEL_OPTIONS,
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
        )
        if is_loopback(address):
            options += (("grpc.enable_http_proxy", 0),)  # a proxy's own localhost is another host
        if self.server_name is not None:
            options += (("grpc.ssl_target_name_override", self.server_name),)
        return options


def make_settings(
    address: str | Sequence[str],
    token: str | None,
    tls: Tls,
    metadata: Metadata | None,
    shared_memory: str = "auto",
    **limits: int,
) -> Settings:
    """The settings of a client's arguments, which `Client` documents.

    Raises:
        TypeError: one is of a wrong type.
        ValueError: one is out of range, or a token would travel in the clear.
        OSError: a certificate's file can't be read.
    """
    addresses = (address,) if isinstance(address, str) or not isinstance(address, Iterable) else tuple(address)
    if shared_memory not in ("auto", "off"):
        raise ValueError(f'shared_memory must be "auto" or "off", got {shared_memory!r}')
    if not addresses:
        raise ValueError("address: at least one is needed")
    for one in addresses:
        check_address(one)
    for name, limit in limits.items():
        least = 0 if name == "max_retries" else 1
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"{name.removeprefix('max_') if not least else name} must be an integer, got {limit!r}")
        if limit < least:
            raise ValueError(f"{name} must be at least {least}, got {limit}")
    pairs = [_checked_pair(*pair) for pair in (metadata.items() if isinstance(metadata, Mapping) else metadata or ())]
    needs_token = token is None and not any(key == _AUTHORIZATION for key, _ in pairs)
    if needs_token or tls is None:
        unsaid = profile(addresses)
        tls = unsaid.tls if tls is None else tls
        token = unsaid.token if needs_token else token
    credentials, server_name = make_credentials(tls)
    if token is not None and token != "":  # "" is none, whatever the user's file says
        pairs.append((_AUTHORIZATION, f"Bearer {_checked_token(token)}"))
    in_clear = [one for one in addresses if credentials is None and not is_loopback(one)]
    if in_clear and any(key == _AUTHORIZATION for key, _ in pairs):
        what = "token" if token is not None else f"metadata: {_AUTHORIZATION}"
        raise ValueError(f"{what}: {in_clear[0]} would get it in the clear; pass tls=True, or tls=PATH of a CA")
    return Settings(addresses, tuple(pairs), credentials, server_name, shared_memory=shared_memory, **limits)


def _checked_token(token: Any) -> str:
    if not isinstance(token, str):
        raise TypeError(f"token must be a string, got {type(token).__name__}")
    if not _VALUE.fullmatch(token):
        raise ValueError("token: has characters other than printable ASCII")
    return token


def _checked_pair(key: Any, value: Any) -> tuple[str, str | bytes]:
    """A pair as gRPC wants it; its own complaint would come with the first call, and in the background."""
    binary = isinstance(key, str) and key.lower().endswith("-bin")
    if not isinstance(key, str) or not isinstance(value, bytes if binary else str):
        raise TypeError(f"metadata: {key!r} must be a string, and its value a string, or bytes where it ends with -bin")
    if not _KEY.fullmatch(key.lower()) or (isinstance(value, str) and not _VALUE.fullmatch(value)):
        raise ValueError(f"metadata: {key!r} or its value has characters that HTTP/2 headers can't have")
    return key.lower(), value


def check_address(address: str) -> None:
    """Whether it is an address, as far as its text says.

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
        hint = next((f", {rule}" for pattern, rule in _MISTAKES.items() if pattern.fullmatch(host)), "")
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
