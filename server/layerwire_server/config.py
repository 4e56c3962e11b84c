"""Every knob of the server, each defined once: name, unit, default, bounds, help; and where its value comes from.

It doesn't know what the knobs do, and imports neither gRPC nor torch.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ByteSize, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

ENVIRONMENT_PREFIX = "LAYERWIRE_"
_MIB = 1024**2
_GIB = 1024**3
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+):\d{1,5}")
_DEVICE = re.compile(r"auto|cpu|cuda|cuda:\d+(,cuda:\d+)*")
_LONGEST_AGE_SECONDS = 24 * 24 * 3600  # gRPC takes milliseconds in 32 bits, and 25 days crash it
ANSWER_ROOM_BYTES = 64 * 1024  # what an answer may need beside its tensors' data


# pydantic's words -> the words of all our errors
_WORDS = {
    "input should be": "must be",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
}


# Setting -> the heading that stands above it and those after it, wherever they are listed.
HEADINGS = {
    "listen": "Addresses and processes",
    "tls_certificate": "Who may come in",
    "max_message_bytes": "Limits; what is over one is refused",
    "max_batch_rows": "Batching",
    "canary_interval_seconds": "Health, and the end",
    "max_concurrent_streams": "Connections",
    "log_level": "Log, and the file of settings",
}

# What Kubernetes sets in a pod for a service called layerwire or layerwire-...
_CLIENT = "client_"  # what follows is the SDK's
_OF_KUBERNETES = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_(TCP|UDP|SCTP)\w*)")


class ConfigError(Exception):
    """A setting can't be used; the text is one sentence for the person who gave it."""


def _knob(default: Any, unit: str, description: str, **bounds: Any) -> Any:
    return Field(default=default, description=description, json_schema_extra={"unit": unit}, **bounds)


