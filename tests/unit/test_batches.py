"""What is done for very many things is done for some of them at a time."""

from __future__ import annotations

import pytest

from broker._batches import AT_ONCE, batches


@pytest.mark.parametrize(
    ("many", "sizes"),
    [
        (0, []),
        (1, [1]),
        (AT_ONCE, [AT_ONCE]),
        (AT_ONCE + 1, [AT_ONCE, 1]),
        (2 * AT_ONCE, [AT_ONCE, AT_ONCE]),
    ],
)
def test_nothing_is_left_out_and_no_batch_is_empty(many: int, sizes: list[int]) -> None:
    found = list(batches(range(many)))
    assert [len(some) for some in found] == sizes
    assert [one for some in found for one in some] == list(range(many))


def test_a_lazy_source_is_read_as_it_is_needed() -> None:
    things = iter(range(10 * AT_ONCE))
    assert next(batches(things)) == list(range(AT_ONCE))
    assert next(things) == AT_ONCE
