"""Keys of one server share one hash tag, and who meets on an audience is the user truth table.

A channel reaches a registration where their audiences have one in common. They never have two:
the registration would hear the same notification twice.
"""

from __future__ import annotations

from itertools import combinations, product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from broker import ALL_USERS, BIDIRECTIONAL, PER_USER, UNIDIRECTIONAL, Style, UserFilter
from broker._keys import (
    CATALOGUE,
    EVERYONE,
    Audience,
    Keys,
    channel_audiences,
    directory,
    grant_field,
    group_name,
    inbox_field,
    parse_grant_field,
    parse_subject,
    registration_audiences,
    subject,
)
from broker.names import Name

TYPE = UUID("9e0b6c4e-1d2f-4a55-8c1f-0123456789ab")
OTHER_TYPE = UUID("9e0b6c4e-1d2f-4a55-8c1f-0123456789ac")
PRINTER = Name("print01", "laser-3")
SERVER = Name("print01")
POOL = "~desk.0a1b2c3d"
"""A pool's registration."""
HOSTILE = ("", "laser-3", "a|b", "|", "}{", "{x}", "a:b", "*", "=alice", "+", "a b", "\u00e9")
"""Printers that look like parts of keys."""


def every_key(keys: Keys, printer: str) -> list[str]:
    """One key of each kind that a server has."""
    audience = Audience(printer, TYPE, BIDIRECTIONAL, "=alice")
    return [
        keys.meta,
        keys.leases,
        keys.streams,
        keys.opened,
        keys.channels,
        keys.grants,
        keys.counts,
        keys.registrations,
        keys.stream(audience),
        keys.room(audience),
        keys.channel("c0ffee"),
        keys.log("c0ffee"),
        keys.inbox("host.17.abc"),
        keys.held("host.17.abc"),
        keys.body("c0ffee"),
        keys.pools,
        keys.dead,
        keys.idle(POOL),
        keys.returned(POOL, audience),
        keys.held(POOL),
        keys.receipt("c0ffee"),
    ]


@pytest.mark.parametrize("server", ["print01", "2001:db8::7", "10.0.0.7", "pr\u00fcf.example"])
@pytest.mark.parametrize("printer", HOSTILE)
def test_every_key_of_a_server_has_the_servers_slot(server: str, printer: str) -> None:
    keys = every_key(Keys("tympan", server), printer)
    assert {key_slot(key.encode()) for key in keys} == {key_slot(server.encode())}
    assert all(key.startswith(f"tympan:{{{server}}}:") for key in keys)


def test_the_catalogue_names_every_kind_of_key_once() -> None:
    patterns = [fact.pattern for fact in CATALOGUE]
    assert len(set(patterns)) == len(patterns)
    holes = {
        "{s}": "tympan:{print01}",
        "<namespace>": "tympan",
        "<audience>": Audience("laser-3", TYPE, BIDIRECTIONAL, "=alice").field,
        "<session>": "host.17.abc",
        "<pool>": POOL,
        "<id>": "c0ffee",
    }
    named = set()
    for pattern in patterns:
        for hole, filling in holes.items():
            pattern = pattern.replace(hole, filling)  # noqa: PLW2901
        named.add(pattern)
    made = {directory("tympan"), *every_key(Keys("tympan", "print01"), "laser-3")}
    assert named == made


def test_keys_of_two_namespaces_or_servers_never_meet() -> None:
    sets = [
        set(every_key(Keys(namespace, server), "p"))
        for namespace, server in (("tympan", "a"), ("tympan", "b"), ("tympan.a", "a"))
    ]
    assert len(set.union(*sets)) == sum(map(len, sets))


def test_keys_of_one_server_never_meet() -> None:
    keys = every_key(Keys("tympan", "print01"), "laser-3")
    assert len(set(keys)) == len(keys)


def test_slots_are_spread_over_the_servers_of_a_farm() -> None:
    slots = {key_slot(Keys("tympan", f"print{n:02}").meta.encode()) for n in range(100)}
    assert len(slots) > 95
    assert all(0 <= slot < REDIS_CLUSTER_HASH_SLOTS for slot in slots)


# Audiences --------------------------------------------------------------------------------------


def meet(
    target: str,
    user: str,
    user_filter: UserFilter,
    *,
    channel: Name = PRINTER,
    registration: Name = PRINTER,
    printers: bool = False,
    types: tuple[UUID, UUID] = (TYPE, TYPE),
    styles: tuple[Style, Style] = (UNIDIRECTIONAL, UNIDIRECTIONAL),
) -> int:
    """How many copies the registration gets."""
    speaks_to = channel_audiences(channel, types[0], styles[0], target)
    listens_to = registration_audiences(
        registration, types[1], styles[1], user, user_filter, printers=printers
    )
    assert len(set(speaks_to)) == len(speaks_to)
    assert len(set(listens_to)) == len(listens_to)
    return len(set(speaks_to) & set(listens_to))


