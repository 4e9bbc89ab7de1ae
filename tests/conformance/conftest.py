"""Every conformance test says which rules it shows."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    silent = [
        item.nodeid
        for item in items
        if item.path.is_relative_to(here) and item.get_closest_marker("rule") is None
    ]
    if silent:
        raise pytest.UsageError(f"without a rule: {', '.join(silent)}")
