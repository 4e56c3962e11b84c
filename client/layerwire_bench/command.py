"""`layerwire bench ADDRESS FUNCTION ...`: a command of its own for each operator, and `run` and `mix`.

It knows click, plans and reports; how load is made and measured is the conductor's.

Exit status: 0 measured, 1 answers were wrong or more calls failed than may, 2 the command line is wrong, 3 the server
couldn't be reached or went away, 4 a file couldn't be written, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from layerwire.cli.parameters import STANDARD_OUTPUT
from layerwire.errors import LayerwireError
from layerwire_bench import flags, operator_table
from layerwire_bench.flags import Flags
from layerwire_bench.plan import Job
from layerwire_bench.result import Run
from layerwire_bench.sending.selection import Selection
from layerwire_bench.sending.tensors import SampleSettings
from layerwire_bench.workload import Workload

if TYPE_CHECKING:
    from layerwire_bench.conductor import Plan

WorkloadOf: TypeAlias = Callable[[Selection], Workload]

FAILED, USAGE, LOST, UNWRITTEN, INTERRUPTED = 1, 2, 3, 4, 130
_UNREACHABLE = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "DIED"}
RUN, MIX = "run", "mix"
_EXTRA = ("hdrh", "jinja2", "matplotlib", "prometheus_client", "pydantic")  # what `layerwire[bench]` adds
_WIDTH = 100  # of tables that go to no terminal
EXAMPLES = """\b
Examples:
  layerwire bench localhost:50051 max_pool2d --shape 1,3,32,32 --kernel-size 2
  layerwire bench localhost:50051 relu --shape 1,1000 --concurrency 1:256:x4 --html relu.html
  layerwire bench localhost:50051 linear --shape 1,512 --weight name:w --rate 1000:9000:2000
  layerwire bench localhost:50051 run digits --rows 4 --slo 10ms
  layerwire bench localhost:50051 mix docs/mix.toml --concurrency 64 --verify all
  layerwire bench localhost:50051 relu --shape 1,10 --concurrency 32 --compare stream unary
  layerwire bench triton:8001 run resnet --by oip
"""


class Workloads(click.Group):
    """A command for each operator, and two more; their options may stand before them too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """ADDRESS first, then the command, then everything else, in whatever order they came."""
        names = self.list_commands(ctx)
        words = _in_order(args, names)
        if not args or ({"-h", "--help"} & set(args) and not set(words[1:2]) & set(names)):
            return super().parse_args(ctx, ["--help"])
        if words[1:2] and words[1] not in names and not words[1].startswith("-"):
            near = difflib.get_close_matches(words[1], names)
            hint = f"did you mean {' or '.join(near)}?" if near else "`layerwire bench --help` lists them"
            ctx.fail(f"there is nothing to send called {words[1]}; {hint}")
        if not any(word in names for word in words[1:2]):
            ctx.fail(f"what shall be sent? layerwire bench {' '.join(args[:1])} FUNCTION ...; --help lists them")
        return super().parse_args(ctx, words)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*operator_table.functions(), RUN, MIX]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in operator_table.functions():
            return _operator_command(cmd_name)
        return {RUN: _run_command, MIX: _mix_command}.get(cmd_name, lambda: None)()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """--help names what can be sent, and then the options that all have."""
        with formatter.section("What to send"):
            formatter.write_dl([
                ("run PROGRAM", "A stored program, or a model where calls go by the Open Inference Protocol."),
                ("mix FILE", "Several kinds of calls, from a TOML file."),
                ("FUNCTION", ", ".join(operator_table.functions())),
            ])  # fmt: skip
        with formatter.section("Options of all"):
            records = (option.get_help_record(ctx) for option in flags.options())
            formatter.write_dl([record for record in records if record is not None])


def _in_order(args: Sequence[str], names: Sequence[str]) -> list[str]:
    """ADDRESS, or "" where there is none, then the command's name, then the rest."""
    values = {f"--{name.replace('_', '-')}": option.nargs for name, option in flags.by_name().items()}
    before: list[str] = []
    words = list(args)
    positions: list[str] = []
    while words and len(positions) < 2:
        word = words.pop(0)
        if word.startswith("-"):
            count = 0 if "=" in word else values.get(word, 0)
            before += [word, *words[:count]]
            del words[:count]
        else:
            positions.append(word)
            if word in names:
                break
    if len(positions) == 1 and positions[0] in names:
        positions.insert(0, "")
    return [*positions, *before, *words]


