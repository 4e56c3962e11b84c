"""What a program doesn't say about how it comes in, token and TLS: variables say it, else the user's file does.

It knows names of variables and the file's form; nothing of channels. A token in the file belongs to addresses that it
names, so that it goes nowhere else.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerwire.transport.tls import TLS

PREFIX = "LAYERWIRE_CLIENT_"
# Key in the file -> what it is; the variable is the prefix and the key in capitals.
KEYS = {
    "token_file": "a file that holds the token",
    "tls": "TLS, by the system's authorities unless others are given",
    "tls_ca": "authorities in PEM that the server's certificate must come from",
    "tls_certificate": "the client's own certificate in PEM",
    "tls_key": "its private key in PEM",
    "tls_server_name": "the name that the server's certificate must be for",
}
_TOKEN_KEYS = {"token", "token_file"}
_ALL_KEYS = ("token", *KEYS)  # the token itself is no flag: all users of a host can read command lines
_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_CONFIG_KEY = "config"


@dataclass(frozen=True)
class Profile:
    """What variables or the file say; None where they say nothing."""

    token: str | None = None
    tls: bool | TLS | None = None


def variable(key: str) -> str:
    """The variable of a key."""
    return PREFIX + key.upper()


def config_path() -> Path:
    """The user's file."""
    named = os.environ.get(variable(_CONFIG_KEY))
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(named or f"{folder}/layerwire.toml").expanduser()


def profile(addresses: Sequence[str]) -> Profile:
    """What is said for these addresses: each key by its variable, else by the file, where it stands below the address.

    Raises:
        ValueError: something isn't what it should be, or the file says different things of the addresses.
        OSError: a file that is named can't be read.
    """
    values: dict[str, Any] = {key: os.environ[variable(key)] for key in _ALL_KEYS if os.environ.get(variable(key))}
    in_file = _table(addresses)
    if values.keys() & _TOKEN_KEYS:  # one token, and not another beside it
        in_file = {key: value for key, value in in_file.items() if key not in _TOKEN_KEYS}
    values = {**in_file, **values}
    return Profile(_token(values), _tls(values))


def _table(addresses: Sequence[str]) -> dict[str, Any]:
    """What the file has below the addresses."""
    path = config_path()
    try:
        with path.open("rb") as file:
            others_may_read = os.fstat(file.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH)
            tables = tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        if os.environ.get(variable(_CONFIG_KEY)):
            raise
        return {}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for address, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(f'{path}: {address} must stand in a table ["host:port"]')  # noqa: TRY004  # a wrong file
        for key, value in table.items():
            _check(f'{path}: ["{address}"]: {key}', key, value)
    if others_may_read and any("token" in table for table in tables.values()):
        raise ValueError(f"{path} holds a token, and others may read it; chmod 600 {path}")
    first, *others = [dict(tables.get(address, {})) for address in addresses]
    if any(table != first for table in others):
        raise ValueError(f"{path} says different things of {', '.join(addresses)}")
    return first


def _check(place: str, key: str, value: object) -> None:
    if key not in _ALL_KEYS:
        raise ValueError(f"{place} is no key; there are {', '.join(_ALL_KEYS)}")
    wanted, words = (bool, "true or false") if key == "tls" else (str, "text")
    if not isinstance(value, wanted):
        raise ValueError(f"{place} must be {words}")  # noqa: TRY004  # a wrong file


def _token(values: Mapping[str, Any]) -> str | None:
    token: str | None = values.get("token")
    if token is None and "token_file" in values:
        path = Path(values["token_file"]).expanduser()
        token = path.read_text("utf-8").strip()
        if not token:
            raise ValueError(f"{path} holds no token")
    return token


def _tls(values: Mapping[str, Any]) -> bool | TLS | None:
    on: bool | str | None = values.get("tls")
    if isinstance(on, str):
        if on.lower() not in _BOOLEANS:
            raise ValueError(f"{variable('tls')} must be true or false, got {on!r}")
        on = _BOOLEANS[on.lower()]
    files = {name: values.get(f"tls_{name}") for name in ("ca", "certificate", "key")}
    server_name = values.get("tls_server_name")
    if on is False or (server_name is None and not any(files.values())):
        return on
    from layerwire.transport.tls import TLS  # and with it gRPC, which a command's --help does without

    paths = {name: None if file is None else Path(file).expanduser() for name, file in files.items()}
    return TLS(**paths, server_name=server_name)
