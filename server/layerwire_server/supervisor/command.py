"""`layerwire serve`: the ready line, signals, exit status, directories.

It knows the settings and the supervisor; nothing of what is served.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import click

from layerwire_server import config
from layerwire_server.access.certificates import CertificateError, Certificates
from layerwire_server.access.tokens import TokenFile, TokenFileError
from layerwire_server.child import log, process_stats
from layerwire_server.config import ConfigError, Settings
from layerwire_server.storage import Store, StoreError
from layerwire_server.supervisor import devices, exposition, flags, ports
from layerwire_server.supervisor.supervisor import CrashLoopError, Supervisor

_REFRESH_SECONDS = 2.0
_LONGEST_DIRECTORY = 70  # a unix socket's path has 107 bytes
_PREFIX, _LOCK = "layerwire-", "supervisor.lock"


@click.command(cls=flags.Command, context_settings={"max_content_width": flags.WIDEST_COLUMNS})
@flags.options
def serve(**values: str | bool | None) -> None:
    """Run a server: gateways, workers, and a supervisor over them.

    Each setting can be given as a flag, as the variable in brackets, or in the TOML file that --config names, where
    --max-queue-calls is max_queue_calls. A flag wins over a variable, and that over the file. Bytes take units: 64MiB.

    It prints one line when it is ready. SIGTERM and Ctrl-C end it when the calls in it are answered, a second one at
    once.
    """
    try:
        settings = config.load({name: value for name, value in values.items() if value is not None})
        places = devices.resolve(settings.device)
        _check_files(settings)
    except (ConfigError, CertificateError, TokenFileError) as error:
        raise click.UsageError(str(error)) from None
    try:
        sys.exit(_serve(settings, places))
    except (ports.PortError, CrashLoopError, OSError) as error:
        raise click.ClickException(str(error)) from None


def _serve(settings: Settings, places: list[str]) -> int:
    logger = log.start(settings.log_level, settings.log_format, process="supervisor")
    for name, like in config.unknown_variables(os.environ).items():
        logger.warning("a variable is no setting", variable=name, nearest=like or "none")
    with _runtime_directory() as runtime_directory:
        reservation = ports.Reservation(settings.listen, config.flag("listen"), share=settings.gateways > 1)
        with closing(reservation):
            store = _make_store(Path(settings.store or runtime_directory / "store"), logger)
            settings = settings.model_copy(update={"listen": reservation.address, "store": str(store)})
            with asyncio.Runner() as runner:
                return runner.run(_supervise(settings, places, runtime_directory, logger))


def _check_files(settings: Settings) -> None:
    """Reads what gateways will read, which could only end again and again.

    Raises:
        CertificateError, TokenFileError: a file can't be used.
    """
    if settings.tls_certificate:
        Certificates(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    if settings.tokens:
        TokenFile(Path(settings.tokens)).read()


def _make_store(directory: Path, logger: log.Log) -> Path:
    """The store's directory, found usable here: a worker that finds otherwise can only end again and again."""
    try:
        store = Store(directory)
        store.weights()
        store.programs()
    except StoreError as error:
        raise click.ClickException(f"{config.flag('store')}: {error}") from None
    if store.read_only:
        logger.warning("the store is read-only: what is in it is served, and nothing can be put", store=str(directory))
    return directory.resolve()


@contextmanager
def _runtime_directory() -> Iterator[Path]:
    """A directory with a lock that is held for as long as the server runs; those of killed servers are removed."""
    temporary = tempfile.gettempdir()
    parent = Path(temporary if len(temporary) <= _LONGEST_DIRECTORY else "/tmp")  # noqa: S108  # mkdtemp makes it ours alone
    for directory in parent.glob(_PREFIX + "*"):
        with suppress(OSError):  # held, no server's, or gone meanwhile
            _remove_abandoned(directory)
    own = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with (own / (_LOCK + ".new")).open("x") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            Path(lock.name).rename(own / _LOCK)  # nobody ever sees it free
            yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _remove_abandoned(directory: Path) -> None:
    """Removes the directory of a server that is no more; one without a lock may be anybody's, and stays.

    Raises:
        OSError: its server runs, or it is no server's.
    """
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)


async def _supervise(settings: Settings, places: list[str], runtime_directory: Path, logger: log.Log) -> int:
    supervisor = Supervisor(settings, places, runtime_directory, logger)
    stop, stop_now = asyncio.Event(), asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        logger.info("server is ended at once" if stop.is_set() else "server drains", signal=number.name)
        (stop_now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    logger.info("server starts", version=version("layerwire"), pid=os.getpid(), listen=settings.listen,
                store=settings.store, devices=",".join(places), workers=len(supervisor.workers),
                gateways=settings.gateways)  # fmt: skip
    page = _open_page(settings.metrics, supervisor, loop) if settings.metrics else None
    try:
        is_done = await supervisor.run(stop, stop_now, lambda: _announce(settings, supervisor, places, page, logger))
    finally:
        if page is not None:
            await asyncio.to_thread(page.close)
    logger.info("server stopped", finished=is_done)
    return 0 if is_done else 1


def _open_page(address: str, supervisor: Supervisor, loop: asyncio.AbstractEventLoop) -> exposition.Page:
    def refresh() -> None:
        asyncio.run_coroutine_threadsafe(supervisor.refresh(), loop).result(_REFRESH_SECONDS)
        process_stats.measure(supervisor.metrics, "supervisor")
        supervisor.snapshots.update("supervisor", supervisor.metrics.snapshot())

    return exposition.Page(address, exposition.LayerwireCollector(supervisor.snapshots, refresh))


def _announce(
    settings: Settings, supervisor: Supervisor, places: list[str], page: exposition.Page | None, logger: log.Log
) -> None:
    workers = supervisor.workers
    process = workers[0].process
    info = process.info if process is not None else {}
    supervisor.metrics.gauge(
        "layerwire_build_info",
        version=version("layerwire"),
        torch_version=str(info.get("torch_version", "")),
        python_version=platform.python_version(),
    ).set(1)
    count = f"{len(workers)} worker{'s' if len(workers) > 1 else ''} on {', '.join(places)}"
    metrics = f"metrics on {page.address}" if page is not None else "no metrics"
    seconds = process_stats.age_seconds()
    at = page.address if page is not None else "off"
    logger.info("server is ready", listen=settings.listen, metrics=at, seconds=round(seconds, 1))
    click.echo(f"layerwire {version('layerwire')} ready on {settings.listen} ({count}, {metrics}) in {seconds:.1f} s")
    sys.stdout.flush()