def _operator_command(function: str) -> click.Command:
    what = f"Load-test {function}. Its options are torch.nn.functional.{function}'s; a tensor is filled at random."
    help_ = f"{what}\n\n\b\nExample:\n  layerwire bench localhost:50051 {operator_table.example(function)}"
    return _command(function, flags.operator_options(function), partial(Selection.operator, function=function), help_)


def _run_command() -> click.Command:
    parameters = [click.Argument(["program"]), *flags.program_options()]
    help_ = "Load-test a stored program, or a model of another server by --by oip."
    return _command(RUN, parameters, Selection.program, help_)


def _mix_command() -> click.Command:
    file = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
    help_ = "Load-test a mix of calls from a TOML file, such as docs/mix.toml."
    return _command(MIX, [click.Argument(["file"], type=file)], Selection.mix, help_)


def _command(name: str, own: Sequence[click.Parameter], workload: Callable[..., Workload], help_: str) -> click.Command:
    """A command with its own parameters and those of all."""
    own_names = {parameter.name for parameter in own}

    def callback(**values: Any) -> None:
        ctx = click.get_current_context()
        assert ctx.parent is not None
        address = ctx.parent.params["address"] or None
        mine = {key: value for key, value in values.items() if key in own_names}
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # containers are stopped by it; it is like Ctrl-C
        try:
            status = _bench(flags.read(address, values), lambda selection: workload(selection, **mine))
        except KeyboardInterrupt:
            status = _fail("interrupted", INTERRUPTED)
        ctx.exit(status)

    parameters = [*own, *flags.options()]
    no_args_is_help = any(one.required for one in own)
    return click.Command(name, callback=callback, params=parameters, help=help_, no_args_is_help=no_args_is_help)


def _bench(options: Flags, workload: WorkloadOf) -> int:
    """The whole load test; its exit status."""
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise click.UsageError(f"{' and '.join(missing)} not installed; pip install 'layerwire[bench]'")
    from rich.console import Console

    from layerwire_bench import display
    from layerwire_bench.calling.processes import ClientProcessError
    from layerwire_bench.conductor import Conductor
    from layerwire_bench.targets.factory import UnreachableError

    console = Console(stderr=True)
    try:
        plan = _plan(options, workload)
        with display.display(console, plan.points) as watcher:
            run = Conductor(plan, watcher).run()
    except UnreachableError as error:
        return _fail(str(error), LOST)
    except ClientProcessError as error:
        return _fail(str(error), LOST if error.code in _UNREACHABLE else USAGE)
    except LayerwireError as error:
        return _fail(error.message, LOST if error.code.name in _UNREACHABLE else USAGE)
    except ValueError as error:
        return _fail(str(error), USAGE)
    return _report(run, options)


def _plan(options: Flags, workload: WorkloadOf) -> Plan:
    """The plan; on the way everything is asked that has to be."""
    from layerwire_bench.conductor import LatencyBound, Plan
    from layerwire_bench.servers import counters, info
    from layerwire_bench.targets.factory import await_server

    values, targets = options.values, options.targets
    for target in targets:
        await_server(target, values["wait"])
    settings = SampleSettings(
        values["seed"], values["samples"], values["max_message_bytes"], verify=values["verify"] != "off"
    )
    selection = Selection(targets, settings)
    work = workload(selection)
    metrics = values["metrics"]
    both = [(None, None) if metrics == "off" else counters.find(target, metrics, work) for target in targets]
    needs = work if any(target.address is None for target in targets) else work.for_servers()
    silent = (
        f"No phases of the server: {why}."
        for target, (_, why) in zip(targets, both, strict=True)
        if why is not None and target.address is not None
    )
    bound = None
    if options.slo_seconds is not None:
        bound = LatencyBound(options.slo_seconds, values["percentile"], options.mode, *options.rate_limits)
    return Plan(
        Job(targets, needs, values["verify"], values["seed"], values["timeout"]), options.loads, options.pace,
        values["processes"], values["rounds"], bound, tuple(one for one, _ in both),
        tuple(info.server_info(target) for target in targets), f"layerwire {shlex.join(sys.argv[1:])}",
        (*selection.notes, *silent),
    )  # fmt: skip


