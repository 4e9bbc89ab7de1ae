"""What a pool asks for names it, for every replica alike; and what its lists and tokens say."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import ALL_USERS, BIDIRECTIONAL, PER_USER, UNIDIRECTIONAL, Style, UserFilter
from broker._entries import EntryId
from broker._keys import EVERYONE, Audience, channel_audiences
from broker._plan import PoolPlan, RegistrationPlan
from broker._pools import is_forgotten
from broker.channel import _parts
from broker.errors import InvalidName
from broker.names import Name, parse_pool

TYPE = UUID("5a1f6f0e-3c0b-4f0e-8f55-6a4d2f0d9a01")
OTHER_TYPE = UUID("5a1f6f0e-3c0b-4f0e-8f55-6a4d2f0d9a02")
PRINTER = Name("print01", "laser-3")
ASKED = RegistrationPlan(PRINTER, TYPE, UNIDIRECTIONAL, "alice", PER_USER, False, 0)
POOL = PoolPlan("helpdesk", ASKED, 100)


def asking(**parts: object) -> PoolPlan:
    return replace(POOL, plan=replace(ASKED, **parts))  # type: ignore[arg-type]


# Names -------------------------------------------------------------------------------------------


def test_an_id_stays_the_same_from_one_version_to_the_next() -> None:
    """Else the workers of two versions would serve two pools."""
    assert POOL.id == "~helpdesk.1f8b4675"
    assert asking(style=BIDIRECTIONAL).id == "~helpdesk.da7a912f"
    assert POOL.group == f"{TYPE}:alice:~helpdesk.1f8b4675"


def test_all_that_is_listened_to_is_in_the_id() -> None:
    others = [
        replace(POOL, pool="other"),
        asking(name=Name("print01", "laser-4")),
        asking(name=Name("print01")),
        asking(type=OTHER_TYPE),
        asking(style=BIDIRECTIONAL),
        asking(user="bob"),
        asking(user_filter=ALL_USERS),
        asking(printers=True),
    ]
    assert len({each.id for each in [POOL, *others]}) == len(others) + 1


def test_nothing_else_is_in_the_id() -> None:
    """Replicas that differ in this serve one pool; another server's has a slot of its own."""
    for same in (
        replace(POOL, buffer=1),
        replace(POOL, everywhere=True),
        asking(needed=4),
        asking(source="Directory"),
        asking(name=Name("print02", "laser-3")),
    ):
        assert same.id == POOL.id


@pytest.mark.parametrize("name", ["a", "help-desk", "help.desk_2", "0", "a" * 64, "HELPDESK"])
def test_a_pools_name_is_folded(name: str) -> None:
    assert parse_pool(name) == name.lower()


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", ".", "a b", "a|b", "a:b", "a/b", "{a}", "~a", "a" * 65, "ä", None, 1]
)
def test_what_would_look_like_a_part_of_a_key_or_token_is_no_name(name: object) -> None:
    with pytest.raises(InvalidName):
        parse_pool(name)  # type: ignore[arg-type]


# Whom it hears -----------------------------------------------------------------------------------


def test_a_unidirectional_pool_has_a_stream_of_its_own() -> None:
    assert POOL.audiences == (Audience("laser-3", TYPE, UNIDIRECTIONAL, POOL.id),)


def test_a_bidirectional_pool_stands_at_the_boards() -> None:
    pool = asking(style=BIDIRECTIONAL)
    assert pool.audiences == pool.plan.audiences


@pytest.mark.parametrize(
    ("printer", "printers", "user_filter", "user"),
    list(product(["", "laser-3"], [False, True], [PER_USER, ALL_USERS], ["alice", "bob"])),
)
def test_it_hears_what_a_registration_for_the_same_would(
    printer: str, printers: bool, user_filter: UserFilter, user: str
) -> None:
    if printer and printers:
        return
    pool = asking(
        name=Name("print01", printer), printers=printers, user_filter=user_filter, user=user
    )
    for to, target in product(["", "laser-3", "laser-4"], ["alice", "bob", EVERYONE]):
        sent = channel_audiences(Name("print01", to), TYPE, UNIDIRECTIONAL, target)
        heard = bool(set(sent) & set(pool.plan.audiences))
        assert pool.concerns(sent) is heard
        other = channel_audiences(Name("print01", to), OTHER_TYPE, UNIDIRECTIONAL, target)
        assert not pool.concerns(other)


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_record_is_the_plan_again(style: Style, everywhere: bool) -> None:
    pool = replace(
        asking(style=style, needed=4, source="Directory", printers=True, user_filter=ALL_USERS),
        everywhere=everywhere,
    )
    again = PoolPlan.of_record("print01", pool.record())
    assert again == pool
    assert (again.id, again.audiences, again.group) == (pool.id, pool.audiences, pool.group)


# Lists -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "now", "forgotten"),
    [
        ("5-3", "5-4", False),  # somebody deleted it
        ("5-3", "5-9", False),
        ("5-3", "5-2", True),  # the last changes are lost
        ("5-3", "5-3", True),  # they are, and there is another one since
        ("5-3", "0", True),  # everything is lost
        ("5-3", "6-1", True),  # it is, and others made theirs again
        ("5-3", "6-9", True),
        ("", "0", True),  # it was not known yet
        ("", "5-1", True),
    ],
)
def test_a_list_tells_what_was_deleted_from_what_was_forgotten(
    known: str, now: str, forgotten: bool
) -> None:
    assert is_forgotten(known, now) is forgotten


# Tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "acquisition", "adoption"),
    [
        ("", "", EntryId(0, 0)),
        ("5:c0ffee", "5:c0ffee", EntryId(0, 0)),
        ("5:~helpdesk.1f8b4675", "5:~helpdesk.1f8b4675", EntryId(0, 0)),
        ("5:~helpdesk.1f8b4675/5-1", "5:~helpdesk.1f8b4675", EntryId(5, 1)),
        ("5:~help-desk.1f8b4675/6-12", "5:~help-desk.1f8b4675", EntryId(6, 12)),
    ],
)
def test_a_token_names_the_acquisition_and_the_adoption(
    token: str, acquisition: str, adoption: EntryId
) -> None:
    assert _parts(token) == (acquisition, adoption)


@given(st.lists(st.tuples(st.integers(1, 10**13), st.integers(1, 1000)), min_size=2))
def test_later_adoptions_are_greater(adoptions: list[tuple[int, int]]) -> None:
    """Also in a later epoch, in which Redis may count fewer of them."""
    tokens = [f"5:~p.1/{epoch}-{number}" for epoch, number in sorted(adoptions)]
    found = [_parts(token)[1] for token in ["5:~p.1", *tokens]]
    assert found == sorted(found)
