"""Stored: what Redis holds under our names, read without trust: others may have written there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from broker.errors import ForeignLayout

_NOT_OURS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@contextlib.contextmanager
def stored(what: str) -> Iterator[None]:
    """While ``what`` is read: raises ForeignLayout where no Tympan wrote it. No I/O inside."""
    try:
        yield
    except _NOT_OURS as error:
        raise ForeignLayout(
            f"{what} is nothing that a Tympan wrote ({type(error).__name__}: {str(error)[:100]}): "
            "remove it, or use another namespace"
        ) from None


def read_record(text: bytes | str, what: str) -> dict[str, Any]:
    """A record that Redis keeps as JSON. Raises ForeignLayout."""
    with stored(what):
        record = json.loads(text)
        if not isinstance(record, dict):
            raise TypeError("no JSON object")
        return record


def checked(record: Mapping[str, Any], **kinds: type) -> None:
    """Whether a record has these fields, each of its kind, and texts that can be written again.

    Raises LookupError, TypeError or ValueError.
    """
    for field, kind in kinds.items():
        value = record[field]
        if type(value) is not kind:
            raise TypeError(f"{field} is no {kind.__name__}")
        if isinstance(value, str):
            value.encode()
