"""The log's form: one line an event, as text for people or JSON for machines, fields beside the message.

It knows nothing of what is logged. Fields never hold tensor data, tokens, or what a client sent.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any

_OWN = ("layerwire", "layerwire_server")
_STANDARD = frozenset({"exc_info", "stack_info", "stacklevel", "extra"})


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger that takes fields as keywords: log.info("worker is up", worker=0)."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """logging: puts the fields where the formatters look."""
        fields = {**(self.extra or {}), **{key: value for key, value in kwargs.items() if key not in _STANDARD}}
        standard = {key: value for key, value in kwargs.items() if key in _STANDARD}
        return msg, {**standard, "extra": {"fields": fields}}

    def bind(self, **fields: Any) -> Log:
        """The same log with fields in every line."""
        return Log(self.logger, {**(self.extra or {}), **fields})


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class _OfProcess(logging.Formatter):
    """A form whose lines all carry the fields of the process, whoever wrote them."""

    def __init__(self, process: dict[str, Any]) -> None:
        super().__init__()
        self.process = process


class JsonFormatter(_OfProcess):
    """One JSON object a line: time, level, message, the fields, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """logging: the line."""
        line = {"time": _time(record), "level": record.levelname.lower(), "message": record.getMessage()}
        line |= self.process | getattr(record, "fields", {"logger": record.name})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(_OfProcess):
    """`2026-01-31T12:00:00.000Z INFO worker is up process=worker-0`, and a traceback below where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """logging: the line."""
        fields = self.process | getattr(record, "fields", {"logger": record.name})
        suffix = "".join(f" {key}={value}" for key, value in fields.items())
        line = f"{_time(record)} {record.levelname} {record.getMessage()}{suffix}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


_FORMATTERS = {"json": JsonFormatter, "text": TextFormatter}


def start(level: str, form: str, **fields: Any) -> Log:
    """Sets up this process's log on standard error; `fields` stand in each line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FORMATTERS[form](fields))
    logging.basicConfig(level=max(logging.getLevelName(level.upper()), logging.WARNING), handlers=[handler], force=True)
    for name in _OWN:  # others, such as grpc's _cygrpc, would have a line for every call
        logging.getLogger(name).setLevel(level.upper())
    return Log(logging.getLogger("layerwire"), fields)
