"""Arguments of clients and options that are refused, each by name."""

from __future__ import annotations

import math

import pytest

from layerwire.transport.options import Options
from layerwire.transport.settings import make_settings


def settings(address="localhost:1", token=None, tls=None, metadata=None, **limits):
    return make_settings(address, token, tls, metadata, **limits)


REFUSED = {
    "no-address": (lambda: settings([]), ValueError, "at least one"),
    "address-type": (lambda: settings([5]), TypeError, "host:port"),
    "no-port": (lambda: settings("localhost"), ValueError, "host:port"),
    "port-0": (lambda: settings("localhost:0"), ValueError, "host:port"),
    "port-large": (lambda: settings("localhost:65536"), ValueError, "host:port"),
    "token-in-the-clear": (lambda: settings("example.org:443", "t"), ValueError, "token: example.org:443"),
    "token-to-one-in-the-clear": (lambda: settings(["127.0.0.1:1", "10.0.0.1:1"], "t"), ValueError, "10.0.0.1"),
    "token-type": (lambda: settings(token=3), TypeError, "token must be a string"),
    "token-line-break": (lambda: settings(token="a\nb"), ValueError, "token: has characters"),
    "metadata-key": (lambda: settings(metadata={"a b": "c"}), ValueError, "metadata: 'a b'"),
    "metadata-key-type": (lambda: settings(metadata=[(1, "c")]), TypeError, "metadata: 1"),
    "metadata-value": (lambda: settings(metadata={"a": "\u20ac"}), ValueError, "metadata: 'a'"),
    "metadata-value-type": (lambda: settings(metadata={"a": 5}), TypeError, "metadata: 'a'"),
    "metadata-bytes": (lambda: settings(metadata={"a": b"c"}), TypeError, "metadata: 'a'"),
    "metadata-not-bytes": (lambda: settings(metadata={"a-bin": "c"}), TypeError, "metadata: 'a-bin'"),
    "bytes-type": (lambda: settings(max_message_bytes="1"), TypeError, "max_message_bytes"),
    "bytes-0": (lambda: settings(max_bytes_in_flight=0), ValueError, "max_bytes_in_flight"),
    "retries": (lambda: settings(max_retries=-1), ValueError, "retries must be at least 0"),
    "timeout-0": (lambda: Options(0), ValueError, "timeout must be above 0"),
    "timeout-nan": (lambda: Options(math.nan), ValueError, "timeout must be above 0"),
    "timeout-type": (lambda: Options("1"), TypeError, "timeout must be a number"),
    "priority": (lambda: Options(priority=11), ValueError, "priority must be -10 to 10"),
    "priority-type": (lambda: Options(priority=1.0), TypeError, "priority must be an integer"),
    "deterministic": (lambda: Options(deterministic=1), TypeError, "deterministic must be True or False"),
}


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_settings_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "address", ["localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "unix:/run/x.sock", "ipv4:127.0.0.1:1"]
)
def test_tokens_go_to_this_host_in_the_clear(address):
    assert settings(address, "t").metadata == (("authorization", "Bearer t"),)


def test_tokens_go_anywhere_over_tls():
    assert settings("example.org:443", "t", tls=True).credentials is not None
