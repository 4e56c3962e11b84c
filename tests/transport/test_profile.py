"""What a client takes from variables and from the user's file, where its program says nothing."""

from __future__ import annotations

import pytest
import trustme

from layerwire.transport import profile as module
from layerwire.transport.profile import profile, variable
from layerwire.transport.settings import make_settings
from layerwire.transport.tls import TLS

HERE = "localhost:50051"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes the user's file."""
    path = tmp_path / "layerwire.toml"
    monkeypatch.setenv(variable("config"), str(path))

    def write(text, mode=0o600):
        path.write_text(text)
        path.chmod(mode)

    write("")
    return write


def bearer(settings):
    return dict(settings.metadata).get("authorization")


def test_nothing_said_is_nothing(file):
    assert profile([HERE]) == module.Profile()
    assert bearer(make_settings(HERE, None, None, None)) is None


@pytest.mark.parametrize("home", ["XDG_CONFIG_HOME", "HOME"])
def test_the_file_is_where_users_have_theirs(tmp_path, monkeypatch, home):
    for name in (variable("config"), "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(home, str(tmp_path))
    folder = tmp_path if home == "XDG_CONFIG_HOME" else tmp_path / ".config"
    assert profile([HERE]) == module.Profile()
    folder.mkdir(exist_ok=True)
    (folder / "layerwire.toml").write_text(f'["{HERE}"]\ntls = true\n')
    assert profile([HERE]) == module.Profile(tls=True)


def test_arguments_win_over_variables_over_the_file(file, monkeypatch):
    file(f'["{HERE}"]\ntoken = "of the file"\ntls_ca = "file.pem"\n')
    assert profile([HERE]) == module.Profile("of the file", TLS(ca=module.Path("file.pem")))
    monkeypatch.setenv(variable("token"), "of the environment")
    monkeypatch.setenv(variable("tls_ca"), "environment.pem")
    assert profile([HERE]) == module.Profile("of the environment", TLS(ca=module.Path("environment.pem")))
    assert bearer(make_settings(HERE, "of the call", False, None)) == "Bearer of the call"
    assert bearer(make_settings(HERE, None, False, {"authorization": "Basic x"})) == "Basic x"
    assert bearer(make_settings(HERE, "", False, None)) is None


def test_a_token_of_the_file_goes_nowhere_else(file):
    file(f'["{HERE}"]\ntoken = "secret"\n')
    assert bearer(make_settings(HERE, None, None, None)) == "Bearer secret"
    assert bearer(make_settings("localhost:50052", None, None, None)) is None
    with pytest.raises(ValueError, match="different things of"):
        profile([HERE, "localhost:50052"])


def test_a_token_in_the_clear_is_refused_wherever_it_comes_from(file, monkeypatch):
    file('["example.test:1"]\ntoken = "secret"\n')
    with pytest.raises(ValueError, match="in the clear") as error:
        make_settings("example.test:1", None, None, None)
    assert "secret" not in str(error.value)
    monkeypatch.setenv(variable("token"), "secret")
    with pytest.raises(ValueError, match="in the clear"):
        make_settings("example.test:2", None, None, None)


def test_a_token_may_lie_in_a_file(file, tmp_path, monkeypatch):
    secret = tmp_path / "token"
    secret.write_text("secret\n")
    file(f'["{HERE}"]\ntoken_file = "{secret}"\n', 0o644)
    assert profile([HERE]).token == "secret"
    file(f'["{HERE}"]\ntoken = "other"\n')
    monkeypatch.setenv(variable("token_file"), str(secret))
    assert profile([HERE]).token == "secret"
    secret.write_text("\n")
    with pytest.raises(ValueError, match="holds no token"):
        profile([HERE])
    secret.unlink()
    with pytest.raises(OSError, match="No such file"):
        profile([HERE])


def test_certificates_make_credentials(file, tmp_path, monkeypatch):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = authority.issue_cert("me")
    own.private_key_pem.write_to_path(tmp_path / "me.key")
    own.cert_chain_pems[0].write_to_path(tmp_path / "me.pem")
    file(f'["{HERE}"]\ntls_ca = "{tmp_path}/ca.pem"\ntls_server_name = "other"\n')
    settings = make_settings(HERE, None, None, None)
    assert settings.credentials is not None
    assert settings.server_name == "other"
    monkeypatch.setenv(variable("tls_certificate"), f"{tmp_path}/me.pem")
    with pytest.raises(ValueError, match="certificate and key go together"):
        make_settings(HERE, None, None, None)
    monkeypatch.setenv(variable("tls_key"), f"{tmp_path}/me.key")
    assert make_settings(HERE, None, None, None).credentials is not None
    monkeypatch.setenv(variable("tls"), "off")
    assert make_settings(HERE, None, None, None).credentials is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "layerwire.toml: "),
        ("\x80", "layerwire.toml: "),
        ('token = "x"', r'token must stand in a table \["host:port"\]'),
        (f'["{HERE}"]\ntokens = "x"', "tokens is no key; there are token, token_file"),
        (f'["{HERE}"]\ntls = "yes"', "tls must be true or false"),
        (f'["{HERE}"]\ntls_ca = 1', "tls_ca must be text"),
        ('["elsewhere:1"]\ntls_ca = 1', "tls_ca must be text"),
    ],
)
def test_a_wrong_file_is_told(file, tmp_path, text, words):
    (tmp_path / "layerwire.toml").write_text(text, "latin-1")
    with pytest.raises(ValueError, match=words):
        profile([HERE])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_token_that_others_may_read_is_refused(file, mode):
    file('["elsewhere:1"]\ntoken = "secret"\n', mode)
    with pytest.raises(ValueError, match="chmod 600") as error:
        profile([HERE])
    assert "secret" not in str(error.value)


def test_wrong_variables_are_told(file, monkeypatch):
    monkeypatch.setenv(variable("tls"), "perhaps")
    with pytest.raises(ValueError, match="LAYERWIRE_CLIENT_TLS must be true or false, got 'perhaps'"):
        profile([HERE])
    monkeypatch.setenv(variable("config"), "/nowhere/layerwire.toml")
    with pytest.raises(OSError, match="No such file"):
        profile([HERE])
