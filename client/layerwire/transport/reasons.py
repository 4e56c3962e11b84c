"""Why a server can't be reached: gRPC's account of every address and try, as one sentence for people.

It knows gRPC's texts, which change between its versions: one that isn't in the table is passed on as it is.
"""

from __future__ import annotations

import re

_UNREACHED = re.compile(r"failed to connect to all addresses|errors resolving|DNS resolution failed")
_REASONS: dict[re.Pattern[str], str] = {
    re.compile(r"CERTIFICATE_VERIFY_FAILED(?:: ([^:]+))?"): "TLS: the server's certificate is not trusted: {0}",
    re.compile(r"[Hh]ostname [Vv]erification|Peer name .* is not in peer certificate"): (
        "TLS: the server's certificate is for another name; TLS(server_name=...) says which to expect"
    ),
    re.compile(r"WRONG_VERSION_NUMBER"): "TLS: the server doesn't speak it",
    re.compile(r"[Hh]andshake failed .*?SSL_ERROR\w*: (.*)"): "TLS: the handshake failed: {0}",
    re.compile(r"security handshaker"): "TLS: the certificates given can't be used",
    re.compile(r"[Cc]onnection refused"): "connection refused; is a server running there?",
    re.compile(r"No such file or directory"): "there is no such socket; is a server running there?",
    re.compile(r"[Dd]omain name not found|Name or service not known|[Mm]isformatted"): "there is no such host",
}
# What a server that wants TLS, or the client's certificate, says of itself is nothing: it hangs up.
_HUNG_UP = re.compile(r"Socket closed|[Cc]onnection reset|[Bb]roken pipe")
_HUNG_UP_REASON = {
    False: "the server hung up at once; does it want TLS? Then pass tls=",
    True: "TLS: the server hung up at once; does it want a client certificate? Then pass TLS(certificate=, key=)",
}


def explain(details: str, *, tls: bool) -> str:
    """The reason in gRPC's details, for connections with or without TLS."""
    if not _UNREACHED.search(details):
        return details
    for pattern, sentence in _REASONS.items():
        if match := pattern.search(details):
            return sentence.format(*(group or "no reason given" for group in match.groups()))
    return _HUNG_UP_REASON[tls] if _HUNG_UP.search(details) else details
