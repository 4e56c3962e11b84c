"""TLS at the gateway: who proves what to whom, and certificates that are replaced while it runs."""

from __future__ import annotations

import asyncio
import datetime as dt

import grpc
import pytest
import trustme

STREAM = "/layerwire.v1.LayerwireService/Stream"
HOST = "127.0.0.1"


class Papers:
    """An authority that is trusted, another that isn't, and files of certificates."""

    def __init__(self, folder):
        self.folder = folder
        self.authority, self.stranger = trustme.CA(), trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "ca.pem")

    def issue(self, name=HOST, authority=None, **options):
        """What gRPC's credentials take: key and chain."""
        issued = (authority or self.authority).issue_cert(name, **options)
        return issued.private_key_pem.bytes(), b"".join(part.bytes() for part in issued.cert_chain_pems)

    def write(self, key, chain):
        (self.folder / "key.pem").write_bytes(key)
        (self.folder / "certificate.pem").write_bytes(chain)

    def flags(self, *, clients=False):
        files = {"tls_certificate": "certificate.pem", "tls_key": "key.pem"}
        if clients:
            files["tls_client_ca"] = "ca.pem"
        return {name: str(self.folder / file) for name, file in files.items()}

    def client(self, authority=None, own=None):
        key, chain = own or (None, None)
        return grpc.ssl_channel_credentials((authority or self.authority).cert_pem.bytes(), key, chain)


@pytest.fixture
def papers(tmp_path):
    papers = Papers(tmp_path)
    papers.write(*papers.issue())
    return papers


async def is_served(address, credentials):
    """Whether a call is answered."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.aio.insecure_channel(address, options)
        if credentials is None
        else grpc.aio.secure_channel(address, credentials, options)
    )
    async with channel:
        try:
            await channel.unary_unary("/layerwire.v1.LayerwireService/GetServerInfo")(b"", timeout=30)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # no RPC began
            return False
    return True


CLIENTS = {
    "plain": lambda papers: None,
    "trusting": lambda papers: papers.client(),
    "mistrusting": lambda papers: papers.client(papers.stranger),
    "certified": lambda papers: papers.client(own=papers.issue("client")),
    "certified-by-a-stranger": lambda papers: papers.client(own=papers.issue("client", papers.stranger)),
    "certified-long-ago": lambda papers: papers.client(
        own=papers.issue("client", not_after=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    ),
}
SERVED = {
    "plain": {"plain"},
    "tls": {"trusting", "certified", "certified-by-a-stranger", "certified-long-ago"},
    "mutual": {"certified"},
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("server", SERVED)
async def test_who_proves_himself_is_served(rig, papers, server, client):
    flags = {} if server == "plain" else papers.flags(clients=server == "mutual")
    it = await rig(start_workers=False, **flags)
    assert await is_served(it.address, CLIENTS[client](papers)) == (client in SERVED[server])
    assert it.count("layerwire_requests_total", method="Stream", code="OK") == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [(HOST, {"not_after": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}), ("elsewhere.test", {})],
    ids=["expired", "wrong-name"],
)
async def test_a_client_finds_a_certificate_wrong(rig, papers, name, options):
    papers.write(*papers.issue(name, **options))
    it = await rig(start_workers=False, **papers.flags())
    assert not await is_served(it.address, papers.client())


async def test_new_certificates_are_used_by_new_connections_and_old_connections_go_on(rig, papers):
    it = await rig(credentials=papers.client(), **papers.flags())
    stream = it.channel.stream_stream(STREAM)()
    await stream.initial_metadata()
    papers.write(*papers.issue(authority=papers.stranger))
    assert not await is_served(it.address, papers.client())
    assert await is_served(it.address, papers.client(papers.stranger))
    assert not stream.done()
    assert await it.channel.unary_unary("/layerwire.v1.LayerwireService/GetServerInfo")(b"", timeout=30)


async def test_half_a_pair_changes_nothing_until_the_other_half_is_there(rig, papers):
    it = await rig(start_workers=False, **papers.flags())
    key, chain = papers.issue(authority=papers.stranger)
    (papers.folder / "certificate.pem").write_bytes(chain)
    assert await is_served(it.address, papers.client())
    (papers.folder / "key.pem").unlink()
    assert await is_served(it.address, papers.client())
    (papers.folder / "key.pem").write_bytes(key)
    assert await is_served(it.address, papers.client(papers.stranger))


async def test_another_authority_for_clients_is_noticed(rig, papers):
    it = await rig(start_workers=False, **papers.flags(clients=True))
    strange = papers.client(own=papers.issue("client", papers.stranger))
    assert not await is_served(it.address, strange)
    papers.stranger.cert_pem.write_to_path(papers.folder / "ca.pem")
    assert await is_served(it.address, strange)
    assert not await is_served(it.address, papers.client(own=papers.issue("client")))


async def test_what_speaks_no_tls_doesnt_disturb(rig, papers):
    it = await rig(credentials=papers.client(), **papers.flags())
    host, _, port = it.address.rpartition(":")
    for junk in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        bytes(1 << 16),
        b"\x16\x03\x01\xff\xff",
    ):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(junk)
        await writer.drain()
        writer.close()
    assert await is_served(it.address, papers.client())
