"""The targets of a plan, made and, before anything is measured, reached.

It knows each kind of target there is; nothing of load.
"""

from __future__ import annotations

import grpc

from layerwire.transport.settings import make_settings
from layerwire_bench.plan import TargetSpec
from layerwire_bench.targets.target import Target


class UnreachableError(Exception):
    """Nobody answers at an address."""


def make_target(spec: TargetSpec, timeout_seconds: float) -> Target:
    """The target, not yet connected. Each kind is imported when it is asked for: torch and protobuf's pool weigh.

    Raises:
        ValueError: the address is none.
    """
    if spec.address is None:
        from layerwire_bench.targets.local import LocalTarget

        return LocalTarget()
    settings = make_settings(spec.address, None, None, None)
    if spec.how == "unary":
        from layerwire_bench.targets.unary import UnaryTarget

        return UnaryTarget(settings, timeout_seconds)
    if spec.how == "oip":
        from layerwire_bench.targets.inference import InferenceTarget

        return InferenceTarget(settings, timeout_seconds)
    from layerwire_bench.targets.stream import StreamTarget

    return StreamTarget(settings, timeout_seconds)


def await_server(spec: TargetSpec, wait_seconds: float) -> None:
    """Waits until a server takes connections.

    Raises:
        UnreachableError: none does in time.
        ValueError: the address is none.
    """
    if spec.address is None:
        return
    with make_settings(spec.address, None, None, None).blocking_channel(spec.address) as channel:
        try:
            grpc.channel_ready_future(channel).result(wait_seconds)
        except grpc.FutureTimeoutError:
            sentence = f"unreachable: no server took a connection in {wait_seconds:g} s"
            raise UnreachableError(f"{spec.address}: {sentence}") from None
