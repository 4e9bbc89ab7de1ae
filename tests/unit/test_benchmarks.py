"""The benchmarks: one tiny round on a real server, and the arithmetic of the table."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import __main__ as command
from benchmarks import page, table
from benchmarks.asking import Asking
from benchmarks.chart import Chart
from benchmarks.contenders.program import Heard, body, thinned
from benchmarks.contest import (
    AHEAD,
    BELOW,
    Bout,
    Figures,
    Goal,
    Line,
    Outcome,
    Row,
    Terms,
    at_least,
    at_most,
    hold,
    limit,
    percentile,
)
from benchmarks.contestants import DEEP, FLOOR, TYMPAN
from benchmarks.party import Contender, ContenderAbsent, ContenderFailed
from benchmarks.rows import ROWS
from benchmarks.stage import Stage
from benchmarks.telling import Telling

ABSENT = Contender("nobody", "nobody", server="no such server")


async def test_a_round_of_both_on_a_real_server() -> None:
    async with Stage() as stage:
        tellings = [
            Telling(stage, FLOOR, "subject", listeners=4, processes=2, seconds=0.01),
            Telling(stage, DEEP, "subject", channels=3, listeners=2, seconds=0.01),
        ]
        latencies = await asyncio.gather(*(telling.latency(10, 0) for telling in tellings))
        rates = await asyncio.gather(*(telling.rate(8) for telling in tellings))
        trips = await asyncio.gather(
            *(Asking(stage, who, "subject").round_trip(3) for who in (FLOOR, TYMPAN))
        )

    for figures in [*latencies, *rates, *trips]:
        assert all(value > 0 for value in figures.values()), figures
    for figures in [*latencies, *trips]:
        assert figures["median"] <= figures["p99"]


async def test_a_program_says_what_failed_and_goes_on() -> None:
    async with Stage() as stage:
        source = await stage.party(FLOOR, "source")
        with pytest.raises(ContenderFailed, match=r"floor's source.*'dance' is no operation"):
            await source.ask("dance")
        with pytest.raises(ContenderFailed, match="ZeroDivisionError"):
            await source.ask("many", count=1, size=20, in_flight=1)
        await source.ask("open", subjects=["subject"], per_subject=1)
        assert (await source.ask("many", count=5, size=20, in_flight=2))["seconds"] > 0


async def test_a_program_that_ended_is_told_of() -> None:
    async with Stage() as stage:
        source = await stage.party(
            Contender("broken", "", command=(sys.executable, "-c", "raise SystemExit(3)")), "source"
        )
        with pytest.raises(ContenderFailed, match=r"ended \(status 3\) when asked to open"):
            await source.ask("open")


async def test_what_a_listener_heard_is_counted_from_one_collect_to_the_next() -> None:
    heard = Heard()
    for _ in range(3):
        heard.take(body(30))
    with pytest.raises(TimeoutError, match="3 of 4 deliveries"):
        await heard.collect(4, 0.01)
    answer = await heard.collect(2, 1)
    assert answer["deliveries"] == 2
    assert len(answer["latencies_us"]) == 2
    assert answer["sent_ns"] < answer["first_ns"] <= answer["last_ns"]
    waiting = asyncio.create_task(heard.collect(2, 5))
    await asyncio.sleep(0)
    heard.take(body(30))
    assert (await waiting)["deliveries"] == 2


def test_a_body_begins_with_the_time_and_has_its_size() -> None:
    assert len(body(256)) == 256
    assert body(256)[:20].isdigit()
    assert len(body(3)) == 20


def test_thinning_keeps_the_percentiles() -> None:
    values = [float(value) for value in range(100_000, 0, -1)]
    kept = thinned(values, 1_000)
    assert len(kept) == 1_000
    assert percentile(kept, 0.5) == pytest.approx(50_000, rel=0.01)
    assert percentile(kept, 0.99) == pytest.approx(99_000, rel=0.01)
    assert thinned([3.0, 1.0], 2) == [3.0, 1.0]


def test_percentiles() -> None:
    values = [4.0, 1.0, 3.0, 2.0]
    assert [percentile(values, share) for share in (0, 0.25, 0.5, 0.51, 0.99, 1)] == [
        1, 1, 2, 3, 4, 4,
    ]  # fmt: skip


def _bout(values: list[float], asked: list[str], who: str) -> Bout:
    remaining = iter(values)

    async def bout() -> Figures:
        asked.append(who)
        return {"median": next(remaining)}

    return bout


async def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    asked: list[str] = []
    outcome = await hold(
        {
            "Tympan": _bout([999, 10, 30, 20], asked, "A"),
            "floor": _bout([1, 10, 10, 40], asked, "B"),
        },
        3,
    )
    assert "".join(asked) == "AB" * 4
    line = outcome.line("send", "median", "µs", at_most(1.5), against="floor")
    assert (line.tympan, line.other) == (20, 10)
    assert (line.low, line.ratio, line.high) == (0.5, 1, 3)
    assert line.verdict == "MET"


async def test_who_fails_or_is_absent_is_named_and_counts_as_not_met() -> None:
    turns = 0

    async def broken() -> Figures:
        nonlocal turns
        turns += 1
        if turns > 2:
            raise ContenderFailed("it broke")
        return {"median": 1.0}

    async def absent() -> Figures:
        raise ContenderAbsent("no peer here: benchmarks/peers/prepare")

    async def well() -> Figures:
        return {"median": 5.0}

    outcome = await hold({"Tympan": well, "broken": broken, "absent": absent}, 3)
    assert turns == 3
    for against, note in (
        ("broken", "it broke"),
        ("absent", "no peer here: benchmarks/peers/prepare"),
    ):
        line = outcome.line("send", "median", "µs", BELOW, against=against)
        assert (line.tympan, line.other, line.ratio) == (5, None, None)
        assert table.cells(line)[-1] == f"MISS {note}"
    assert outcome.best(["broken", "absent"], "median") == "broken"


async def test_a_server_that_nothing_starts_is_absent() -> None:
    async with Stage() as stage:
        with pytest.raises(ContenderAbsent, match="no such server"):
            await stage.party(ABSENT, "source")


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (at_most(1.5), 1.5, True),
        (at_most(1.5), 1.51, False),
        (at_least(0.4), 0.4, True),
        (at_least(0.4), 0.39, False),
        (AHEAD, 1.0, False),
        (AHEAD, 1.01, True),
        (BELOW, 1.0, True),
    ],
)
def test_goals(goal: Goal, value: float, met: bool) -> None:
    assert goal.is_met_by(value) is met
    line = Line("what", "µs", goal, 7.0, "floor", 7.0, value)
    assert line.verdict == ("MET" if met else "MISS")


def test_a_limit_bounds_the_figure_itself() -> None:
    assert Line("memory", "KB", limit(5.5, "KB"), 5.4).is_met
    assert not Line("memory", "KB", limit(5.5, "KB"), 5.6).is_met
    assert not Line("memory", "KB", limit(5.5, "KB"), None).is_met


def test_the_table() -> None:
    outcome = Outcome({"Tympan": [{"rate": 1_000.0}], "floor": [{"rate": 2_000.0}]})
    lines = [
        outcome.line("sends", "rate", "/s", at_least(0.4), against="floor"),
        outcome.line("noise", "rate", "/s", None, against="floor"),
        Line("memory", "KB", limit(5.5, "KB"), 4.25),
    ]
    assert table.text(lines).splitlines() == [
        "row      Tympan  against   figure  ratio     rounds  goal",
        "sends   1,000/s  floor    2,000/s   0.50  0.50-0.50  at least 0.4 x  MET",
        "noise   1,000/s  floor    2,000/s   0.50  0.50-0.50",
        "memory  4.25 KB                 -                    at most 5.5 KB  MET",
    ]
    assert table.markdown(lines).count("\n") == len(lines) + 1


def test_quantities() -> None:
    assert table.quantity(None, "µs") == "-"
    assert table.quantity(1234.5, "µs") == "1,234 µs"
    assert table.quantity(12.34, "µs") == "12.3 µs"
    assert table.quantity(0, "keys") == "0.00 keys"


def test_rows_are_named_once_and_the_quick_ones_are_the_first_four() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert [row.quick for row in ROWS[:4]] == [True] * 4
    assert not any(row.quick for row in ROWS[4:])


def test_the_command_runs_rows_and_keeps_what_they_came_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def good(_stage: Stage, terms: Terms) -> list[Line]:
        return [Line(f"{terms.rounds} rounds", "µs", at_most(2), 1.0, "floor", 1.0, 1.0)]

    async def bad(_stage: Stage, _terms: Terms) -> list[Line]:
        raise ValueError("the row is at fault")

    monkeypatch.setattr(command, "ROWS", (Row("good", good), Row("bad", bad)))
    kept = tmp_path / "kept.json"
    with pytest.raises(SystemExit, match="1"):
        command.main(["--rounds", "2", "--json", str(kept)])
    shown = capsys.readouterr().out
    assert "MISS failed: ValueError: the row is at fault" in shown
    assert "1 of 2 goals met" in shown
    lines = json.loads(kept.read_text())["lines"]
    assert [(line["what"], line["verdict"]) for line in lines] == [
        ("2 rounds", "MET"), ("bad", "MISS"),
    ]  # fmt: skip
    with pytest.raises(SystemExit, match="2"):
        command.main(["no-such-row"])


def test_a_chart_shows_each_line_and_names_it() -> None:
    chart = Chart(
        "name", "Title", "across", "upwards", {"A & B": [(1, 10), (1_000, 20)], "C": [(1, 11)]}
    )
    root = ET.fromstring(chart.svg())
    shown = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Title", "across", "upwards", "A & B", "C", "1", "1,000"} <= shown
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 3
    with pytest.raises(ValueError, match="no points"):
        Chart("name", "Title", "across", "upwards").svg()


def test_the_page_keeps_what_stands_around_the_results(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    chart = Chart("curve", "Curve", "across", "upwards", {"A": [(1, 1)]})
    line = Line("memory", "KB", limit(5.5, "KB"), 4.25)
    file.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    for _ in range(2):
        page.write(file, [line], {"python": "3.11"}, [], [chart])
    text = file.read_text()
    assert text.startswith(f"before\n{page.BEGIN}")
    assert text.endswith(f"{page.END}\nafter\n")
    assert "old" not in text
    assert text.count("| memory | 4.25 KB |") == 1
    assert "![Curve](performance/curve.svg)" in text
    assert (tmp_path / "performance" / "curve.svg").exists()
    file.write_text("no marks")
    with pytest.raises(ValueError, match="no place for results"):
        page.write(file, [line], {}, [], [])
