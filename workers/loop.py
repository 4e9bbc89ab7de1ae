"""Event loops: which one a service runs on."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from enum import StrEnum

from workers.extras import needed


class Loop(StrEnum):
    """What people choose from."""

    AUTO = "auto"
    """uvloop where it is installed."""
    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


def factory(choice: Loop) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; None for Python's own. Raises ExtraMissing where uvloop is."""
    if choice is Loop.AUTO:
        choice = Loop.UVLOOP if importlib.util.find_spec("uvloop") else Loop.ASYNCIO
    if choice is Loop.ASYNCIO:
        return None
    with needed("uvloop", "--loop uvloop"):
        import uvloop
    return uvloop.new_event_loop
