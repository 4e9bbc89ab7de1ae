"""Which event loop a service runs on."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import uvloop

from workers.extras import ExtraMissing
from workers.loop import Loop, factory


def test_uvloop_is_taken_where_it_is_installed() -> None:
    assert factory(Loop.AUTO) is factory(Loop.UVLOOP) is uvloop.new_event_loop


def test_python_has_a_loop_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert factory(Loop.ASYNCIO) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert factory(Loop.AUTO) is None


def test_who_asks_for_what_is_not_installed_is_told_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'tympan\[uvloop\]'"):
        factory(Loop.UVLOOP)
