"""The view of a farm: from surveys to rows, and from rows to lines of a width and height. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from rich.cells import cell_len, set_cell_size

from broker import Style
from broker.inventory import STATES
from broker.names import Name
from broker.notification_type import describe_type
from broker.survey import Survey
from workers.cli.output import counted, on_one_line, span

OLD = 300.0
"""Seconds after which an unanswered question is pointed out."""
GAP = "  "
COMFORT = 16
"""Cells that a column of text keeps before columns of less interest are left out."""
LEAST = 4
"""Cells that it keeps at the least."""
MOST = 48
"""Cells that it is given at the most."""


class Tone(StrEnum):
    """What a line is to whoever looks."""

    PLAIN = "plain"
    QUIET = "quiet"
    HEAD = "head"
    CHOSEN = "chosen"
    WARNING = "warning"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class Column:
    """One column; the higher its rank, the sooner it is left out where there is no room."""

    head: str
    rank: int = 0
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row; a cell for each column."""

    cells: tuple[str, ...]
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Section:
    """Rows of one kind; the first column's head says which."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a screen."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class View:
    """A farm, as people see it."""

    totals: tuple[str, ...]
    sections: tuple[Section, ...]
    troubles: tuple[str, ...] = ()
    """Servers that could not be read, and why."""
    at: float = 0.0
    """When that was, in seconds of Redis's clock; 0 where nothing was read."""


NOTHING = View((), ())

# From surveys to rows -----------------------------------------------------------------------------


def view_of(surveys: Sequence[Survey]) -> View:
    """The view of these servers."""
    read = [survey for survey in surveys if survey.unread is None]
    return View(
        _totals(read),
        (
            _pools(read),
            _questions(read),
            _listeners(read),
            _dead_letters(read),
            _servers(read),
        ),
        tuple(
            f"{survey.name} cannot be read: {on_one_line(str(survey.unread))}"
            for survey in surveys
            if survey.unread is not None
        ),
        max((survey.now for survey in read), default=0.0),
    )


def _totals(surveys: Iterable[Survey]) -> tuple[str, ...]:
    each = list(surveys)
    pools = [facts for survey in each for facts in survey.pools]
    return (
        counted(len(each), "server"),
        f"{sum(survey.server.channels for survey in each):,} open channels",
        counted(sum(len(survey.questions) for survey in each), "question"),
        counted(sum(survey.server.registrations for survey in each), "registration"),
        counted(len({facts.pool for facts in pools}), "pool"),
        f"{sum(facts.waiting for facts in pools):,} waiting",
        f"{sum(facts.in_hand for facts in pools):,} in hand",
        counted(len({one for facts in pools for one in facts.replicas}), "replica"),
        counted(sum(survey.letters for survey in each), "dead letter"),
    )


def _pools(surveys: Iterable[Survey]) -> Section:
    """What waits for want of replicas comes first, then the largest backlog."""
    found = sorted(
        (facts for survey in surveys for facts in survey.pools),
        key=lambda facts: (
            not (facts.waiting and not facts.replicas),
            -facts.backlog,
            facts.pool,
            facts.name,
            facts.id,
        ),
    )
    rows = []
    for facts in found:
        tone = Tone.PLAIN
        if facts.waiting and not facts.replicas:
            tone = Tone.ALARM
        elif facts.denied:
            tone = Tone.WARNING
        cells = (
            facts.pool,
            str(facts.name),
            describe_type(facts.type),
            facts.style.word,
            facts.user,
            f"{facts.waiting:,}",
            f"{facts.in_hand:,}",
            f"{len(facts.replicas):,}",
            f"{facts.denied:,}",
        )
        rows.append(Row(cells, tone))
    columns = (
        Column("POOL"),
        Column("NAME", 1),
        Column("TYPE", 4),
        Column("STYLE", 5),
        Column("USER", 6),
        Column("WAITING", is_number=True),
        Column("IN HAND", 2, is_number=True),
        Column("REPLICAS", is_number=True),
        Column("DENIED", 3, is_number=True),
    )
    return Section(columns, tuple(rows))


