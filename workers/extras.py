"""Extras: optional packages, and what to do where one is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from broker import results
from broker.errors import TympanError
from broker.results import Result


class ExtraMissing(TympanError):
    """Something was asked for that needs packages which are not installed."""

    result = Result("EXTRA_MISSING", results.UNEXPECTED.hresult)


@contextlib.contextmanager
def needed(extra: str, what: str) -> Iterator[None]:
    """Around the imports of what ``what`` needs. Raises ExtraMissing, which names the extra."""
    try:
        yield
    except ImportError as error:
        raise ExtraMissing(
            f"{what} needs the extra {extra!r} ({error}): pip install 'tympan[{extra}]'"
        ) from error
