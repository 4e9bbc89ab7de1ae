"""The figures of scale: a little of each table, on a real server."""

from __future__ import annotations

import pytest

from benchmarks import scale


def cells(table: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]


async def test_a_send_costs_redis_something_whatever_stands_there() -> None:
    rows = cells(await scale.sends([2]))
    assert [row[0].split()[0] for row in rows] == ["2", "2", "2"]
    assert all(float(row[1]) > 0 for row in rows)


async def test_a_delivery_costs_the_listener_something() -> None:
    ((what, *figures),) = cells(await scale.deliveries([2]))
    assert what == "2 registrations in one process"
    assert all(float(figure) > 0 for figure in figures)


async def test_idle_things_hold_memory_and_processes_keep_asking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scale, "PROCESSES", (2,))
    rows = {row[0].partition(" ")[2]: row[1:] for row in cells(await scale.idle(0.2, [1, 20]))}
    assert rows.keys() == {*scale.IDLE, "processes with a registration"}
    assert all(int(row[0].replace(",", "")) > 0 for row in rows.values())
