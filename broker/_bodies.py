"""Bodies that are kept apart are read in pieces.

What many listeners ask for at the same time lies in Redis's buffers at the same time, once for
each: so each asks for little, and for more when it has that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Command = Callable[..., Awaitable[Any]]
"""Runs a plain command that may be repeated; ``large`` says that its answer may be."""
PIECE = 1 << 20
"""Bytes."""


async def read_body(command: Command, key: str) -> bytes | None:
    """A body; None where it is gone, or goes meanwhile. Raises RedisError.

    None that is kept apart is empty, nor does one ever change.
    """
    piece: bytes = await command("GETRANGE", key, 0, PIECE - 1, large=True)
    if len(piece) < PIECE:
        return piece or None
    size = int(await command("STRLEN", key))
    rest = [
        await command("GETRANGE", key, at, at + PIECE - 1, large=True)
        for at in range(PIECE, size, PIECE)
    ]
    body = b"".join((piece, *rest))
    return body if len(body) == size else None
