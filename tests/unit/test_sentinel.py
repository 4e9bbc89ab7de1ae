"""What Sentinels say, and when it is enough."""

from __future__ import annotations

import pytest

from broker._sentinel import Opinion, settled
from broker.errors import RedisError, RedisUnreachable

ONE, TWO = ("one", 6379), ("two", 6379)
SILENT = RedisUnreachable("silent")


def says(node: tuple[str, int] | None, epoch: int = 1) -> Opinion:
    return Opinion(node, epoch)


@pytest.mark.parametrize(
    ("opinions", "majority", "primary"),
    [
        pytest.param([], 2, None, id="nobody yet"),
        pytest.param([says(ONE)], 2, None, id="one of three"),
        pytest.param([says(ONE), says(ONE)], 2, ONE, id="two of three"),
        pytest.param([says(ONE), says(ONE)], 3, None, id="two of five"),
        pytest.param([says(ONE)], 1, ONE, id="the only one"),
        pytest.param([says(ONE), says(TWO)], 2, None, id="one each"),
        pytest.param([says(ONE), says(TWO, 2), says(TWO, 2)], 2, TWO, id="one is behind"),
        pytest.param([says(TWO, 2), says(ONE), says(ONE)], 2, ONE, id="most are behind"),
        pytest.param([says(ONE, 1), says(ONE, 2)], 2, None, id="the same, newer and older"),
        pytest.param([says(None, 0), says(None, 0)], 2, None, id="most do not know the name"),
        pytest.param([says(None, 0), says(ONE), says(ONE)], 2, ONE, id="one does not know it"),
        pytest.param([SILENT, SILENT], 2, None, id="all silent"),
        pytest.param([SILENT, says(ONE), says(ONE)], 2, ONE, id="one silent"),
        pytest.param([SILENT, SILENT, says(ONE)], 2, None, id="most silent"),
    ],
)
def test_a_primary_is_settled_when_most_name_it_with_one_configuration(
    opinions: list[Opinion | RedisError], majority: int, primary: tuple[str, int] | None
) -> None:
    assert settled(opinions, majority) == primary
