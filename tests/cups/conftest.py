"""Fixtures of the CUPS tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cups.host import CupsHost


@pytest.fixture
def cups_host() -> Iterator[CupsHost]:
    """A private cupsd, ``print01``, with Tympan's notifier and backend in its ServerBin."""
    with CupsHost("print01") as host:
        host.place()
        yield host


@pytest.fixture
def host() -> Iterator[CupsHost]:
    """A cupsd without anything of Tympan's."""
    with CupsHost("print01") as made:
        made.settings.unlink()
        yield made
