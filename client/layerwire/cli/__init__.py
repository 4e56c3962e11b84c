"""The command line: `layerwire health | info | call | bench | ...`, and what other packages add: `serve`.

It belongs to the SDK and knows nothing of the server and the load tester, which add their commands by the entry point
group below.

Exit status: 0 done, 1 the call failed, 2 the command line is wrong. Errors are one line on standard error.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points, version
from typing import NamedTuple

import click

GROUP = "layerwire.commands"


class Command(NamedTuple):
    """A command of this package: the module that has it, imported when it is asked for, and its line in --help."""

    module: str
    help: str


class Other(NamedTuple):
    """A command that another package adds by entry point: its line in --help, and how to get it."""

    help: str
    install: str


COMMANDS = {
    "call": Command("layerwire.cli.call", "Call one operator by its torch.nn.functional name."),
    "delete": Command("layerwire.cli.delete", "Forget programs or weights on a server."),
    "demo": Command("layerwire.demo.command", "A photograph and a small CNN through a server of its own."),
    "describe": Command("layerwire.cli.describe", "Show a program's layers, shapes, parameters and operations."),
    "health": Command("layerwire.cli.health", "Tell whether a server is serving."),
    "import": Command("layerwire.cli.import_weights", "Give the tensors of a safetensors file names."),
    "info": Command("layerwire.cli.info", "Show versions, workers, limits and operators of a server."),
    "programs": Command("layerwire.cli.programs", "List the programs of a server with their versions."),
    "put-weights": Command("layerwire.cli.put_weights", "Give a tensor a name on a server."),
    "run": Command("layerwire.cli.run", "Run a program of a server."),
    "use": Command("layerwire.cli.use", "Move a program's name to another of its versions."),
    "weights": Command("layerwire.cli.weights", "List the named weights of a server."),
}
OTHERS = {
    "bench": Other("Load-test a server, and check its answers.", "pip install 'layerwire[bench]'"),
    "serve": Other("Run a server.", "pip install 'layerwire[server]'"),
    "token": Other("Make, list and revoke the tokens of a server's callers.", "pip install 'layerwire[server]'"),
}
_LOCAL = {"demo", "serve", "token"}  # they talk to no server, or to their own


class Commands(click.Group):
    """Commands of this package by table, of others by entry point."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names for --help."""
        return sorted({*COMMANDS, *OTHERS, *(point.name for point in entry_points(group=GROUP))})

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """--help from the tables: importing every command for its line would take seconds."""
        commands = COMMANDS | OTHERS
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, commands[name].help if name in commands else "") for name in self.list_commands(ctx)]
            )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name in COMMANDS:
            command: click.Command = importlib.import_module(COMMANDS[cmd_name].module).command
            return _with_credentials(cmd_name, command)
        for point in entry_points(group=GROUP, name=cmd_name):
            try:
                other: click.Command = point.load()
            except ModuleNotFoundError as error:
                return _refusing_command(cmd_name, f"{error.name} is not installed")
            return _with_credentials(cmd_name, other)
        return _refusing_command(cmd_name, "not installed") if cmd_name in OTHERS else None

    def invoke(self, ctx: click.Context) -> object:
        """Runs a command; what the server refuses is one line, not a traceback."""
        from layerwire.errors import LayerwireError

        try:
            return super().invoke(ctx)
        except LayerwireError as error:
            raise click.ClickException(f"{error.message} ({error.code.name.lower().replace('_', ' ')})") from None


def _with_credentials(name: str, command: click.Command) -> click.Command:
    """The command; if it talks to a server, with options that say how to come in there, or its functions with them."""
    from layerwire.cli import connection

    if name in _LOCAL:
        return command
    if isinstance(command, click.Group):
        get_function = command.get_command

        def get_command(ctx: click.Context, function: str) -> click.Command | None:
            found = get_function(ctx, function)
            return None if found is None else _with_credentials(function, found)

        command.get_command = get_command  # type: ignore[assignment,method-assign]
        return command
    taken = {param.name for param in command.params}
    command.params += [option for option in connection.credential_options() if option.name not in taken]
    return command


def _refusing_command(name: str, reason: str) -> click.Command:
    """A command that says what to install."""

    def refuse() -> None:
        remedy = OTHERS[name].install if name in OTHERS else "reinstall the package that adds it"
        click.echo(f"Error: {name}: {reason}; {remedy}", err=True)
        click.get_current_context().exit(2)

    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    return click.Command(name, callback=refuse, context_settings=settings)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("layerwire"), message="layerwire %(version)s")
def main() -> None:
    """Neural-network layers over gRPC, run by torch, calls from all clients batched together."""
