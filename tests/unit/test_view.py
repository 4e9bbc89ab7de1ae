"""The view of a farm is what the surveys say, and its lines fit any terminal."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from rich.cells import cell_len

from broker import BIDIRECTIONAL, PER_USER, UNIDIRECTIONAL, Name, Right
from broker.dead_letter import DeadLetter
from broker.errors import RedisUnreachable
from broker.inventory import ChannelFacts, RegistrationFacts, ServerFacts
from broker.notification_type import ASYNC_UI, SAMPLE_UI
from broker.pool import PoolFacts
from broker.survey import Survey
from workers.cli.view import (
    NOTHING,
    Column,
    Line,
    Row,
    Section,
    Tone,
    fitted,
    screen,
    shares,
    table,
    view_of,
    wrapped,
)

NOW = 1_000_000.0
PRINTER = Name("print01", "laser-3")


def pool(name: str = "desk", **changes: object) -> PoolFacts:
    facts = PoolFacts(
        pool=name,
        id=f"~{name}.0",
        name=PRINTER,
        type=SAMPLE_UI,
        style=UNIDIRECTIONAL,
        user="alice",
        user_filter=PER_USER,
        printers=False,
        needed=Right(0),
        source=None,
        buffer=100,
        since=NOW,
        waiting=0,
        in_hand=0,
        denied=0,
        everywhere=False,
        replicas=("host.1.aa",),
    )
    return replace(facts, **changes)  # type: ignore[arg-type]


def question(id: str, age: float, state: str = "offered", owner: str | None = None) -> ChannelFacts:
    return ChannelFacts(
        id, PRINTER, ASYNC_UI, BIDIRECTIONAL, "alice", state, "spooler", NOW - age, owner, None, 1
    )


def registration(user: str, session: str, type_: UUID = ASYNC_UI) -> RegistrationFacts:
    return RegistrationFacts(
        *(f"{user}{session}", PRINTER, type_, UNIDIRECTIONAL, user, PER_USER, False, Right(0)),
        *(None, 100, session, NOW, False),
    )


LETTER = DeadLetter(
    id="1-0",
    pool="desk",
    registration="~desk.0",
    name=PRINTER,
    type=ASYNC_UI,
    style=UNIDIRECTIONAL,
    user="alice",
    channel="c",
    at=NOW - 90,
    buried_at=NOW - 60,
    times=3,
    reason="KeyError:\n tray",
    data=b"",
    reference=None,
    stream="",
    entry="1-1",
    fields=(),
)


def server(name: str = "print01", **there: object) -> Survey:
    survey = Survey(ServerFacts(Name(name), (), 2, 3, 4, 1), NOW)
    return replace(survey, **there)  # type: ignore[arg-type]


def section(head: str, *surveys: Survey) -> Section:
    (found,) = (one for one in view_of(surveys).sections if one.columns[0].head == head)
    assert all(len(row.cells) == len(found.columns) for row in found.rows)
    return found


def cells(head: str, *surveys: Survey) -> list[tuple[str, ...]]:
    return [row.cells for row in section(head, *surveys).rows]


# From surveys to rows ---------------------------------------------------------------------------


def test_nothing_is_no_rows() -> None:
    view = view_of([])
    assert all(not found.rows for found in view.sections)
    assert view.troubles == ()
    assert view.at == 0


def test_pools_that_nobody_serves_come_first_then_the_largest_backlog() -> None:
    served = pool("busy", waiting=5, in_hand=2)
    behind = pool("behind", waiting=1_000, in_hand=7, denied=3)
    unserved = pool("asleep", waiting=1, replicas=())
    resting = pool("resting", replicas=())
    found = section("POOL", server(pools=(served, resting, unserved)), server(pools=(behind,)))
    assert [(row.cells[0], row.tone) for row in found.rows] == [
        ("asleep", Tone.ALARM),
        ("behind", Tone.WARNING),
        ("busy", Tone.PLAIN),
        ("resting", Tone.PLAIN),
    ]
    assert found.rows[1].cells == (
        *("behind", r"\\print01\laser-3", "sample-ui", "uni", "alice"),
        *("1,000", "7", "1", "3"),
    )


def test_questions_come_oldest_first_with_their_age_and_who_owns_them() -> None:
    asked = (question("b", 20), question("a", 7_300), question("c", 4_000, "asked", "bob"))
    found = section("QUESTION ON", server(questions=asked))
    assert [(row.cells[1], row.cells[4], row.cells[5], row.tone) for row in found.rows] == [
        ("a", "asked, unanswered", "2 h", Tone.WARNING),
        ("c", "owned, the owner's turn: bob", "1 h", Tone.PLAIN),
        ("b", "asked, unanswered", "20 s", Tone.PLAIN),
    ]


def test_listeners_are_counted_for_each_name_and_type() -> None:
    there = (
        registration("bob", "s1"),
        registration("alice", "s1"),
        registration("alice", "s2"),
        registration("bob", "s2", SAMPLE_UI),
    )
    assert cells("LISTENERS ON", server(registrations=there)) == [
        (str(PRINTER), "asyncui", "uni", "alice, bob", "3", "2"),
        (str(PRINTER), "sample-ui", "uni", "bob", "1", "1"),
    ]


def test_dead_letters_of_each_server_with_the_last_reason_on_one_line() -> None:
    assert cells("DEAD LETTERS ON", server(letters=12, last_letter=LETTER), server("print02")) == [
        (r"\\print01", "12", "1 min", "desk", str(PRINTER), "KeyError: tray")
    ]


def test_totals() -> None:
    two = (
        server(
            pools=(pool(waiting=1_200, in_hand=3), pool("mail", replicas=("host.1.aa", "b"))),
            questions=(question("a", 1),),
            letters=2,
            last_letter=LETTER,
        ),
        server("print02", pools=(pool(),)),
    )
    assert view_of(two).totals == (
        "2 servers",
        "8 open channels",
        "1 question",
        "6 registrations",
        "2 pools",
        "1,200 waiting",
        "3 in hand",
        "2 replicas",
        "2 dead letters",
    )


def test_a_server_that_cannot_be_read_says_why_and_is_not_counted() -> None:
    away = server("print02", now=0.0, unread=RedisUnreachable("redis://r2 does\nnot answer"))
    view = view_of([server(), away])
    assert view.troubles == (r"\\print02 cannot be read: redis://r2 does not answer",)
    assert view.totals[0] == "1 server"
    assert view.at == NOW
    assert cells("SERVER", server(), away) == [(r"\\print01", "-", "2", "3", "1", "4", "0", "0")]


# From rows to lines -----------------------------------------------------------------------------

FULL = view_of(
    [
        server(
            pools=tuple(pool(f"pool-{i}", waiting=i) for i in range(30)),
            questions=tuple(question(f"{i:016x}", i) for i in range(20)),
            registrations=tuple(registration(f"user{i}", "s") for i in range(3)),
            letters=1,
            last_letter=replace(LETTER, reason="r" * 2_000),
        ),
        server("print02", unread=RedisUnreachable("it is away " * 20)),
    ]
)


@pytest.mark.parametrize("width", [1, 5, 12, 30, 36, 60, 80, 100, 250])
@pytest.mark.parametrize("height", [1, 2, 5, 10, 24, 200])
def test_lines_fit_any_terminal(width: int, height: int) -> None:
    lines = screen([Line("tympan top   12:00:00")], FULL, width, height)
    assert len(lines) <= height
    assert all(cell_len(line.text) <= width for line in lines)
    assert all("\n" not in line.text for line in lines)


def test_all_of_it_is_shown_where_there_is_room() -> None:
    lines = screen([], FULL, 250, 200)
    text = "\n".join(line.text for line in lines)
    assert "more" not in text
    assert all(f"pool-{i} " in text for i in range(30))
    assert [line.text.split("  ")[0] for line in lines if line.tone is Tone.HEAD] == [
        *("POOL", "QUESTION ON", "LISTENERS ON", "DEAD LETTERS ON", "SERVER"),
    ]


def test_every_section_gets_its_share_and_says_how_many_more_there_are() -> None:
    lines = screen([], FULL, 120, 40)
    heads = [line.text.split("  ")[0] for line in lines if line.tone is Tone.HEAD]
    assert heads == ["POOL", "QUESTION ON", "LISTENERS ON", "DEAD LETTERS ON", "SERVER"]
    more = [line.text for line in lines if line.tone is Tone.QUIET]
    assert len(more) == 2
    assert all(line.startswith("… ") and line.endswith(" more") for line in more)


def test_a_line_for_more_takes_no_row_that_would_have_fitted() -> None:
    rows = tuple(Row((str(i),)) for i in range(4))
    whole = Section((Column("N"),), rows)
    assert [line.text for line in table(whole, 10, 5)] == ["N", "0", "1", "2", "3"]
    assert [line.text for line in table(whole, 10, 4)] == ["N", "0", "1", "… 2 more"]
    assert [line.text for line in table(whole, 10, 2)] == ["N", "… 4 more"]


@pytest.mark.parametrize(
    ("wishes", "room", "given"),
    [
        ([5, 5], 20, [5, 5]),
        ([30, 4, 4], 20, [12, 4, 4]),
        ([30, 30], 21, [11, 10]),
        ([3, 3, 3], 2, [1, 1, 0]),
        ([3], -4, [0]),
        ([], 9, []),
    ],
)
def test_shares(wishes: list[int], room: int, given: list[int]) -> None:
    assert shares(wishes, room) == given


def test_text_is_cut_short_before_a_column_is_left_out_and_numbers_never() -> None:
    columns = (Column("NAME"), Column("WHY", 1), Column("COUNT", is_number=True))
    rows = [Row(("n" * 30, "w" * 30, "1,000,000"))]
    assert fitted(columns, rows, 80) == {0: 30, 1: 30, 2: 9}
    assert fitted(columns, rows, 61) == {0: 24, 1: 24, 2: 9}
    assert fitted(columns, rows, 40) == {0: 29, 2: 9}, "the rest has its room"
    assert fitted(columns, rows, 20) == {0: 9, 2: 9}
    assert fitted(columns, rows, 5) == {0: 4, 2: 9}
    wide = Section(columns, tuple(rows))
    assert table(wide, 61, 5)[1].text == f"{'n' * 23}…  {'w' * 23}…  1,000,000"


def test_wide_characters_count_twice() -> None:
    rows = (Row(("\N{PRINTER}\N{CJK UNIFIED IDEOGRAPH-7D19}" * 10, "1")),)
    wide = Section((Column("A"), Column("B", is_number=True)), rows)
    assert all(cell_len(line.text) <= 12 for line in table(wide, 12, 5))


def test_a_long_line_is_broken_where_its_parts_meet() -> None:
    line = Line("3 servers · 12 waiting · 1 replica", Tone.ALARM)
    assert [one.text for one in wrapped(line, 24, " · ")] == ["3 servers · 12 waiting", "1 replica"]
    assert {one.tone for one in wrapped(line, 24)} == {Tone.ALARM}
    assert [one.text for one in wrapped(Line("longword no"), 4)] == ["long", "no"]


def test_nothing_seen_yet_is_a_head_alone() -> None:
    assert screen([Line("tympan top")], NOTHING, 80, 24) == [Line("tympan top")]
