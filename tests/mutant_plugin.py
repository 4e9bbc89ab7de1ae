"""A pytest plugin that runs tests on other Lua files; :mod:`tests.mutants` hands it to pytest.

It reads one environment variable: a JSON object with

- ``lua``: the folder to take the scripts from; empty for the project's own;
- ``tests``: ids of the tests to run, in this order; null for all that can tell mutants apart;
- ``limit``: seconds after which no further test is begun;
- ``report``: the file to write the report to.

The report says for each test that ran whether it passed, how long it took, and which scripts it
called in this process.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from broker import _scripts
from broker._scripts import Call, Script

VARIABLE = "TYMPAN_MUTANT"
STATIC = "tests/scripts/test_headers.py", "tests/scripts/test_keys.py"
"""Tests that read the Lua files instead of running them: to them every mutant looks like a typo."""


@dataclass
class Ran:
    """One test that ran."""

    passed: bool = True
    seconds: float = 0.0
    scripts: list[str] = field(default_factory=list)


_order: dict[str, Any] = {}
_ran: dict[str, Ran] = {}
_called: set[str] = set()
_begun = time.monotonic()
_call = Script.call


def _recorded(self: Script, *args: Any, **named: Any) -> Call:
    _called.add(self.name)
    return _call(self, *args, **named)


def pytest_configure() -> None:
    """Put the other Lua files in the place of the project's own, before any is read."""
    _order.update(json.loads(os.environ[VARIABLE]))
    if _order["lua"]:
        _scripts.lua_folder = lambda: Path(_order["lua"])  # type: ignore[assignment]
    Script.call = _recorded  # type: ignore[method-assign]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that were asked for, in their order."""
    by_id = {item.nodeid: item for item in items if _tells_apart(item)}
    wanted = _order["tests"] if _order["tests"] is not None else list(by_id)
    chosen = [by_id[name] for name in wanted]
    left = set(map(id, items)) - set(map(id, chosen))
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left])
    items[:] = chosen


def _tells_apart(item: pytest.Item) -> bool:
    """One backend will do, and it is the real server."""
    parameters = getattr(item, "callspec", None)
    backend = "redis" if parameters is None else parameters.params.get("backend", "redis")
    return backend == "redis" and not item.nodeid.startswith(STATIC)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Time each test and note what it called."""
    _called.clear()
    ran = _ran[item.nodeid] = Ran()
    start = time.monotonic()
    try:
        return (yield)
    finally:
        ran.seconds = time.monotonic() - start
        ran.scripts = sorted(_called)
        if time.monotonic() - _begun > _order["limit"]:
            item.session.shouldstop = "the time is up"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what failed."""
    if report.failed:
        _ran[report.nodeid].passed = False


def pytest_sessionfinish() -> None:
    """Write the report."""
    text = json.dumps({name: asdict(ran) for name, ran in _ran.items()})
    Path(_order["report"]).write_text(text, encoding="utf-8")
