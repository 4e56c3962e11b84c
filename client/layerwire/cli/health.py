"""`layerwire health ADDRESS`: the exit status that probes ask for.

It knows grpc.health.v1 and nothing else of the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from layerwire.cli import connection
from layerwire.wire.health import CHECK, SERVING, STATUSES, request

if TYPE_CHECKING:
    from layerwire.transport.settings import Settings

NOT_SERVING, UNREACHABLE = 1, 2
FAILURES = {  # status code -> exit status and words
    "DEADLINE_EXCEEDED": (UNREACHABLE, "no answer in time"),
    "NOT_FOUND": (NOT_SERVING, "unknown service"),
    "UNAVAILABLE": (UNREACHABLE, "unreachable"),
    "UNIMPLEMENTED": (NOT_SERVING, "has no health service"),
}


def check(settings: Settings, service: str, timeout_seconds: float) -> tuple[int, str]:
    """Exit status and words for the health of a server, or of a service of it."""
    import grpc

    with settings.blocking_channel(settings.addresses[0]) as channel:
        try:
            answer = channel.unary_unary(CHECK, bytes, bytes)(request(service), timeout=timeout_seconds)
        except grpc.RpcError as error:
            return FAILURES.get(error.code().name, (NOT_SERVING, f"{error.code().name}, {error.details()}"))
    return 0 if answer == SERVING else NOT_SERVING, STATUSES.get(answer, "unknown")


@click.command()
@connection.address
@click.option("--service", default="", metavar="NAME", help="A service of the server. Default: the server as a whole.")
@connection.timeout(5.0)
@click.pass_context
def command(ctx: click.Context, address: str, service: str, timeout: float) -> None:
    """Tell whether a server is serving.

    Exit status: 0 serving, 1 not serving, 2 unreachable.
    """
    status, words = check(connection.settings(address), service, timeout)
    click.echo(f"{address}: {words}", err=status != 0)
    ctx.exit(status)
