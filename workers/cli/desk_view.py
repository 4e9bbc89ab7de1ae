"""The view of a desk: from what stands on it to lines of a width and height. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, set_cell_size

from workers.alert import Severity
from workers.cli.output import clock, counted, on_one_line, span
from workers.cli.view import Column, Line, Row, Section, Tone, shares, table, wrapped
from workers.desk.desk import Answered, Desk, Entry, Place, State
from workers.desk.hand import Hand, Mode
from workers.desk.question import Asked

SOON = 300.0
"""Seconds before the end of a question that make it urgent."""
TONES = {
    Severity.REPORT: Tone.QUIET,
    Severity.WARNING: Tone.WARNING,
    Severity.ERROR: Tone.ALARM,
}
SECTION_LEAST = 4
"""A blank line, a head, a row, and how many more there are."""
MOST_KEYS = 2
"""Lines that say what keys do."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is said beside what stands on the desk."""

    who: str
    """Who listens where."""
    troubles: tuple[str, ...] = ()
    """What is not heard, and why."""
    remark: str = ""


def desk_lines(
    desk: Desk, hand: Hand, around: Surroundings, now: float, width: int, height: int
) -> list[Line]:
    """The screen: a head, questions, what is the matter, what was answered, and the keys."""
    above = _head(desk, around, now, width)
    below = _foot(desk, hand, around, width)
    entry = desk.entry
    room = height - len(above) - len(below)
    if hand.mode is not Mode.LIST and entry is not None:
        one = _one(entry, hand, now, width)
        above += one[: max(0, room)]
        room -= len(one)
    sections = [
        section
        for section in (_questions(desk, now), _places(desk.places, now), _lately(desk.lately))
        if section.rows
    ]
    for section, share in _fitting(sections, room):
        above += [Line(""), *table(_around_the_chosen(section, share), width, share - 1)]
    blank = [Line("")] * (height - len(above) - len(below))
    return [*above[: max(0, height - len(below))], *blank, *below][:height]


def _fitting(sections: list[Section], room: int) -> list[tuple[Section, int]]:
    """The first sections that have room for a row at the least, and how many lines they get."""
    for count in range(len(sections), 0, -1):
        wishes = [2 + len(section.rows) for section in sections[:count]]
        heights = shares(wishes, max(0, room))
        if all(
            share >= min(SECTION_LEAST, wish) for share, wish in zip(heights, wishes, strict=True)
        ):
            return list(zip(sections, heights, strict=False))
    return []


def _head(desk: Desk, around: Surroundings, now: float, width: int) -> list[Line]:
    lines = wrapped(Line(f"tympan desk   {clock(now)}   {around.who}", Tone.QUIET), width, "   ")
    for trouble in around.troubles:
        lines += wrapped(Line(on_one_line(trouble), Tone.ALARM), width)
    totals = (counted(desk.open, "open question"), f"{len(desk.places):,} with alerts")
    return lines + wrapped(Line(" · ".join(totals)), width, " · ")


def _foot(desk: Desk, hand: Hand, around: Surroundings, width: int) -> list[Line]:
    """What was said last, what is typed, and the keys."""
    lines = []
    remark = hand.remark or around.remark
    if remark and remark not in around.troubles:
        lines.append(Line(set_cell_size(on_one_line(remark), width).rstrip(), Tone.WARNING))
    if hand.mode in (Mode.NOTE, Mode.TEXT):
        what = "note" if hand.mode is Mode.NOTE else "answer"
        lines.append(Line(_end_of(f"{what}: {hand.typed}_", width)))
        return [*lines, *wrapped(Line("Enter takes it · Esc leaves it", Tone.QUIET), width, " · ")]
    said = wrapped(Line(" · ".join(_keys(desk, hand)), Tone.QUIET), width, " · ")
    return lines + said[:MOST_KEYS]


def _keys(desk: Desk, hand: Hand) -> list[str]:
    entry, keys = desk.entry, []
    if desk.open and entry is None:
        keys = ["↑↓ 1-9 choose a question"]
    elif entry is not None and entry.state is State.OVER and desk.open:
        keys = ["this one is over: ↑↓ or its number chooses another"]
    elif entry is not None and entry.state is State.OPEN:
        keys = choice_words(entry.asked, with_numbers=hand.mode is Mode.ONE)
        if entry.asked.takes_note:
            keys.append(f"n note{': ' + on_one_line(hand.note) if hand.note else ''}")
    keys += ["Esc back", "q ends"] if hand.mode is Mode.ONE else ["q ends"]
    if entry is not None and hand.mode is Mode.LIST:
        keys.append("Enter shows all of it")
    if len(desk.questions) > 1:
        keys.append("↑↓ 1-9 choose" if hand.mode is Mode.LIST else "↑↓ choose")
    if desk.places:
        keys.append("d puts news away")
    return keys


