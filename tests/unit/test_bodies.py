"""A body is read in pieces, whole or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from broker._bodies import PIECE, read_body

KEY = "farm:{print01}:body:b"


class Store:
    """Answers like Redis; the body goes after so many commands, as one does whose time is over."""

    def __init__(self, body: bytes, lives: int = 1000) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._body = body
        self._lives = lives

    async def __call__(self, *command: Any, large: bool = False) -> Any:
        self.asked.append(command)
        body = self._body if len(self.asked) <= self._lives else b""
        if command == ("STRLEN", KEY):
            return len(body)
        name, key, first, last = command
        assert (name, key, large) == ("GETRANGE", KEY, True)
        assert last - first < PIECE
        return body[first : last + 1]


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize(
    ("size", "commands"),
    [
        (1, 1), (PIECE - 1, 1), (PIECE, 2), (PIECE + 1, 3), (2 * PIECE, 3), (10 * PIECE, 11),
    ],
)  # fmt: skip
async def test_a_body_is_read_in_pieces(size: int, commands: int) -> None:
    store = Store(pattern(size))
    assert await read_body(store, KEY) == pattern(size)
    assert len(store.asked) == commands


@pytest.mark.parametrize("lives", range(4))
async def test_a_body_that_goes_meanwhile_is_gone(lives: int) -> None:
    assert await read_body(Store(pattern(3 * PIECE), lives), KEY) is None


async def test_a_body_that_goes_afterwards_is_whole() -> None:
    assert await read_body(Store(pattern(3 * PIECE), 4), KEY) == pattern(3 * PIECE)
