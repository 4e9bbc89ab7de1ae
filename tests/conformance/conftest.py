"""Every conformance test says which rules it shows, and runs on every backend that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import BACKENDS, backend_named
from tests.farm import Backend

ALL_BACKENDS = (*BACKENDS, "cluster")


@pytest.fixture(params=ALL_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend in turn."""
    return backend_named(request.param, request)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    silent = [
        item.nodeid
        for item in items
        if item.path.is_relative_to(here) and item.get_closest_marker("rule") is None
    ]
    if silent:
        raise pytest.UsageError(f"without a rule: {', '.join(silent)}")
