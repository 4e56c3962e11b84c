"""`layerwire call ADDRESS FUNCTION ...`: one operator call; every operator method of the SDK is a command of its own.

It takes functions, options and defaults from those methods' signatures and knows no operator in particular.
"""

from __future__ import annotations

import difflib
import inspect
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from layerwire.cli import connection
from layerwire.cli.answers import keep
from layerwire.cli.parameters import DTYPE, dtype_option, option, output_file

if TYPE_CHECKING:
    from layerwire.transport.options import Timing

CONTROLS = {"self", "timeout", "inplace", "out", "_stacklevel"}  # no options of a function: they change no answer
EXAMPLES = """\b
Examples:
  layerwire call localhost:50051 relu --input '[-1, 2]'
  layerwire call localhost:50051 max_pool2d --input x.npy --kernel-size 2 --output y.npy
  layerwire call localhost:50051 linear --input x.npy --weight name:classifier.weight
  layerwire call localhost:50051 sigmoid --input '[1e39]' --dtype float64
  layerwire call localhost:50051 max_pool2d --help
"""


def functions() -> dict[str, Callable[..., Any]]:
    """The methods that are operators, by name."""
    from layerwire.calls import operator_methods

    return operator_methods()


class Functions(click.Group):
    """One command for each function."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's, with a word for those who forget the address or the function."""
        if args and args[0] in functions():
            ctx.fail(f"ADDRESS is missing: layerwire call ADDRESS {' '.join(args[:1])} ...")
        if len(args) == 1 and not args[0].startswith("-"):
            ctx.fail(f"FUNCTION is missing: layerwire call {args[0]} FUNCTION ...; layerwire call --list lists them")
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names for --help."""
        return list(functions())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a function."""
        method = functions().get(cmd_name)
        return None if method is None else _command(cmd_name, method)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """--help names the functions and leaves their parameters to their own."""
        with formatter.section("Functions"):
            formatter.write_text(", ".join(functions()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a suggestion for a name that is almost right."""
        name = args[0]
        if name not in functions() and not name.startswith("-"):
            near = difflib.get_close_matches(name, functions())
            hint = f"did you mean {' or '.join(near)}?" if near else "see layerwire call --list"
            ctx.fail(f"there is no function {name}; {hint}")
        return super().resolve_command(ctx, args)


def _command(name: str, method: Callable[..., Any]) -> click.Command:
    parameters = inspect.signature(method).parameters.values()
    options: list[click.Parameter] = [option(each) for each in parameters if each.name not in CONTROLS]
    if DTYPE not in inspect.signature(method).parameters:
        options.append(dtype_option())
    options += [
        click.Option(
            ["--output"],
            multiple=True,
            type=output_file,
            metavar="FILE",
            help="Where the answer goes, as .npy. Again for the next output.",
        ),
        click.Option(["--timing"], is_flag=True, help="Print where the time went."),
        click.Option(["--deterministic"], is_flag=True, help="The same bits whatever calls share the batch."),
        click.Option(
            ["--timeout"],
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            default=30.0,
            help="Longest wait in seconds. Default: 30.",
        ),
    ]
    return click.Command(
        name, callback=click.pass_context(_run), params=options, help=inspect.getdoc(method), no_args_is_help=True
    )


def _run(
    ctx: click.Context, /, output: tuple[str, ...], timing: bool, deterministic: bool, timeout: float, **values: Any
) -> None:
    """Makes the call and shows or keeps what comes back."""
    function = str(ctx.info_name)
    parameters = inspect.signature(functions()[function]).parameters
    if DTYPE not in parameters:
        del values[DTYPE]  # the tensors have it
    arguments = {  # what was left out takes its default; None where it has none, as batch_norm's running statistics
        name: value
        for name, value in values.items()
        if value is not None or parameters[name].default is inspect.Parameter.empty
    }
    assert ctx.parent is not None
    with connection.client(ctx.parent.params["address"], timeout) as client:
        start = time.perf_counter()
        answer, server_timing = getattr(client.options(timing=True, deterministic=deterministic), function)(**arguments)
        seconds = time.perf_counter() - start
    outputs = answer if isinstance(answer, tuple) else (answer,)
    if len(output) > len(outputs):
        raise click.UsageError(f"--output: {function} gave {len(outputs)}, {len(output)} files are named", ctx)
    keep(outputs, output)
    if timing:
        _print_timing(seconds, server_timing)


def _print_timing(seconds: float, timing: Timing) -> None:
    """Prints where the time went, the whole first."""
    click.echo(f"total     {seconds * 1e3:9.3f} ms")
    for name in ("queue", "copy_in", "kernel", "copy_out"):
        click.echo(f"{name:9} {getattr(timing, f'{name}_seconds') * 1e3:9.3f} ms")
    click.echo(
        f"batch     {timing.batch_calls} calls, {timing.batch_rows} rows, on worker {timing.worker} ({timing.device})"
    )


def _list(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    for name, method in functions().items():
        parameters = inspect.signature(method).parameters.values()
        names = (each.name.strip("_") for each in parameters if each.name not in CONTROLS)
        click.echo(f"{name}({', '.join(names)})")
    ctx.exit()


@click.group(cls=Functions, subcommand_metavar="FUNCTION [OPTIONS]", epilog=EXAMPLES)
@connection.address
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="List functions and parameters."
)
def command(address: str) -> None:
    """Call one operator by its torch.nn.functional name.

    ADDRESS is host:port. A TENSOR is a .npy file, numbers such as [[1, 2], [3, 4]] (float32 unless --dtype says
    otherwise; indices int64), or name:NAME for weights that the server holds. Options are the function's arguments,
    kernel_size as --kernel-size; `layerwire call ADDRESS FUNCTION --help` shows them. Answers of up to 64 elements are
    printed; --output keeps them in a file.
    """
