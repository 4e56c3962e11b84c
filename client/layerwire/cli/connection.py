"""What commands that talk to a server share: the ADDRESS argument, --timeout, and a client whose errors are click's.

It knows the SDK's client; no command in particular.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from layerwire.errors import LayerwireError

if TYPE_CHECKING:
    import layerwire
    from layerwire.transport.settings import Settings

Function = TypeVar("Function", bound=Callable[..., Any])

address: Callable[[Function], Function] = click.argument("address", metavar="ADDRESS")


def credential_options() -> list[click.Option]:
    """Options that say how to come in, for every command with an ADDRESS.

    Their values become the process's variables while the command runs: the client reads those, and so do the load
    tester's processes.
    """
    from layerwire.transport.profile import KEYS, variable

    def keep(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
        if value is not None:
            name = variable(str(option.name))
            ctx.call_on_close(partial(_set_variable, name, os.environ.get(name)))
            os.environ[name] = value

    options = []
    for key, text in KEYS.items():
        kind: dict[str, Any] = {"metavar": "NAME" if key.endswith("name") else "FILE"}
        if key == "tls":
            kind = {"is_flag": True, "flag_value": "true"}
        sentence = f"{text[0].upper()}{text[1:]}.  [{variable(key)}]"
        flag = f"--{key.replace('_', '-')}"
        options.append(click.Option([flag], expose_value=False, callback=keep, help=sentence, **kind))
    return options


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def timeout(default: float) -> Callable[[Function], Function]:
    """The option --timeout."""
    kind = click.FloatRange(min=0, min_open=True)
    return click.option(
        "--timeout", type=kind, default=default, show_default=True, metavar="SECONDS", help="Longest wait in seconds."
    )


def settings(target: str) -> Settings:
    """The SDK's settings for an address, for commands that do without its client.

    Raises:
        click.UsageError: it isn't "host:port", or something else that was said can't be used.
    """
    from layerwire.transport.settings import make_settings

    try:
        return make_settings(target, None, None, None)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None


@contextmanager
def client(target: str, timeout_seconds: float) -> Iterator[layerwire.Client]:
    """A client for one command.

    Raises:
        click.UsageError: the SDK refused an argument.
        LayerwireError: a call failed.
    """
    import layerwire

    try:
        with layerwire.Client(target, timeout=timeout_seconds) as connected_client:
            yield connected_client
    except LayerwireError:  # some are ValueErrors too
        raise
    except (TypeError, ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
