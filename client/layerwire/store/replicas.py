"""What several addresses make of the store's RPCs: changes go to each, questions to one that serves.

It knows the RPCs' way of pages and errors; nothing of weights or programs.
"""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.message import Message

from layerwire.errors import LayerwireError, NotFoundError
from layerwire.transport import rpc
from layerwire.transport.engine import Engine


async def ask_all(
    engine: Engine, method: str, request: Message, answer: Any, timeout_seconds: float | None
) -> list[Any]:
    """What the servers at all addresses answer."""
    return await asyncio.gather(
        *(rpc.ask(engine, one, method, request, answer, timeout_seconds) for one in engine.connections)
    )


async def delete(engine: Engine, method: str, request: Message, answer: Any, timeout_seconds: float | None) -> None:
    """Forgets something at every address; where servers share a directory, only the first finds it."""
    errors: list[LayerwireError] = []
    for connection in engine.connections:
        try:
            await rpc.ask(engine, connection, method, request, answer, timeout_seconds)
        except NotFoundError as error:
            errors.append(error)
    if len(errors) == len(engine.connections):
        raise errors[0]


async def pages(engine: Engine, method: str, request: Any, answer: Any, timeout_seconds: float | None) -> list[Any]:
    """All pages of a list."""
    pages = []
    while True:
        page = await rpc.ask_any(engine, method, request, answer, timeout_seconds)
        pages.append(page)
        if not page.next_page_token:
            return pages
        request.page_token = page.next_page_token