class Settings(BaseSettings):
    """The server's settings. Flags win over variables, variables over the TOML file, and that over the defaults."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        case_sensitive=False,
        allow_inf_nan=False,
    )

    listen: str = _knob("127.0.0.1:50051", "HOST:PORT|unix:PATH", "Where gRPC is served; port 0 takes a free one.")
    metrics: str = _knob(
        "127.0.0.1:9464", "HOST:PORT|off", 'Where /metrics is served; port 0 takes a free one, "off" serves none.'
    )
    store: str = _knob("", "directory", "Where weights and programs are kept. Default: a private one, removed at exit.")
    device: str = _knob(
        "auto", "auto|cpu|cuda|cuda:0,...", "What runs operators; auto is every CUDA device there is, else the CPU."
    )
    workers: int = _knob(1, "processes", "Workers for each device.", ge=1, le=64)
    gateways: int = _knob(1, "processes", "Gateways; more than one share the port by SO_REUSEPORT.", ge=1, le=64)
    threads: int = _knob(
        0, "threads", "Threads of one operator on a CPU worker; 0 shares the cores that it may use.", ge=0, le=1024
    )

    tls_certificate: str = _knob(
        "", "file", "The server's certificate in PEM, with what links it to its authority; read again when it changes."
    )
    tls_key: str = _knob("", "file", "The certificate's private key in PEM, not encrypted.")
    tls_client_ca: str = _knob(
        "", "file", "Authorities in PEM, one of which must have signed the certificate that each client shows."
    )
    tokens: str = _knob(
        "", "file", "Who may come in, by hashes of tokens; `layerwire token` writes it. Without, anybody may."
    )
    insecure_listen: bool = _knob(
        False, "", "Serve other hosts without TLS: whoever reaches the port may do all that the server can."
    )

    max_message_bytes: ByteSize = _knob(
        ByteSize(64 * _MIB), "bytes", "Largest message, either way.", ge=_MIB, le=2 * _GIB - 2 * _MIB
    )
    max_output_bytes: ByteSize = _knob(
        ByteSize(64 * _MIB - ANSWER_ROOM_BYTES), "bytes",
        "Largest output of one call; at most, and by default, 64 KiB less than a message, for the answer is one.", ge=1,
    )  # fmt: skip
    max_call_operations: float = _knob(
        2e11,
        "operations",
        "Most predicted work of one call, in operations of a float32 matrix product; 2e11 take a core 2 to 10 s.",
        gt=0,
        le=1e18,
    )
    max_queue_calls: int = _knob(16384, "calls", "Most calls waiting on one worker.", ge=1, le=10**7)
    max_queue_bytes: ByteSize = _knob(ByteSize(_GIB), "bytes", "Most bytes of calls waiting on one worker.", ge=_MIB)
    max_requests_in_flight: int = _knob(
        16384, "requests", "Most unary requests that one gateway holds.", ge=1, le=10**6
    )
    max_bytes_in_flight: ByteSize = _knob(
        ByteSize(_GIB), "bytes", "Most bytes of requests and answers that one gateway holds.", ge=_MIB
    )
    max_stream_bytes: ByteSize = _knob(
        ByteSize(128 * _MIB), "bytes", "Bytes held for one stream at which it is read no further.", ge=_MIB
    )
    shared_memory: ByteSize = _knob(
        ByteSize(_GIB), "bytes", "Most memory that one gateway shares with clients of its host; 0 shares none.", ge=0
    )
    max_weights_bytes: ByteSize = _knob(
        ByteSize(4 * _GIB), "bytes", "Most bytes of weights on one device; beyond, the least recently used leave.", ge=1
    )
    max_program_bytes: ByteSize = _knob(
        ByteSize(_GIB), "bytes", "Most bytes of a program's inputs and values at one time of a call.", ge=1
    )
    max_store_bytes: ByteSize = _knob(ByteSize(64 * _GIB), "bytes", "Most bytes of all files of the store.", ge=1)

    max_batch_rows: int = _knob(4096, "rows", "Most rows of one batch.", ge=1, le=10**7)
    max_batch_bytes: ByteSize = _knob(ByteSize(64 * _MIB), "bytes", "Most bytes of one batch's inputs.", ge=1)
    max_delay_seconds: float = _knob(
        0.0, "seconds", "Longest wait of a call for company while the device is idle.", ge=0, le=1
    )
    tune: Literal["off", "background", "startup"] = _knob(
        "background",
        "off|background|startup",
        "When faster kernels are tried on a CPU for what is called often: never, beside the calls, or in the warm-up; "
        "what the store has from before is used but with off.",
    )
    deterministic: bool = _knob(False, "", "Bit-identical answers whatever calls share a batch, at a cost in speed.")

    canary_interval_seconds: float = _knob(
        1.0, "seconds", "Time between canary calls on each worker, which feed health.", gt=0, le=60
    )
    hang_seconds: float = _knob(
        30.0, "seconds", "Age of the last sign of life at which a process is killed and replaced.", ge=1, le=3600
    )
    unavailable_after_seconds: float = _knob(
        10.0, "seconds", "Longest wait of a request while no worker is up.", ge=0, le=3600
    )
    lame_duck_seconds: float = _knob(
        0.5, "seconds", "When stopping, time between NOT_SERVING and the end of accepting calls.", ge=0, le=300
    )
    grace_seconds: float = _knob(30.0, "seconds", "When stopping, time for unfinished calls.", ge=0, le=3600)

    max_concurrent_streams: int = _knob(1000, "RPCs", "Most RPCs open at once on one connection.", ge=1, le=65535)
    max_connection_age_seconds: float = _knob(
        0.0, "seconds", "Age at which a connection is asked to reconnect; 0 is never.", ge=0, le=_LONGEST_AGE_SECONDS
    )
    log_level: Literal["debug", "info", "warning", "error"] = _knob("info", "", "Least severity that is logged.")
    log_format: Literal["text", "json"] = _knob("text", "", "Form of the log, on standard error.")
    config: str = _knob("", "file", "TOML file with any of these settings, keys as the flags, with underscores.")

    @field_validator("listen", "metrics")
    @classmethod
    def _address(cls, value: str, info: Any) -> str:
        if info.field_name == "metrics" and value in ("", "off"):
            return ""
        if info.field_name == "listen" and value.startswith("unix:") and len(value) > len("unix:"):
            return value
        if not _ADDRESS.fullmatch(value) or int(value.rpartition(":")[2]) > 65535:
            raise ValueError("must be host:port, with brackets round an IPv6 address")
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        names = value.split(",")
        if not _DEVICE.fullmatch(value) or len(set(names)) < len(names):
            raise ValueError('must be "auto", "cpu", "cuda", or CUDA devices once each, such as "cuda:0,cuda:1"')
        return value

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key go together, got one of them")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        if self.tls_certificate or is_loopback(self.listen):
            return self
        if self.tokens:
            raise ValueError(f"tokens would travel in the clear to {self.listen}; give tls_certificate and tls_key")
        if not self.insecure_listen:
            raise ValueError(
                f"listen: other hosts reach {self.listen}, and all that they send could be read on its way; give "
                "tls_certificate and tls_key, or insecure_listen where only those reach it whom you trust"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if "max_output_bytes" not in self.model_fields_set:  # frozen only from here on
            self.__dict__["max_output_bytes"] = ByteSize(self.max_message_bytes - ANSWER_ROOM_BYTES)
        if self.max_output_bytes > self.max_message_bytes - ANSWER_ROOM_BYTES:
            raise ValueError(
                f"max_output_bytes must leave {ANSWER_ROOM_BYTES} of max_message_bytes, "
                f"got {int(self.max_output_bytes)} of {int(self.max_message_bytes)}"
            )
        if self.max_bytes_in_flight < self.max_message_bytes or self.max_queue_bytes < self.max_message_bytes:
            raise ValueError("max_bytes_in_flight and max_queue_bytes must hold a message of max_message_bytes")
        return self

    @classmethod
    def settings_customise_sources(  # pydantic-settings names the arguments
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, TOML file; no .env files and no secrets directory."""
        path = init_settings().get("config") or env_settings().get("config")
        if not path:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=path)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON, for a child process."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` gave, untouched by this process's environment."""
        return cls.model_construct(**values)