def _questions(surveys: Iterable[Survey]) -> Section:
    """The oldest first."""
    found = sorted(
        ((survey.now - facts.opened_at, facts) for survey in surveys for facts in survey.questions),
        key=lambda pair: (-pair[0], pair[1].id),
    )
    rows = []
    for age, facts in found:
        state = STATES.get(facts.state, facts.state)
        cells = (
            str(facts.name),
            facts.id,
            describe_type(facts.type),
            facts.user or "all users",
            f"{state}: {facts.owner}" if facts.owner else state,
            span(age),
        )
        is_old = age >= OLD and facts.state == "offered"
        rows.append(Row(cells, Tone.WARNING if is_old else Tone.PLAIN))
    columns = (
        Column("QUESTION ON"),
        Column("CHANNEL", 3),
        Column("TYPE", 4),
        Column("FOR", 2),
        Column("STATE", 1),
        Column("AGE", is_number=True),
    )
    return Section(columns, tuple(rows))


@dataclass
class _Listeners:
    """Registrations for one name, type and style."""

    count: int = 0
    users: set[str] = field(default_factory=set)
    processes: set[str] = field(default_factory=set)


def _listeners(surveys: Iterable[Survey]) -> Section:
    groups: dict[tuple[Name, str, Style], _Listeners] = defaultdict(_Listeners)
    for survey in surveys:
        for facts in survey.registrations:
            group = groups[facts.name, describe_type(facts.type), facts.style]
            group.count += 1
            group.users.add(facts.user)
            group.processes.add(facts.session)
    rows = tuple(
        Row(
            (
                str(name),
                kind,
                style.word,
                ", ".join(sorted(group.users)),
                f"{group.count:,}",
                f"{len(group.processes):,}",
            )
        )
        for (name, kind, style), group in sorted(
            groups.items(), key=lambda item: (item[0][0], item[0][1], item[0][2].word)
        )
    )
    columns = (
        Column("LISTENERS ON"),
        Column("TYPE", 2),
        Column("STYLE", 3),
        Column("USERS", 4),
        Column("REGISTRATIONS", is_number=True),
        Column("PROCESSES", 1, is_number=True),
    )
    return Section(columns, rows)


def _dead_letters(surveys: Iterable[Survey]) -> Section:
    rows = []
    for survey in surveys:
        last = survey.last_letter
        if last is not None:
            age = span(survey.now - last.buried_at)
            cells = (
                str(survey.name),
                f"{survey.letters:,}",
                age,
                last.pool,
                str(last.name),
                on_one_line(last.reason),
            )
            rows.append(Row(cells, Tone.WARNING))
    columns = (
        Column("DEAD LETTERS ON"),
        Column("LETTERS", is_number=True),
        Column("LAST", 2, is_number=True),
        Column("POOL", 3),
        Column("NAME", 4),
        Column("REASON", 1),
    )
    return Section(columns, tuple(rows))


def _servers(surveys: Iterable[Survey]) -> Section:
    rows = tuple(
        Row(
            (
                str(survey.name),
                ", ".join(str(alias) for alias in survey.server.aliases) or "-",
                f"{survey.server.sessions:,}",
                f"{survey.server.registrations:,}",
                f"{survey.server.pools:,}",
                f"{survey.server.channels:,}",
                f"{len(survey.questions):,}",
                f"{survey.letters:,}",
            )
        )
        for survey in surveys
    )
    columns = (
        Column("SERVER"),
        Column("ALIASES", 5),
        Column("PROCESSES", 1, is_number=True),
        Column("REGISTRATIONS", 3, is_number=True),
        Column("POOLS", 3, is_number=True),
        Column("CHANNELS", 2, is_number=True),
        Column("QUESTIONS", 3, is_number=True),
        Column("DEAD", 4, is_number=True),
    )
    return Section(columns, rows)


