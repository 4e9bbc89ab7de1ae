"""Names of queues, whatever they hold."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from broker import Name
from broker.errors import InvalidName
from broker.names import MAX_PRINTER, fold
from workers.cups.cupsd.names import NOBODY, name_of, owner_of, queue_of

SERVER = Name.parse(r"\\print01")


@pytest.mark.parametrize(
    ("queue", "printer"),
    [
        ("laser-3", "laser-3"),
        ("Büro 2. OG", "büro 2. og"),
        ('Chef\'s "Laser"', 'chef\'s "laser"'),
        ("a,b", "a%2cb"),
        ("a\\b", "a%5cb"),
        ("100%", "100%"),
        ("100%25", "100%2525"),
        (" x ", "%20x%20"),
        ("\u3000x", "%e3%80%80x"),
        ("tab\there", "tab%09here"),
        ("プリンタ", "プリンタ"),
        (" ", "%20"),
    ],
)
def test_a_queue_has_a_name_and_the_name_its_queue(queue: str, printer: str) -> None:
    name = name_of(SERVER, queue)
    assert name == Name("print01", printer)
    assert queue_of(name) == fold(queue)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_every_name_can_be_said_and_read_back(queue: str) -> None:
    name = name_of(SERVER, queue)
    assert Name.parse(str(name)) == name
    assert fold(queue_of(name)) == fold(queue)


@given(st.lists(st.text("aA,\\% 2c5C\t", min_size=1, max_size=5), min_size=2, max_size=2))
def test_two_queues_have_two_names(queues: list[str]) -> None:
    one, other = queues
    assume(fold(one) != fold(other))
    assert name_of(SERVER, one) != name_of(SERVER, other)


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    one, other = name_of(SERVER, "x" * 300), name_of(SERVER, "x" * 299 + "y")
    assert len(one.printer) <= MAX_PRINTER
    assert one != other
    assert Name.parse(str(one)) == one


def test_an_empty_name_is_none() -> None:
    with pytest.raises(InvalidName):
        name_of(SERVER, "")


@pytest.mark.parametrize(
    ("user", "owner"),
    [
        ("Alice", "alice"),
        ("Zoë Ü", "zoë ü"),
        (r"DOM\bob", r"dom\bob"),
        ("", NOBODY),
        ("  ", NOBODY),
        ("*", NOBODY),
        ("a|b", NOBODY),
        ("x" * 300, NOBODY),
        ("line\nbreak", NOBODY),
    ],
)
def test_owners(user: str, owner: str) -> None:
    assert owner_of(user) == owner
