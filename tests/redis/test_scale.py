"""Replicas share and are rolled: the parts of ``python -m tests.scale``, shorter.

Real worker processes on a real Redis, with a lease of one second. Replicas are killed in
``test_faults.py``.
"""

from __future__ import annotations

import asyncio

from tests import scale
from tests.farm import SERVER
from tests.servers import RedisServer


def test_replicas_share_and_each_notification_is_handled_once() -> None:
    with RedisServer() as server:
        row = asyncio.run(scale.throughput(server.url, 2, 600, [SERVER], {}))
    assert (row["twice"], row["missing"], row["bad"]) == (0, 0, [])


def test_rolling_restarts_handle_nothing_twice() -> None:
    assert asyncio.run(scale.rolls(800, 2, 3)) == []


def test_orphans_are_claimed_soon_beside_what_the_living_hold() -> None:
    assert asyncio.run(scale.orphans(2000, 50, lease=1.0)) == []
