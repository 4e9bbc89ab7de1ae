"""Notification types are opaque 128-bit GUIDs; a few have short names, one is reserved."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import NOTIFICATION_RELEASE
from broker.errors import InvalidType
from broker.notification_type import ALIASES, describe_type, parse_type

GUID = UUID("9e0b6c4e-1d2f-4a55-8c1f-0123456789ab")


@pytest.mark.parametrize(
    "text",
    [
        "9e0b6c4e-1d2f-4a55-8c1f-0123456789ab",
        "9E0B6C4E-1D2F-4A55-8C1F-0123456789AB",
        "{9e0b6c4e-1d2f-4a55-8c1f-0123456789ab}",
        "9e0b6c4e1d2f4a558c1f0123456789ab",
        "urn:uuid:9e0b6c4e-1d2f-4a55-8c1f-0123456789ab",
        "  9e0b6c4e-1d2f-4a55-8c1f-0123456789ab\n",
        GUID,
    ],
)
def test_all_usual_spellings_are_one_type(text: str | UUID) -> None:
    assert parse_type(text) == GUID


@pytest.mark.parametrize(
    ("alias", "guid"),
    [
        ("asyncui", "f6853f92-eb31-4e23-b6e7-fd69056153f0"),
        ("printer-configuration", "2abad223-b994-4aca-82fc-4571b1b585ac"),
        ("port-monitor", "25df3b0e-74a9-47f5-80ce-79b4b1eb5c58"),
        ("sample-ui", "0b20806a-328a-4e1c-931c-0250308574c7"),
    ],
)
def test_known_types_have_short_names(alias: str, guid: str) -> None:
    assert parse_type(alias) == parse_type(f" {alias.upper()} ") == UUID(guid)
    assert describe_type(UUID(guid)) == alias


def test_every_short_name_is_in_the_table() -> None:
    assert set(ALIASES) == {"asyncui", "printer-configuration", "port-monitor", "sample-ui"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "balloon",
        "9e0b6c4e-1d2f-4a55-8c1f-0123456789a",
        "9e0b6c4e-1d2f-4a55-8c1f-0123456789abc",
        "9e0b6c4e-1d2f-4a55-8c1f-0123456789ag",
        "{",
        "\ud800",
    ],
)
def test_anything_else_is_no_type(text: str) -> None:
    with pytest.raises(InvalidType, match="known: asyncui"):
        parse_type(text)


@pytest.mark.parametrize("value", [None, 5, b"asyncui", GUID.bytes, GUID.int, [GUID]])
def test_what_is_no_text_is_no_type(value: Any) -> None:
    with pytest.raises(InvalidType):
        parse_type(value)


@pytest.mark.parametrize("spelling", [NOTIFICATION_RELEASE, str(NOTIFICATION_RELEASE)])
def test_notification_release_names_no_channel(spelling: str | UUID) -> None:
    with pytest.raises(InvalidType, match="reserved"):
        parse_type(spelling)


def test_notification_release_is_the_reserved_guid() -> None:
    assert str(NOTIFICATION_RELEASE) == "ba9a5027-a70e-4ae7-9b7d-eb3e06ad4157"


@given(st.uuids().filter(lambda guid: guid != NOTIFICATION_RELEASE))
def test_what_describes_a_type_names_it(guid: UUID) -> None:
    assert parse_type(describe_type(guid)) == guid
