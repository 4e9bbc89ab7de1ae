"""Batches: what a process does for very many things, it does for some of them at a time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 256
"""Calls that one process sends together, or things that one call asks about."""


def batches(things: Iterable[T]) -> Iterator[list[T]]:
    """All of them in turn, :data:`AT_ONCE` in a list; a lazy source is read as they are taken."""
    left = iter(things)
    while some := list(islice(left, AT_ONCE)):
        yield some