def _report(run: Run, options: Flags) -> int:
    """Shows the run; the exit status."""
    try:
        failures = _show(run, options)
    except OSError as error:
        # Of a broken pipe, whoever read it has enough.
        failures = [] if isinstance(error, BrokenPipeError) else [_unwritten("standard output", error)]
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    status = _status(run, options.values["max_errors"])
    for sentence in failures:
        _fail(sentence, UNWRITTEN)
    return status or (UNWRITTEN if failures else 0)


def _show(run: Run, options: Flags) -> list[str]:
    """The tables, and the files that were asked for; why some could not be written.

    A file on standard output sends the tables to the other one.
    """
    from rich.console import Console

    from layerwire_bench.report import files, page, terminal

    forms: dict[str, Callable[[Run], str]] = {"json": files.to_json, "csv": files.to_csv, "html": page.to_html}
    paths = {form: options.values[form] for form in forms if options.values[form] is not None}
    console = Console(stderr=STANDARD_OUTPUT in paths.values(), highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    terminal.show(run, console)
    failures: list[str] = []
    for form, path in paths.items():
        text = forms[form](run)
        if path == STANDARD_OUTPUT:
            click.echo(text, nl=not text.endswith("\n"))
            continue
        try:
            _write(Path(path), text)
        except OSError as error:
            failures.append(_unwritten(path, error))
        else:
            console.print(f"{form.upper()}: {path}", markup=False)
    return failures


def _unwritten(path: str, error: OSError) -> str:
    return f"{path} can't be written: {error.strerror or error}"


def _write(path: Path, text: str) -> None:
    """The whole of it or nothing: by way of another file, where the path is one that can be replaced.

    Raises:
        OSError: it can't be written.
    """
    if path.exists() and not path.is_file():  # a device, a pipe
        path.write_text(text, encoding="utf-8", newline="")
        return
    beside = path.with_name(f"{path.name}.part")
    try:
        beside.write_text(text, encoding="utf-8", newline="")
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _status(run: Run, max_errors: float) -> int:
    """The exit status, and why it isn't 0."""
    failed, calls = run.failures, run.failures + run.calls
    if run.wrong:
        first = next(point.first_wrong for point in run.points if point.first_wrong)
        return _fail(f"{run.wrong:,} WRONG ANSWERS: {first}", FAILED)
    if run.interrupted:
        return _fail("interrupted: what was measured until then is above", INTERRUPTED)
    if run.failure is not None:
        return _fail(run.failure, LOST)
    if run.search is not None and run.search.best_rate is None:
        return _fail(f"no rate kept {run.search.bound_seconds * 1e3:g} ms", FAILED)
    if run.search is None and failed > max_errors * calls:
        first = next(point.first_error for point in run.points if point.first_error)
        return _fail(f"{failed:,} of {calls:,} calls failed ({failed / calls:.1%}), such as {first}", FAILED)
    return 0


def _fail(sentence: str, status: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        click.echo(f"Error: {sentence}", err=True)
    return status


@click.group(cls=Workloads, subcommand_metavar="FUNCTION|run|mix [OPTIONS]", epilog=EXAMPLES)
@click.argument("address", metavar="[ADDRESS]")
def command(address: str) -> None:
    """Load-test a server, and check its answers.

    ADDRESS is host:port, or `local` for torch in this process, the limit to compare with. Without --concurrency,
    --rate or --slo, callers that each wait for their answer are doubled from 1 to 64. Each load is measured until three
    windows of a second agree.

    Exit status: 0 measured, 1 answers were wrong or too many calls failed, 2 wrong usage, 3 the server is unreachable
    or went away, 4 a file can't be written, 130 interrupted by Ctrl-C or SIGTERM.
    """
