"""Settings: which source wins, and what is said when a value can't be used."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from layerwire_server import config
from layerwire_server.config import ConfigError, Settings, load
from layerwire_server.supervisor import flags
from layerwire_server.supervisor.command import serve


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(config.variable(name), raising=False)


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "layerwire.toml"

    def write(text):
        path.write_text(text)
        return str(path)

    return write


def test_defaults_hold_without_anything():
    settings = load({})
    assert (settings.listen, settings.metrics, settings.workers) == ("127.0.0.1:50051", "127.0.0.1:9464", 1)
    assert settings.max_message_bytes == 64 * 1024**2


def test_flag_wins_over_variable_over_file_over_default(monkeypatch, toml):
    path = toml("max_queue_calls = 1\nmax_batch_rows = 1\nworkers = 3\n")
    monkeypatch.setenv("LAYERWIRE_MAX_QUEUE_CALLS", "2")
    monkeypatch.setenv("LAYERWIRE_MAX_BATCH_ROWS", "2")
    settings = load({"config": path, "max_queue_calls": "5"})
    assert (settings.max_queue_calls, settings.max_batch_rows, settings.workers) == (5, 2, 3)
    assert settings.gateways == 1


def test_the_file_can_be_named_by_variable(monkeypatch, toml):
    monkeypatch.setenv("LAYERWIRE_CONFIG", toml("workers = 4"))
    assert load({}).workers == 4


@pytest.mark.parametrize(("text", "nbytes"), [("16MiB", 16 * 1024**2), ("2000000", 2000000), ("16MB", 16000000)])
def test_sizes_take_units(text, nbytes):
    assert load({"max_batch_bytes": text}).max_batch_bytes == nbytes


@pytest.mark.parametrize("text", ["1MiB", "64MiB", "512MiB"])
def test_the_largest_output_follows_the_largest_message(text):
    settings = load({"max_message_bytes": text})
    assert settings.max_output_bytes == settings.max_message_bytes - 65536
    assert Settings.from_json(settings.to_json()).max_output_bytes == settings.max_output_bytes
    assert load({"max_message_bytes": text, "max_output_bytes": "10"}).max_output_bytes == 10


def test_a_child_gets_the_same_settings_whatever_its_environment(monkeypatch):
    settings = load({"max_queue_calls": "7", "deterministic": True})
    monkeypatch.setenv("LAYERWIRE_MAX_QUEUE_CALLS", "9")
    assert Settings.from_json(settings.to_json()).to_json() == settings.to_json()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"max_queue_calls": "0"}, "--max-queue-calls: must be at least 1, got '0'"),
        ({"workers": "65"}, "--workers: must be at most 64, got '65'"),
        ({"canary_interval_seconds": "0"}, "--canary-interval-seconds: must be above 0, got '0'"),
        ({"max_connection_age_seconds": "2073601"}, "--max-connection-age-seconds: must be at most 2073600, got"),
        ({"max_connection_age_seconds": "inf"}, "--max-connection-age-seconds: must be a finite number, got 'inf'"),
        ({"max_call_operations": "nan"}, "--max-call-operations: must be a finite number, got 'nan'"),
        ({"listen": "nowhere"}, "--listen: must be host:port, with brackets round an IPv6 address, got 'nowhere'"),
        ({"listen": "localhost:65536"}, "--listen: must be host:port"),
        ({"metrics": "unix:x"}, "--metrics: must be host:port"),
        ({"device": "tpu"}, '--device: must be "auto", "cpu", "cuda"'),
        ({"device": "cuda:0,cuda:0"}, '--device: must be "auto", "cpu", "cuda"'),
        ({"log_level": "loud"}, "--log-level: must be 'debug'"),
        ({"max_output_bytes": "64MiB"}, "max_output_bytes must leave 65536 of max_message_bytes"),
        ({"max_queue_bytes": "1MiB"}, "max_bytes_in_flight and max_queue_bytes must hold a message"),
        ({"config": "/nowhere/x.toml"}, "--config: there is no file /nowhere/x.toml"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_its_origin(flags, sentence):
    with pytest.raises(ConfigError) as caught:
        load(flags)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_wrong_variable_is_named(monkeypatch):
    monkeypatch.setenv("LAYERWIRE_GATEWAYS", "many")
    with pytest.raises(ConfigError, match=r"^LAYERWIRE_GATEWAYS: must be a valid integer"):
        load({})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("workers = 0", "workers in .*: must be at least 1"),
        ("wrokers = 1", "there is no setting wrokers, perhaps workers is meant$"),
        ("max-queue-calls = 1", "there is no setting max-queue-calls, perhaps max_queue_calls is meant$"),
        ("zzz = 1", "there is no setting zzz$"),
        ("=", "[Ii]nvalid"),
    ],
    ids=["bounds", "unknown key", "dashes", "like nothing", "no TOML"],
)
def test_a_wrong_file_is_named(toml, text, sentence):
    path = toml(text)
    with pytest.raises(ConfigError, match=sentence) as caught:
        load({"config": path})
    assert path in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:50051", "localhost:1", "unix:/run/layerwire.sock"])
def test_addresses_that_are_right(address):
    assert load({"listen": address}).listen == address


@pytest.mark.parametrize("text", ["off", ""])
def test_metrics_can_be_switched_off(text):
    assert load({"metrics": text}).metrics == ""


def test_help_names_flag_variable_key_and_bounds_of_every_setting():
    text = " ".join(CliRunner().invoke(serve, ["--help"], terminal_width=200).output.split())
    for name, field in Settings.model_fields.items():
        assert f"{config.flag(name)}" in text
        assert f"{config.variable(name)}]" in text
        assert flags.bounds(field) in text
    assert "Largest message, either way. [default: 64 MiB; 1 MiB to 2,046 MiB; LAYERWIRE_MAX_MESSAGE_BYTES]" in text
    assert all(heading in text for heading in config.HEADINGS.values())


@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits(columns):
    text = CliRunner().invoke(serve, ["--help"], terminal_width=columns).output.splitlines()
    assert max(map(len, text)) <= columns
    assert "  --max-queue-calls CALLS" in text
    assert "      [default: 16,384; 1 to 10,000,000; LAYERWIRE_MAX_QUEUE_CALLS]" in text


def test_every_setting_has_a_heading():
    assert config.HEADINGS.keys() <= Settings.model_fields.keys()
    assert next(iter(Settings.model_fields)) in config.HEADINGS


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"LAYERWIRE_WROKERS": "2"}, {"LAYERWIRE_WROKERS": "LAYERWIRE_WORKERS"}),
        ({"layerwire_max_queue_call": "2"}, {"layerwire_max_queue_call": "LAYERWIRE_MAX_QUEUE_CALLS"}),
        ({"LAYERWIRE_LISTEN_PORT": "2"}, {"LAYERWIRE_LISTEN_PORT": "LAYERWIRE_LISTEN"}),
        ({"LAYERWIRE_ZZZ": ""}, {"LAYERWIRE_ZZZ": ""}),
        ({"LAYERWIRE_WORKERS": "2", "layerwire_gateways": "2", "WORKERS": "1", "XLAYERWIRE_A": ""}, {}),
        ({"LAYERWIRE_CLIENT_TOKEN": "x", "layerwire_client_tls_ca": "x"}, {}),
        (
            {
                "LAYERWIRE_SERVICE_HOST": "10.0.0.1",
                "LAYERWIRE_SERVICE_PORT": "50051",
                "LAYERWIRE_SERVICE_PORT_GRPC": "50051",
                "LAYERWIRE_PORT": "tcp://10.0.0.1:50051",
                "LAYERWIRE_PORT_50051_TCP": "tcp://10.0.0.1:50051",
                "LAYERWIRE_PORT_50051_TCP_ADDR": "10.0.0.1",
                "LAYERWIRE_METRICS_SERVICE_HOST": "10.0.0.1",
            },
            {},
        ),
    ],
    ids=["misspelt", "lower case", "one word too many", "like nothing", "right", "the SDK's", "Kubernetes"],
)
def test_variables_that_are_no_settings(environment, wanted):
    assert config.unknown_variables(environment) == wanted


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/tmp/x", "127.8.9.10:1"])
def test_this_host_alone_needs_no_tls(listen):
    assert load({"listen": listen, "tokens": "tokens.json"}).listen == listen


TLS = {"tls_certificate": "certificate.pem", "tls_key": "key.pem"}


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "example.test:1", "localhost.test:1"])
def test_other_hosts_need_tls_or_a_word(listen):
    with pytest.raises(ConfigError, match="give tls_certificate and tls_key, or insecure_listen"):
        load({"listen": listen})
    with pytest.raises(ConfigError, match="tokens would travel in the clear"):
        load({"listen": listen, "tokens": "tokens.json", "insecure_listen": True})
    assert load({"listen": listen, "insecure_listen": True}).listen == listen
    assert load({"listen": listen, "tokens": "tokens.json", **TLS}).listen == listen


@pytest.mark.parametrize("missing", TLS)
def test_certificate_and_key_go_together(missing):
    with pytest.raises(ConfigError, match="go together"):
        load({name: value for name, value in TLS.items() if name != missing})
    with pytest.raises(ConfigError, match="tls_client_ca needs"):
        load({"tls_client_ca": "ca.pem"})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tls-certificate", "no.pem", "--tls-key", "no.pem"], "no.pem can't be read: No such file"),
        (["--tls-certificate", __file__, "--tls-key", __file__], "are no certificate in PEM and its key"),
        (["--tokens", "no.json"], "no.json can't be read: No such file"),
        (["--tokens", __file__], "is no file of tokens: Invalid JSON"),
    ],
)
def test_files_that_cant_be_used_are_told_before_anything_starts(flags, words):
    result = CliRunner().invoke(serve, flags)
    assert (result.exit_code, words in result.output) == (2, True), result.output


def test_the_command_ends_with_status_2_on_a_wrong_value():
    result = CliRunner().invoke(serve, ["--workers", "0"])
    assert result.exit_code == 2
    assert "Error: --workers: must be at least 1, got '0'" in result.output


def test_asking_for_cuda_where_torch_has_none_is_told(monkeypatch):
    monkeypatch.setattr("layerwire_server.supervisor.devices.torch_has_cuda", lambda: False)
    result = CliRunner().invoke(serve, ["--device", "cuda:1"])
    assert result.exit_code == 2
    assert "--device: cuda:1 can't be had, the installed torch has no CUDA" in result.output
