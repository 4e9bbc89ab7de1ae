"""A registration on the whole farm says how far it came, and works there (R137)."""

from __future__ import annotations

import pytest

from broker import ALL_USERS, Broker, Name, Notification, Style
from tests.conformance.listening import both_styles
from tests.conformance.rules import rule
from tests.farm import PATIENCE, TYPE, Farm

LOCAL, REMOTE = r"\\print01", r"\\print02"


async def sources(farm: Farm, *granted: str) -> Broker:
    """Both servers are in use; carol administers some."""
    source = await farm.administrator("spooler", LOCAL, REMOTE)
    for name in granted:
        await source.grant(name, "carol", "administer")
    return source


async def hears(farm: Farm, source: Broker, style: Style, granted: tuple[str, ...]) -> int:
    """Carol, who belongs to the local server, registers; the HRESULT, once she has heard it all."""
    listener = await farm.broker("carol", server="print01")
    registration = await listener.register_everywhere(TYPE, user_filter=ALL_USERS, style=style)
    for name in (LOCAL, REMOTE):
        channel = await source.open_channel(name, TYPE, user="alice", style=style)
        result = await channel.send(b"here")
        assert result.name == ("S_OK" if name in granted else "NO_LISTENERS")
    told = [await registration.fetch(PATIENCE) for _ in granted]
    notifications = [
        item if isinstance(item, Notification) else item.notification for item in told if item
    ]
    assert {each.name for each in notifications} == {Name.parse(name) for name in granted}
    assert registration.result.succeeded
    return registration.result.hresult


@rule(137)
@both_styles
@pytest.mark.parametrize(
    ("granted", "hresult"),
    [
        pytest.param((LOCAL,), 0x0004_0017, id="LOCAL_ONLY_REGISTRATION"),
        pytest.param((REMOTE,), 0x0004_0018, id="REMOTE_ONLY_REGISTRATION"),
        pytest.param((LOCAL, REMOTE), 0, id="S_OK"),
    ],
)
async def test_a_registration_says_which_side_it_reached_and_works_there(
    farm: Farm, style: Style, granted: tuple[str, ...], hresult: int
) -> None:
    source = await sources(farm, *granted)
    assert await hears(farm, source, style, granted) == hresult