@pytest.mark.parametrize(
    ("target", "user", "user_filter", "is_delivered"),
    [
        pytest.param("alice", "alice", PER_USER, True, id="for alice, alice's own (R41)"),
        pytest.param("alice", "bob", PER_USER, False, id="for alice, bob's own (R42)"),
        pytest.param("alice", "admin", PER_USER, False, id="for alice, the admin's own (R44)"),
        pytest.param("alice", "admin", ALL_USERS, True, id="for alice, the admin's all (R43)"),
        pytest.param("alice", "alice", ALL_USERS, True, id="for alice, alice the admin's all"),
        pytest.param(EVERYONE, "alice", PER_USER, True, id="for all, alice's own (R45)"),
        pytest.param(EVERYONE, "bob", PER_USER, True, id="for all, bob's own (R45)"),
        pytest.param(EVERYONE, "admin", ALL_USERS, True, id="for all, the admin's all (R46)"),
    ],
)
@pytest.mark.parametrize("style", Style)
def test_the_user_truth_table(
    target: str,
    user: str,
    user_filter: UserFilter,
    is_delivered: bool,
    style: Style,
) -> None:
    copies = meet(target, user, user_filter, styles=(style, style))
    assert copies == int(is_delivered)


@pytest.mark.parametrize(
    ("channel", "registration", "printers", "is_delivered"),
    [
        pytest.param(PRINTER, PRINTER, False, True, id="one printer"),
        pytest.param(PRINTER, Name("print01", "laser-4"), False, False, id="two printers (R38)"),
        pytest.param(SERVER, SERVER, False, True, id="the server"),
        pytest.param(PRINTER, SERVER, False, False, id="printer's channel, server's listener"),
        pytest.param(SERVER, PRINTER, False, False, id="server's channel, printer's listener"),
        pytest.param(PRINTER, SERVER, True, True, id="printer's channel, all printers (D1)"),
        pytest.param(SERVER, SERVER, True, True, id="server's channel, server and all printers"),
    ],
)
@pytest.mark.parametrize("target", ["alice", EVERYONE])
@pytest.mark.parametrize("user_filter", UserFilter)
def test_the_table_of_names(
    channel: Name,
    registration: Name,
    printers: bool,
    is_delivered: bool,
    target: str,
    user_filter: UserFilter,
) -> None:
    copies = meet(
        target,
        "alice",
        user_filter,
        channel=channel,
        registration=registration,
        printers=printers,
    )
    assert copies == int(is_delivered)


def test_types_and_styles_must_be_equal() -> None:
    types = (TYPE, OTHER_TYPE)
    for type_, other_type, style, other_style in product(types, types, Style, Style):
        copies = meet(
            "alice",
            "alice",
            PER_USER,
            types=(type_, other_type),
            styles=(style, other_style),
        )
        assert copies == int((type_, style) == (other_type, other_style))


@pytest.mark.parametrize("printer", HOSTILE)
@pytest.mark.parametrize("user", ["+", "**", "=alice", "all", "laser-3"])
def test_no_user_is_mistaken_for_a_group_of_users(printer: str, user: str) -> None:
    """Users called like an audience hear their own and everybody's, never the administrators'."""
    name = Name("print01", printer)
    assert meet("bob", user, PER_USER, channel=name, registration=name) == 0
    assert meet(user, user, PER_USER, channel=name, registration=name) == 1


@pytest.mark.parametrize(("printer", "other"), list(combinations(HOSTILE, 2)))
def test_no_two_printers_share_an_audience(printer: str, other: str) -> None:
    one, another = (
        registration_audiences(
            Name("print01", name), TYPE, UNIDIRECTIONAL, "alice", PER_USER, printers=False
        )
        for name in (printer, other)
    )
    assert len({audience.field for audience in (*one, *another)}) == 4


# Texts that go into Redis and come back ---------------------------------------------------------

printers = st.text(st.characters(exclude_characters="\\,", exclude_categories=["C"]))
users = st.text(st.characters(exclude_characters="|", exclude_categories=["C"]), min_size=1)


@given(printers, st.uuids(), st.sampled_from(Style), users)
def test_a_subject_reads_as_it_was_written(
    printer: str, type_: UUID, style: Style, user: str
) -> None:
    text = subject(Name("print01", printer), type_, style, user)
    assert parse_subject(text) == (printer, type_, style, user)


@given(printers, users)
def test_a_grants_field_reads_as_it_was_written(printer: str, user: str) -> None:
    assert parse_grant_field(grant_field(printer, user)) == (printer, user)


@pytest.mark.parametrize("printer", HOSTILE)
def test_bars_in_printers_do_no_harm(printer: str) -> None:
    text = subject(Name("print01", printer), TYPE, BIDIRECTIONAL, "=a+*")
    assert parse_subject(text) == (printer, TYPE, BIDIRECTIONAL, "=a+*")
    assert parse_grant_field(grant_field(printer, "adatum\\alice")) == (printer, "adatum\\alice")


def test_a_group_is_named_after_type_user_and_id() -> None:
    assert group_name(TYPE, "alice", "c0ffee") == f"{TYPE}:alice:c0ffee"


def test_no_inbox_is_mistaken_for_an_audience() -> None:
    """Both are fields of one hash: the numbers of streams."""
    field = inbox_field("host.17.abc")
    assert field.count("|") == 0
    assert Audience("to:host.17.abc", TYPE, UNIDIRECTIONAL, "=alice").field.count("|") == 3
