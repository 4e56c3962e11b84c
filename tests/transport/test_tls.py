"""TLS between client and a real server: certificates that prove it, those that don't, and what the client is told."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme

import layerwire
from layerwire import TLS, errors
from layerwire.transport.settings import make_settings
from tests.transport.fake_server import FakeServer
from tests.transport.rows import ROW

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
HOST = "127.0.0.1"


class Papers:
    """An authority of our own, another that nobody trusts, and certificates in files of a temporary directory."""

    def __init__(self, directory) -> None:
        self.directory = directory
        self.authority, self.stranger = trustme.CA(), trustme.CA()
        self.ca, self.wrong_ca = directory / "ca.pem", directory / "wrong.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.stranger.cert_pem.write_to_path(self.wrong_ca)

    def issue(self, name: str, authority: trustme.CA, **options) -> tuple[str, str]:
        """Files of a certificate and its key."""
        issued = authority.issue_cert(name, **options)
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return str(certificate), str(key)

    def server(self, name: str = HOST, *, clients: bool = False, **options) -> grpc.ServerCredentials:
        """What a server proves itself with, and whether clients must too."""
        certificate, key = self.issue(name, self.authority, **options)
        pair = (Path(key).read_bytes(), Path(certificate).read_bytes())
        return grpc.ssl_server_credentials([pair], self.ca.read_bytes() if clients else None, clients)


@pytest.fixture
def papers(tmp_path) -> Papers:
    return Papers(tmp_path)


Way = Callable[[Papers], object]
TRUSTED: dict[str, tuple[Way, Way]] = {
    "path": (lambda papers: papers.server(), lambda papers: papers.ca),
    "path-as-text": (lambda papers: papers.server(), lambda papers: str(papers.ca)),
    "dataclass": (lambda papers: papers.server(), lambda papers: TLS(ca=papers.ca)),
    "grpc-credentials": (
        lambda papers: papers.server(),
        lambda papers: grpc.ssl_channel_credentials(papers.ca.read_bytes()),
    ),
    "client-certificate": (
        lambda papers: papers.server(clients=True),
        lambda papers: TLS(papers.ca, *papers.issue("client", papers.authority)),
    ),
    "other-name": (
        lambda papers: papers.server("layerwire.internal"),
        lambda papers: TLS(ca=papers.ca, server_name="layerwire.internal"),
    ),
}
REFUSED: dict[str, tuple[Way, Way, str]] = {
    "wrong-ca": (lambda papers: papers.server(), lambda papers: papers.wrong_ca, "TLS: .* not trusted"),
    "system-authorities": (lambda papers: papers.server(), lambda papers: True, "TLS: .* not trusted"),
    "expired": (
        lambda papers: papers.server(not_after=LONG_AGO),
        lambda papers: papers.ca,
        "TLS: .* not trusted: certificate has expired",
    ),
    "wrong-name": (
        lambda papers: papers.server("layerwire.internal"),
        lambda papers: papers.ca,
        r"TLS: .* another name; TLS\(server_name",
    ),
    "no-client-certificate": (
        lambda papers: papers.server(clients=True),
        lambda papers: papers.ca,
        "TLS: .* does it want a client certificate",
    ),
    "strange-client-certificate": (
        lambda papers: papers.server(clients=True),
        lambda papers: TLS(papers.ca, *papers.issue("client", papers.stranger)),
        "TLS: .* does it want a client certificate",
    ),
    "plain-server": (lambda papers: None, lambda papers: papers.ca, "TLS: the server doesn't speak it"),
    "plain-client": (
        lambda papers: papers.server(),
        lambda papers: None,
        "the server hung up at once; does it want TLS",
    ),
}


@pytest.mark.parametrize(("server", "client"), TRUSTED.values(), ids=TRUSTED)
def test_calls_over_tls(serve, papers, server, client):
    there = serve(credentials=server(papers))
    with layerwire.Client(there.address, tls=client(papers), token="secret") as lw:
        np.testing.assert_array_equal(lw.relu(ROW), [[0, 2]])
        lw.wait_ready()
    assert there.streams[0].metadata["authorization"] == "Bearer secret"


async def test_async_calls_over_tls(serve, papers):
    there = serve(credentials=papers.server())
    async with layerwire.AsyncClient(there.address, tls=papers.ca) as lw:
        np.testing.assert_array_equal(await lw.relu(ROW), [[0, 2]])


@pytest.mark.parametrize(("server", "client", "words"), REFUSED.values(), ids=REFUSED)
def test_a_handshake_that_fails_is_told(serve, papers, server, client, words):
    there: FakeServer = serve(credentials=server(papers))
    with layerwire.Client(there.address, tls=client(papers), timeout=300) as lw:
        with pytest.raises(errors.UnavailableError, match=f"relu: {there.address}: {words}"):
            lw.relu(ROW)
        with pytest.raises(errors.UnavailableError, match=words):
            lw.server_info()
        with pytest.raises(errors.DeadlineExceededError, match=words):
            lw.wait_ready(timeout=0.5)
    assert not there.streams


def test_files_are_checked_before_anything_is_connected(papers):
    certificate, key = papers.issue("client", papers.authority)
    _, other_key = papers.issue("other", papers.authority)
    junk = papers.directory / "junk"
    junk.write_text("nothing")
    wrong = {
        f"{junk} holds no certificates in PEM": lambda: junk,
        "no certificate in PEM and its key": lambda: TLS(papers.ca, certificate, other_key),
        f"{junk} and ": lambda: TLS(papers.ca, junk, key),
        "certificate and key go together": lambda: TLS(papers.ca, certificate),
    }
    for words, tls in wrong.items():
        with pytest.raises(ValueError, match=words):
            layerwire.Client("localhost:1", tls=tls())
    with pytest.raises(FileNotFoundError, match="missing"):
        layerwire.Client("localhost:1", tls=papers.directory / "missing.pem")
    with pytest.raises(TypeError, match="tls must be True, a path"):
        layerwire.Client("localhost:1", tls=3)


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("localhost:1", True),
        ("127.0.0.9:1", True),
        ("[::1]:1", True),
        ("unix:/a", True),
        ("ipv4:127.0.0.1:1", True),
        ("10.0.0.1:1", False),
        ("localhost.example:1", False),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", False),
        (["localhost:1", "example.org:1"], False),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "secret", [{"token": "secret"}, {"metadata": {"Authorization": "Basic secret"}}], ids=["token", "metadata"]
)
def test_tokens_go_in_the_clear_to_this_host_only(papers, address, kept, secret):
    settings = {"token": None, "metadata": None} | secret
    made = make_settings(address, tls=papers.ca, **settings)
    assert "secret" not in repr(made)
    if kept:
        make_settings(address, tls=None, **settings)
    else:
        with pytest.raises(ValueError, match=f"^{next(iter(secret))}: .* would get it in the clear"):
            make_settings(address, tls=None, **settings)