def choice_words(asked: Asked, *, with_numbers: bool) -> list[str]:
    """What may be pressed for an answer, and what it says."""
    if asked.takes_text:
        return ["a answers"]
    if not with_numbers:
        return [f"{choice.key} {choice.label}" for choice in asked.choices if choice.key]
    return [
        f"{number}{choice.key and f' or {choice.key}'} {choice.label}"
        for number, choice in enumerate(asked.choices, 1)
    ]


def _questions(desk: Desk, now: float) -> Section:
    rows = []
    for entry in desk.questions:
        asked = entry.asked
        left = "" if asked.until is None else span(max(0.0, asked.until - now))
        text = asked.text
        if entry.words:
            text = f"{entry.words} “{asked.text}”"
        elif entry.is_ours or asked.again:
            text = f"{'yours: ' if entry.is_ours else 'asked again: '}{asked.text}"
        cells = (
            f"{'>' if entry.id == desk.chosen else ''}{entry.number}",
            str(asked.name),
            asked.owner or "all users",
            text,
            "" if entry.state is State.OVER else left,
            span(max(0.0, now - asked.at)),
        )
        rows.append(Row(cells, _tone(entry, desk.chosen, now)))
    columns = (
        Column("#", is_number=True),
        Column("QUESTION ON"),
        Column("FOR", 2),
        Column("ASKS"),
        Column("LEFT", 1, is_number=True),
        Column("AGE", 3, is_number=True),
    )
    return Section(columns, tuple(rows))


def _tone(entry: Entry, chosen: str | None, now: float) -> Tone:
    if entry.id == chosen:
        return Tone.CHOSEN
    if entry.state is State.OVER:
        return Tone.QUIET
    until = entry.asked.until
    return Tone.ALARM if until is not None and until - now < SOON else Tone.WARNING


def _around_the_chosen(section: Section, share: int) -> Section:
    """The section from such a row on that the chosen one is seen."""
    room = share - SECTION_LEAST + 1
    chosen = next((i for i, row in enumerate(section.rows) if row.tone is Tone.CHOSEN), 0)
    if len(section.rows) + 2 <= share or chosen < room:
        return section
    return replace(section, rows=section.rows[chosen - room + 1 :])


def _places(places: Sequence[Place], now: float) -> Section:
    rows = tuple(
        Row(
            (
                str(place.name),
                place.what,
                span(max(0.0, now - place.since)),
                f"{place.times:,}",
            ),
            TONES[place.severity],
        )
        for place in places
    )
    columns = (
        Column("ALERTS OF"),
        Column("WHAT"),
        Column("SINCE", 1, is_number=True),
        Column("TIMES", 2, is_number=True),
    )
    return Section(columns, rows)


def _lately(answered: Sequence[Answered]) -> Section:
    rows = tuple(
        Row((clock(one.at), str(one.name), one.words, one.text), Tone.QUIET) for one in answered
    )
    columns = (Column("LATELY"), Column("ON", 2), Column("WHAT CAME OF IT"), Column("ASKED", 1))
    return Section(columns, rows)


def _one(entry: Entry, hand: Hand, now: float, width: int) -> list[Line]:
    """All of one question."""
    asked = entry.asked
    lines = [
        Line(""),
        Line(set_cell_size(f"question {entry.number} on {asked.name}", width).rstrip(), Tone.HEAD),
        *wrapped(Line(asked.text), width),
    ]
    for line in asked.lines:
        lines += wrapped(Line(line, Tone.QUIET), width)
    whom = f"for {asked.owner or 'all users'}, asked {span(max(0.0, now - asked.at))} ago"
    if asked.until is not None:
        left = span(max(0.0, asked.until - now))
        whom += f", {left} left, then: {asked.otherwise}"
    lines += wrapped(Line(f"{whom} ({asked.kind})", Tone.QUIET), width)
    if entry.words:
        lines += wrapped(Line(on_one_line(entry.words), Tone.WARNING), width)
    elif hand.note:
        lines += wrapped(Line(f"note: {on_one_line(hand.note)}"), width)
    return lines


def _end_of(text: str, width: int) -> str:
    """As much of the end of what is typed as is seen."""
    while cell_len(text) > width:
        text = text[1:]
    return text
