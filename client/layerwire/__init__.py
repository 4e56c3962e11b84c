"""Layerwire: neural-network layers over the wire. This is the SDK; `Client` is where to begin.

It knows the names it offers and loads what is behind them at first use: the server's processes import the contract, the
codec and the errors through this package, and have no use for a client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerwire import errors
    from layerwire.client import AsyncClient, Client
    from layerwire.errors import LayerwireError
    from layerwire.transport.options import Timed, Timing
    from layerwire.transport.rpc import Estimate
    from layerwire.transport.sessions import CallFuture
    from layerwire.transport.tls import TLS

__all__ = [
    "TLS",
    "AsyncClient",
    "CallFuture",
    "Client",
    "Estimate",
    "LayerwireError",
    "Timed",
    "Timing",
    "errors",
]

_MODULES = {
    "TLS": "transport.tls",
    "AsyncClient": "client",
    "CallFuture": "transport.sessions",
    "Client": "client",
    "Estimate": "transport.rpc",
    "LayerwireError": "errors",
    "Timed": "transport.options",
    "Timing": "transport.options",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("layerwire.errors")
    if name == "__version__":
        from importlib.metadata import version

        return version("layerwire")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
