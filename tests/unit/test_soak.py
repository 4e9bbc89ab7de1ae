"""The judge of the soak, tried on figures that grow and on some that do not."""

from __future__ import annotations

import random

import pytest

from tests import soak
from tests.faults import page
from tests.soak import Census, Record, Series

CALM: Census = {"channel": (200, 1600), "leases": (1, 7), "to": (6, 0), "body": (2, 40_000)}


def series(values: list[float], within: float = soak.WITHIN) -> Series:
    return Series("memory", "MB", within, values)


def test_noise_around_a_level_is_flat() -> None:
    chance = random.Random(1)
    noisy = series([50 * chance.uniform(0.9, 1.1) for _ in range(30)])
    assert noisy.is_flat
    assert abs(noisy.growth) < 0.03
    assert abs(noisy.slope) < 0.05


def test_one_outlier_is_no_growth() -> None:
    assert series([50.0] * 29 + [90.0]).is_flat


def test_what_grows_slowly_is_told_by_how_much() -> None:
    growing = series([50.0 + 0.2 * i for i in range(30)])
    assert not growing.is_flat
    assert growing.growth == pytest.approx(0.078, abs=0.001)
    assert growing.slope == pytest.approx(0.114, abs=0.001)
    assert growing.row[-1] == "GREW"


def test_of_what_is_counted_not_one_more_is_flat() -> None:
    assert series([9.0] * 9, within=0.0).is_flat
    assert series([9.0] * 6 + [8.0] * 3, within=0.0).is_flat
    assert not series([9.0] * 6 + [10.0] * 3, within=0.0).is_flat
    assert series([8.0, 9.0, 8.0, 9.0, 8.0, 9.0, 9.0, 9.0, 9.0], within=0.0).is_flat
    assert not series([0.0] * 6 + [1.0] * 3, within=0.0).is_flat


def test_keys_are_counted_by_kind() -> None:
    kinds = {
        "soak:servers": "servers",
        "soak:{print01}:channels": "channels",
        "soak:{print01}:channel:77aa": "channel",
        "soak:{print01}:channel:77aa:log": "channel log",
        "soak:{print01}:stream:laser-3|x|uni|=alice": "stream",
    }
    assert {key: soak.kind_of(key) for key in kinds} == kinds


def test_kinds_of_which_there_may_be_fewer_are_left_out() -> None:
    assert soak.keys(CALM) == {"channel": 200, "leases": 1}
    assert soak.of_nobody(CALM) == []
    assert soak.of_nobody(CALM | {"to": (8, 0)}) == ["to"]


def test_what_grew_is_a_violation() -> None:
    record = Record()
    for i in range(9):
        record.add("source: tasks", 16 + i)
        record.add("source: file descriptors", 9)
    assert record.violations == ["source: tasks grew by 33.3%"]
    assert [line.split()[-1] for line in record.table().splitlines()[1:]] == ["GREW", "flat"]


def test_the_page_of_this_house_has_a_place_for_it() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text.index(soak.MARKS[0]) < text.index(soak.MARKS[1])


def test_the_table_of_the_page_has_all_rows() -> None:
    record = Record()
    record.add("Redis: keys", 520)
    shown = soak.markdown(record.rows).splitlines()
    assert shown[1] == "| --- | --- | ---: | ---: | ---: | ---: | --- |"
    assert shown[2] == "| Redis: keys |  | 520 | 520 | +0.0% | +0.0% | flat |"
