"""Tokens and TLS as users have them: by `layerwire token`, a client and the command line; and no secret is told."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trustme

import layerwire
from layerwire import TLS, errors
from tests.readme_tables import README
from tests.served import PATIENCE_SECONDS, Server

ROW = np.array([[-1.0, 2.0]], np.float32)


class Guarded:
    """A server with TLS, client certificates and tokens, and what its callers need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        for name in ("127.0.0.1", "client"):
            issued = authority.issue_cert(name)
            issued.private_key_pem.write_to_path(folder / f"{name}.key")
            (folder / f"{name}.pem").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        self.tls = TLS(folder / "ca.pem", folder / "client.pem", folder / "client.key")
        self.tokens = {scope: self.token("new", scope, "--scope", scope).strip() for scope in ("infer", "admin")}
        (folder / "infer.token").write_text(self.tokens["infer"])
        self.server = Server(
            folder,
            *("--tls-certificate", str(folder / "127.0.0.1.pem"), "--tls-key", str(folder / "127.0.0.1.key")),
            *("--tls-client-ca", str(folder / "ca.pem"), "--tokens", str(folder / "tokens.json")),
            *("--log-level", "debug"),
        )
        self.address = self.server.address

    def token(self, *arguments: str) -> str:
        return self.run("token", *arguments, "--tokens", str(self.folder / "tokens.json")).stdout

    def run(self, *arguments: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "layerwire.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=check, env=os.environ | variables)

    def client(self, scope: str) -> layerwire.Client:
        return layerwire.Client(self.address, tls=self.tls, token=self.tokens[scope], timeout=PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    guarded = Guarded(tmp_path_factory.mktemp("guarded"))
    yield guarded
    guarded.server.close()


def test_the_readmes_commands_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    authority = trustme.CA()
    authority.cert_pem.write_to_path("ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path("server.key")
    issued.cert_chain_pems[0].write_to_path("server.pem")
    (block,) = re.findall(r"```\n(layerwire token.*?)```", README.read_text(), flags=re.DOTALL)
    lines = [line.partition("#")[0].strip() for line in block.splitlines()]
    (serve,) = [line for line in lines if line.startswith("layerwire serve")]
    server = None
    for line in lines:
        if line == serve:
            server = Server(tmp_path, *shlex.split(serve.partition("--listen 0.0.0.0:50051")[2]))
            continue
        command = line.replace("layerwire", f"{shlex.quote(sys.executable)} -m layerwire.cli", 1)
        command = command.replace("gpu.example:50051", "" if server is None else server.address)
        subprocess.run(command, shell=True, check=True, capture_output=True)
    assert len(lines) == 6
    assert Path("ci.token").read_text().startswith("layerwire_")
    assert '"name": "ops"' in Path("tokens.json").read_text()
    assert '"name": "ci"' not in Path("tokens.json").read_text()
    server.close()


def test_each_scope_may_what_it_is_for(guarded):
    with guarded.client("infer") as lw:
        lw.wait_ready(PATIENCE_SECONDS)
        np.testing.assert_array_equal(lw.relu(ROW), [[0, 2]])
        large = np.ones((1 << 10, 1 << 10), np.float32)
        np.testing.assert_array_equal(lw.relu(large), large)
        with pytest.raises(errors.PermissionDeniedError, match="no scope admin"):
            lw.put_weights("w", ROW)
    with guarded.client("admin") as lw:
        lw.put_weights("w", ROW)
        np.testing.assert_array_equal(lw.relu(ROW), [[0, 2]])
    with guarded.client("infer") as lw:
        assert [each.name for each in lw.weights()] == ["w"]


@pytest.mark.parametrize("token", [None, "layerwire_wrong"])
def test_without_a_valid_token_nobody_comes_in(guarded, token):
    with (
        layerwire.Client(guarded.address, tls=guarded.tls, token=token, timeout=PATIENCE_SECONDS) as lw,
        pytest.raises(errors.UnauthenticatedError),
    ):
        lw.relu(ROW)


def test_the_command_line_comes_in_by_options_variables_and_the_file(guarded, tmp_path):
    folder = guarded.folder
    names = {
        "token_file": folder / "infer.token",
        "tls_ca": folder / "ca.pem",
        "tls_certificate": folder / "client.pem",
        "tls_key": folder / "client.key",
    }
    options = [word for name, path in names.items() for word in (f"--{name.replace('_', '-')}", str(path))]
    variables = {f"LAYERWIRE_CLIENT_{name.upper()}": str(path) for name, path in names.items()}
    file = tmp_path / "layerwire.toml"
    file.write_text(f'["{guarded.address}"]\n' + "".join(f'{name} = "{path}"\n' for name, path in names.items()))
    for words, environment in ((options, {}), ([], variables), ([], {"LAYERWIRE_CLIENT_CONFIG": str(file)})):
        assert "serving" in guarded.run("health", guarded.address, *words, **environment).stdout
        assert "workers" in guarded.run("info", guarded.address, "--json", *words, **environment).stdout
    call = ("call", guarded.address, "relu", "--input", "[-1, 2]")
    assert "[0., 2.]" in guarded.run(*call, *options).stdout
    load = ("--shape", "1,10", "--concurrency", "2", "--duration", "200ms", "--warmup", "100ms", "--window", "100ms")
    for by in ("stream", "unary"):
        result = guarded.run("bench", guarded.address, "relu", *load, "--by", by, *options)
        assert "calls/s" in result.stdout
    refused = guarded.run("info", guarded.address, check=False)
    assert refused.returncode == 1
    assert "TLS" in refused.stderr


def test_no_secret_is_told(guarded):
    with guarded.client("infer") as lw:
        lw.relu(ROW)
        told = repr(lw)
    told += guarded.server.log.read_text() + (guarded.folder / "tokens.json").read_text()
    told += guarded.token("list")
    for pid in guarded.server.processes():
        told += Path(f"/proc/{pid}/cmdline").read_text()
    for token in guarded.tokens.values():
        assert token not in told
    assert (guarded.folder / "127.0.0.1.key").read_text() not in told


def test_a_revoked_token_is_out_and_its_heir_goes_on(guarded):
    secrets = [guarded.token("new", "heir").strip() for _ in range(2)]
    ids = [line.split()[1] for line in guarded.token("list").splitlines() if line.split()[:1] == ["heir"]]
    clients = [
        layerwire.Client(guarded.address, tls=guarded.tls, token=secret, timeout=PATIENCE_SECONDS) for secret in secrets
    ]
    with clients[0] as first, clients[1] as second:
        for lw in (second, first):
            _wait_until_welcome(lw)
        guarded.token("revoke", ids[0])
        outcomes = [_is_welcome(lw) for lw in clients]
        while outcomes.count(True) == 2:
            outcomes = [_is_welcome(lw) for lw in clients]
        assert outcomes.count(True) == 1


def _is_welcome(lw: layerwire.Client) -> bool:
    try:
        np.testing.assert_array_equal(lw.relu(ROW), [[0, 2]])
    except errors.UnauthenticatedError:
        return False
    return True


def _wait_until_welcome(lw: layerwire.Client) -> None:
    """A new token is noticed within two seconds."""
    while not _is_welcome(lw):
        pass
