"""Fixtures that all tests share."""

from __future__ import annotations

import gc
import signal
from collections.abc import AsyncIterator, Generator, Iterator

import pytest

from tests.cli.commands import Place, Tympan
from tests.cluster import RedisCluster
from tests.farm import Backend, ClusterBackend, Farm, MemoryBackend, RedisBackend
from tests.servers import RedisServer
from tests.stolen import Machine

BACKENDS = ("memory", "redis")
"""Where most tests run that do not look at one kind of Redis; the conformance suite adds one."""


MACHINE = Machine()
REPLAYS = 3
PATIENCE = 60.0
"""Seconds that a replay waits, at the most, for a machine that has time again."""
TIMER = pytest.StashKey[object]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where the tests run, not where their results are gathered."""
    if hasattr(session.config, "workerinput") or not session.config.getoption("numprocesses", 0):
        MACHINE.watch()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What fails while the machine has no time for it is played again."""
    if config.pluginmanager.hasplugin("rerunfailures") and not config.getoption("usepdb"):
        again = pytest.mark.flaky(reruns=REPLAYS, condition=MACHINE.lacked_time)
        for item in items:
            item.add_marker(again)


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: object) -> None:
    """A test's timer is called off as it fails: its replay needs another one."""
    item.stash[TIMER] = settings


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Each time that a test is played."""
    if getattr(item, "execution_count", 1) > 1:
        MACHINE.wait(PATIENCE)
        if TIMER in item.stash:
            item.ihook.pytest_timeout_set_timer(item=item, settings=item.stash[TIMER])
    MACHINE.begin()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A report parses source, and so does the one of whatever the collector of garbage ends.

    One within the other breaks both before Python 3.11.8 (gh-106905).
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_configure() -> None:
    """What all tests run with."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script's background job ignores it,
        signal.signal(signal.SIGINT, signal.default_int_handler)  # and all that it starts would
    # How long an example of a property takes says something of the machine only.
    from hypothesis import HealthCheck, settings  # not before pytest has rewritten it

    slow = [HealthCheck.too_slow]
    settings.register_profile("tests", max_examples=50, deadline=None, suppress_health_check=slow)
    settings.load_profile("tests")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real redis-server for the session; each test has its own namespace on it."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """One real Redis Cluster of three masters for the session; none of them is ever given up."""
    with RedisCluster(node_timeout=60.0) as cluster:
        yield cluster


@pytest.fixture
async def tympan(redis_server: RedisServer) -> AsyncIterator[Tympan]:
    """The command, on the tests' redis-server."""
    async with Tympan(redis_server.url) as made:
        yield made


@pytest.fixture
def place() -> Place:
    """A print server of this test's own."""
    return Place()


def backend_named(name: str, request: pytest.FixtureRequest) -> Backend:
    """A backend. Real servers are started only where they are used."""
    match name:
        case "memory":
            return MemoryBackend()
        case "redis":
            return RedisBackend(request.getfixturevalue("redis_server"))
        case _:
            return ClusterBackend(request.getfixturevalue("redis_cluster"))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend in turn."""
    return backend_named(request.param, request)


@pytest.fixture
async def farm(backend: Backend) -> AsyncIterator[Farm]:
    """A farm on each backend; at its end nothing may be left behind."""
    async with Farm(backend) as made:
        yield made


@pytest.fixture
async def real_farm(redis_server: RedisServer) -> AsyncIterator[Farm]:
    """A farm on the real server only, for what the double cannot show."""
    async with Farm(RedisBackend(redis_server)) as made:
        yield made