def is_loopback(address: str) -> bool:
    """Whether only this host reaches an address."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def flag(name: str) -> str:
    """The command-line flag of a setting: `--max-queue-calls`."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of a setting: `LAYERWIRE_MAX_QUEUE_CALLS`."""
    return ENVIRONMENT_PREFIX + name.upper()


def load(flags: Mapping[str, Any]) -> Settings:
    """The settings from flags (those given, by name), environment and TOML file.

    Raises:
        ConfigError: a value is out of bounds, a key unknown, or the file can't be read.
    """
    path = flags.get("config") or os.environ.get(variable("config"))
    if path and not Path(path).is_file():
        raise ConfigError(f"{flag('config')}: there is no file {path}")
    try:
        return Settings(**flags)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ConfigError(_sentence(first, flags, str(path))) from None
    except ValueError as error:  # tomllib's, and pydantic-settings' own for variables that can't be parsed
        raise ConfigError(f"{path or 'environment'}: {error}") from None


def _sentence(error: Any, flags: Mapping[str, Any], path: str) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        like = _nearest(name)
        return f"{path}: there is no setting {name}" + (f", perhaps {like} is meant" if like else "")
    origin = flag(name) if name in flags else variable(name) if variable(name) in os.environ else f"{name} in {path}"
    rule = message[0].lower() + message[1:]
    for theirs, ours in _WORDS.items():
        rule = rule.replace(theirs, ours)
    return f"{origin}: {rule}, got {error['input']!r}"


def _nearest(name: str) -> str:
    """The setting whose name is most like this one; "" if none is like it."""
    return next(iter(difflib.get_close_matches(name.lower(), Settings.model_fields, 1)), "")


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that look like settings and are none, each with the nearest that is one, or "".

    What Kubernetes sets for a service of the same name is no mistake.
    """
    values = {}
    for name, value in environment.items():
        key = name.upper().removeprefix(ENVIRONMENT_PREFIX).lower()
        if key.startswith(_CLIENT):
            continue
        kubernetes = _OF_KUBERNETES.fullmatch(name) or (name.endswith("_PORT") and "://" in value)
        if name.upper().startswith(ENVIRONMENT_PREFIX) and key not in Settings.model_fields and not kubernetes:
            like = _nearest(key)
            values[name] = like and variable(like)
    return values


def bounds(field: FieldInfo) -> str:
    """The bounds of a setting for people: "1 to 64", "above 0, at most 60", or ""."""
    values = {key: getattr(item, key) for item in field.metadata for key in ("ge", "gt", "le") if hasattr(item, key)}
    if "ge" in values and "le" in values:
        return f"{values['ge']:,} to {values['le']:,}"
    words = {"ge": "at least", "gt": "above", "le": "at most"}
    return ", ".join(f"{words[key]} {value:,}" for key, value in values.items())
