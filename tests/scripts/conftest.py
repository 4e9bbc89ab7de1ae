"""A bench for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.farm import Farm
from tests.scripts.bench import Bench


@pytest.fixture
async def bench(real_farm: Farm) -> AsyncIterator[Bench]:
    """Two processes and a third, on a real Redis."""
    made = await Bench.set_up(real_farm)
    yield made
    await real_farm.clear()  # nothing here has an owner that would end it