# From rows to lines ------------------------------------------------------------------------------


def screen(head: Sequence[Line], view: View, width: int, height: int) -> list[Line]:
    """Lines that fit: the head as it is, and of each section as many rows as its share holds."""
    lines = [line for one in head for line in wrapped(one, width)]
    for trouble in view.troubles:
        lines += wrapped(Line(trouble, Tone.ALARM), width)
    if view.totals:
        lines += wrapped(Line(" · ".join(view.totals)), width, " · ")
    sections = [section for section in view.sections if section.rows]
    # A section takes a blank line and its head beside its rows.
    heights = shares([2 + len(section.rows) for section in sections], height - len(lines))
    for section, share in zip(sections, heights, strict=True):
        if share >= 3:
            lines += [Line(""), *table(section, width, share - 1)]
    return lines[:height]


def shares(wishes: Sequence[int], room: int) -> list[int]:
    """What each gets of so much room: no more than it wishes, and otherwise alike."""
    given = [0] * len(wishes)
    left = [i for i, wish in enumerate(wishes) if wish > 0]
    while left and room > 0:
        share = max(1, room // len(left))
        for i in list(left):
            more = min(share, wishes[i] - given[i], room)
            given[i] += more
            room -= more
            if given[i] == wishes[i]:
                left.remove(i)
    return given


def table(section: Section, width: int, height: int) -> list[Line]:
    """The head and the first rows of a section; the last line says how many more there are."""
    shown = section.rows if len(section.rows) < height else section.rows[: max(0, height - 2)]
    columns = fitted(section.columns, shown, width)
    heads = Row(tuple(column.head for column in section.columns), Tone.HEAD)
    lines = [Line(_line(section.columns, row, columns, width), row.tone) for row in (heads, *shown)]
    more = len(section.rows) - len(shown)
    if more:
        lines.append(Line(set_cell_size(f"… {more:,} more", width).rstrip(), Tone.QUIET))
    return lines


def fitted(columns: Sequence[Column], rows: Sequence[Row], width: int) -> dict[int, int]:
    """Which columns are shown, and how wide.

    Text is cut short before a column is left out, and more of it where that was not enough.
    """
    natural = [
        max(cell_len(text) for text in (column.head, *(row.cells[i] for row in rows)))
        for i, column in enumerate(columns)
    ]
    texts = {i for i, column in enumerate(columns) if not column.is_number}
    shown = list(range(len(columns)))

    def over(most: int) -> int:
        cells = sum(min(natural[i], most) if i in texts else natural[i] for i in shown)
        return cells + len(GAP) * (len(shown) - 1) - width

    for i in sorted(shown, key=lambda i: (-columns[i].rank, -i)):
        if columns[i].rank and over(COMFORT) > 0:
            shown.remove(i)
    most = MOST
    while over(most) > 0 and most > LEAST:
        most -= 1
    return {i: min(natural[i], most) if i in texts else natural[i] for i in shown}


def _line(columns: Sequence[Column], row: Row, widths: dict[int, int], width: int) -> str:
    cells = []
    for i, room in widths.items():
        text = row.cells[i]
        if cell_len(text) > room:
            text = set_cell_size(text, room - 1) + "…"
        blank = " " * (room - cell_len(text))
        cells.append(blank + text if columns[i].is_number else text + blank)
    return set_cell_size(GAP.join(cells).rstrip(), width).rstrip()


def wrapped(line: Line, width: int, between: str = " ") -> list[Line]:
    """The line as several that are no wider, broken where its parts meet."""
    lines = [""]
    for part in line.text.split(between):
        longer = f"{lines[-1]}{between}{part}" if lines[-1] else part
        if cell_len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(part)
    return [Line(set_cell_size(text, width).rstrip(), line.tone) for text in lines]
