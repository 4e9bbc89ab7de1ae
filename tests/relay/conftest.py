"""Fixtures of the relays' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.relay.receiver import Receiver
from tests.relay.smtp import MailServer


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    """A mail server without TLS, as one on the same host may be."""
    async with MailServer() as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Who takes webhooks."""
    async with Receiver() as made:
        yield made
