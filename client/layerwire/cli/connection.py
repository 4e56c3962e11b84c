"""What commands that talk to a server share: the ADDRESS argument, --timeout, and a client whose errors are click's.

It knows the SDK's client; no command in particular.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from layerwire.errors import LayerwireError

if TYPE_CHECKING:
    import layerwire

Function = TypeVar("Function", bound=Callable[..., Any])

address: Callable[[Function], Function] = click.argument("address", metavar="ADDRESS")


def timeout(default: float) -> Callable[[Function], Function]:
    """The option --timeout."""
    kind = click.FloatRange(min=0, min_open=True)
    return click.option(
        "--timeout", type=kind, default=default, show_default=True, metavar="SECONDS", help="Longest wait in seconds."
    )


def check_address(target: str) -> None:
    """The SDK's own check, for commands that do without its client.

    Raises:
        click.UsageError: it isn't "host:port".
    """
    from layerwire.transport.settings import make_settings

    try:
        make_settings(target, None, None, None)
    except ValueError as error:
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
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from None
