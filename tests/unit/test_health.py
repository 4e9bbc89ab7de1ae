"""The health port: what it answers when, also while the worker's loop is stuck or Redis is down."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPResponse
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from broker import ALL_USERS, UNIDIRECTIONAL, Broker, Name, Right
from broker.errors import InvalidArgument, TympanError
from broker.pool import PoolFacts
from tests.farm import PATIENCE, PRINTER
from tests.redis.scenes import until
from tests.servers import RedisServer
from workers.backlog import Backlog, backlog_record
from workers.extras import ExtraMissing
from workers.health import (
    MISSED_POLLS,
    Address,
    HealthPort,
    InvalidAddress,
    Liveness,
    PortUnusable,
    State,
)
from workers.telemetry import Telemetry

ANY = "127.0.0.1:0"


class Clock:
    """Seconds that go by when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Answer(NamedTuple):
    status: int
    text: str
    content_type: str


def ask(port: HealthPort, path: str, accept: str = "") -> Answer:
    """One request, from whatever thread this runs in."""
    connection = http.client.HTTPConnection(port.address.host, port.address.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Accept": accept} if accept else {})
        answer: HTTPResponse = connection.getresponse()
        assert answer.status == 404 or answer.headers["Cache-Control"] == "no-store"
        body = answer.read().decode()
        return Answer(answer.status, body, answer.headers["Content-Type"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def liveness(clock: Clock) -> Liveness:
    return Liveness(1.0, clock=clock)


# Where it listens -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("localhost:0", "localhost", 0),
        ("[::1]:8080", "::1", 8080),
        ("[0:0:0:0:0:0:0:1]:65535", "::1", 65_535),
        ("[::]:1", "::", 1),
        ("print-worker.farm.example:80", "print-worker.farm.example", 80),
    ],
)
def test_an_address_is_host_and_port(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "127.0.0.1:8080"),
        ("8080", "127.0.0.1:8080"),
        ("localhost", "127.0.0.1:8080"),
        (":8080", "0.0.0.0:8080"),
        ("localhost:", "no port"),
        ("localhost:http", "no port"),
        ("localhost:65536", "0 to 65535"),
        ("localhost:-1", "no port"),
        ("localhost:٨", "no port"),
        ("::1:8080", "brackets"),
        ("[::1]", "no port"),
        ("[::1", "brackets"),
        ("[::g]:80", "no IPv6 address"),
        ("[127.0.0.1]:80", "no IPv6 address"),
        ("http://localhost:80", "brackets"),
        ("//localhost:80", "no host"),
        ("local host:80", "no host"),
        ("local\x00host:80", "no host"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(InvalidAddress, match=says) as raised:
        Address.parse(text)
    assert isinstance(raised.value, InvalidArgument), "the command line says that it is wrong usage"
    assert repr(text) in str(raised.value)


def test_port_0_is_any_and_the_real_one_can_be_read(liveness: Liveness) -> None:
    port = HealthPort(ANY, liveness)
    assert port.address.port == 0
    with port:
        assert port.address.port > 0
        assert port.url == f"http://127.0.0.1:{port.address.port}"
        assert ask(port, "/livez").status == 200


def test_a_name_is_served_at_all_its_addresses_on_one_port(
    liveness: Liveness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name may stand for IPv4 and IPv6, and a client takes either."""
    both = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    port = HealthPort("both.example:0", liveness).start()
    monkeypatch.undo()
    number = port.address.port
    for host in ("127.0.0.1", "127.0.0.2"):
        connection = http.client.HTTPConnection(host, number, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", "/livez")
            assert connection.getresponse().status == 200
    port.close()


def test_ipv6_is_served(liveness: Liveness) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:  # a host without IPv6 says so, and this is all that can be shown there
        with pytest.raises(PortUnusable, match=r"\[::1\]:0"):
            HealthPort("[::1]:0", liveness).start()
        return
    with HealthPort("[::1]:0", liveness) as port:
        assert port.url.startswith("http://[::1]:")
        assert ask(port, "/livez").status == 200


def test_a_port_in_use_is_a_clear_error_and_leaves_no_thread(liveness: Liveness) -> None:
    threads = threading.active_count()
    with HealthPort(ANY, liveness) as first:
        second = HealthPort(first.address, liveness)
        with pytest.raises(PortUnusable, match="address already in use; choose another") as raised:
            second.start()
        assert isinstance(raised.value, TympanError)
        assert str(first.address) in str(raised.value)
        second.close()
    assert threading.active_count() == threads


def test_a_host_that_is_not_known_is_a_clear_error(
    liveness: Liveness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(PortUnusable, match="the host is not known"):
        HealthPort("nowhere.example:80", liveness).start()


def test_an_address_of_another_host_is_a_clear_error(liveness: Liveness) -> None:
    with pytest.raises(PortUnusable, match="cannot assign requested address"):
        HealthPort("192.0.2.1:0", liveness).start()


def test_it_can_be_closed_twice_and_its_port_is_free_again(liveness: Liveness) -> None:
    port = HealthPort(ANY, liveness).start()
    address = port.address
    ask(port, "/livez")
    port.close()
    port.close()
    with pytest.raises(ConnectionRefusedError):
        ask(port, "/livez")
    with HealthPort(address, liveness) as again:
        assert ask(again, "/livez").status == 200


def test_without_the_extra_it_says_which_one(
    liveness: Liveness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "aiohttp"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExtraMissing, match=r"the health port .*'tympan\[worker\]'"):
        HealthPort(ANY, liveness).start()


# Alive, started, ready --------------------------------------------------------------------------


def test_liveness_is_the_age_of_the_last_poll(liveness: Liveness, clock: Clock) -> None:
    with HealthPort(ANY, liveness) as port:
        assert ask(port, "/livez").status == 200
        clock.now += 3.0
        assert ask(port, "/livez").status == 200, "three poll intervals are allowed"
        clock.now += 0.1
        answer = ask(port, "/livez")
        assert answer.status == 503
        assert "finished no poll for 3.1 s" in answer.text
        assert answer.content_type.startswith("text/plain")
        liveness.beat()
        assert ask(port, "/livez") == Answer(
            200, "alive: the last poll finished 0.0 s ago\n", answer.content_type
        )


def test_liveness_asks_no_one_else(liveness: Liveness) -> None:
    """Neither the state nor what is in its way: a restart would mend nothing of that."""
    with HealthPort(ANY, liveness, obstacles=lambda: ["Redis does not answer"]) as port:
        for state in State:
            liveness.state = state
            assert ask(port, "/livez").status == 200


def test_it_is_started_once_everything_is_joined(liveness: Liveness) -> None:
    with HealthPort(ANY, liveness) as port:
        answer = ask(port, "/startupz")
        assert (answer.status, answer.text) == (503, "starting: not everything is joined yet\n")
        for state in (State.READY, State.DRAINING):
            liveness.state = state
            assert ask(port, "/startupz").status == 200


def test_it_is_ready_when_nothing_is_in_the_way(liveness: Liveness, clock: Clock) -> None:
    obstacles: list[str] = []
    with HealthPort(ANY, liveness, obstacles=lambda: obstacles) as port:

        def is_ready() -> tuple[bool, list[str]]:
            answer = ask(port, "/readyz")
            return answer.status == 200, answer.text.splitlines()

        assert is_ready() == (False, [State.STARTING.value])
        liveness.state = State.READY
        assert is_ready() == (True, ["ready"])
        obstacles += ["print02 is not joined", "Redis does not answer"]
        assert is_ready() == (False, obstacles), "each reason is named"
        obstacles.append("print02 is not joined")
        assert is_ready() == (False, obstacles[:2]), "each once"
        clock.now += 10
        ready, (reason,) = is_ready()
        assert not ready
        assert "finished no poll" in reason, "what a stuck loop knows is out of date"
        obstacles.clear()
        liveness.beat()
        assert is_ready() == (True, ["ready"])
        liveness.state = State.DRAINING
        assert is_ready() == (False, [State.DRAINING.value])


def test_obstacles_that_cannot_be_told_are_no_readiness(
    liveness: Liveness, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Sequence[str]:
        raise ZeroDivisionError

    liveness.state = State.READY
    with caplog.at_level(logging.CRITICAL), HealthPort(ANY, liveness, obstacles=fail) as port:
        connection = http.client.HTTPConnection(*_place(port), timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", "/readyz")
            assert connection.getresponse().status == 500
        assert ask(port, "/livez").status == 200, "it goes on"


def _place(port: HealthPort) -> tuple[str, int]:
    return port.address.host, port.address.port


# A loop that is stuck, a Redis that is down -----------------------------------------------------


class Prober(threading.Thread):
    """Asks for a path again and again until it is answered as wished, from a thread."""

    def __init__(self, port: HealthPort, path: str, status: int) -> None:
        super().__init__()
        self.port, self.path, self.status = port, path, status
        self.answers: list[Answer] = []
        self.asked: list[float] = []
        """When each was asked for."""
        self.found = threading.Event()

    def run(self) -> None:
        due = time.monotonic() + PATIENCE
        while time.monotonic() < due and not self.found.is_set():
            self.asked.append(time.monotonic())
            self.answers.append(ask(self.port, self.path))
            if self.answers[-1].status == self.status:
                self.found.set()


@contextlib.contextmanager
def probing(port: HealthPort, path: str, status: int) -> Iterator[Prober]:
    prober = Prober(port, path, status)
    prober.start()
    try:
        yield prober
    finally:
        prober.join()


async def test_liveness_turns_bad_within_three_polls_when_the_loop_is_stuck() -> None:
    interval = 0.25
    liveness = Liveness(interval)
    liveness.state = State.READY
    keeping = asyncio.create_task(liveness.keep())
    port = HealthPort(ANY, liveness, metrics=Telemetry()).start()
    assert (await asyncio.to_thread(ask, port, "/livez")).status == 200

    stuck = time.monotonic()
    with probing(port, "/livez", 503) as prober:
        # A call that blocks the loop's own thread: nothing else runs in the loop.
        assert prober.found.wait(PATIENCE), "it never turned bad"
        assert ask(port, "/metrics").status == 200, "the port itself answers on"
        assert ask(port, "/readyz").status == 503
    assert prober.answers[0].status == 200, "it was good when the loop stuck"
    assert "finished no poll for" in prober.answers[-1].text
    late = [
        answer.status
        for at, answer in zip(prober.asked, prober.answers, strict=True)
        if at > stuck + 3 * interval
    ]
    assert 200 not in late, "whoever asked after three polls was told"

    async def is_alive_again() -> bool:
        return (await asyncio.to_thread(ask, port, "/livez")).status == 200

    await until(is_alive_again)
    keeping.cancel()
    port.close()


class Counted(Liveness):
    """Knows how often it beat."""

    beats = 0

    def beat(self) -> None:
        super().beat()
        self.beats += 1


async def test_liveness_stays_good_while_redis_is_down() -> None:
    liveness = Counted(0.3)
    options: dict[str, Any] = {"lease": 0.5, "resync": 0.1, "operation_timeout": 0.5}
    with RedisServer() as redis:
        async with Broker.connect(redis.url, user="alice", **options) as broker:
            server = await broker.server(PRINTER)
            loop = asyncio.get_running_loop()

            def obstacles() -> list[str]:
                silent = loop.time() - server.answered
                return [f"Redis did not answer for {silent:.1f} s"] if silent > 0.5 else []

            async def status(path: str) -> int:
                return (await asyncio.to_thread(ask, port, path)).status

            async def is_unready() -> bool:
                return await status("/readyz") == 503

            keeping = asyncio.create_task(liveness.keep())
            liveness.state = State.READY
            with HealthPort(ANY, liveness, obstacles=obstacles) as port:
                assert await status("/readyz") == 200
                await asyncio.to_thread(redis.kill)
                await until(is_unready)
                seen = liveness.beats

                async def is_alive_for_long() -> bool:
                    assert await status("/livez") == 200
                    return liveness.beats >= seen + 2 * MISSED_POLLS

                await until(is_alive_for_long)
                assert await status("/readyz") == 503, "Redis is still down"
                assert await status("/startupz") == 200
            keeping.cancel()


# Metrics and backlog ----------------------------------------------------------------------------


def test_metrics_are_given_as_prometheus_asks_for_them(liveness: Liveness) -> None:
    telemetry = Telemetry()
    telemetry.sent(UNIDIRECTIONAL, "OK")
    with HealthPort(ANY, liveness, metrics=telemetry) as port:
        plain = ask(port, "/metrics")
        assert plain.status == 200
        assert plain.content_type.startswith("text/plain; version=")
        assert 'tympan_sends_total{outcome="ok",style="uni"} 1.0' in plain.text
        open_metrics = ask(port, "/metrics", "application/openmetrics-text; version=1.0.0")
        assert open_metrics.content_type.startswith("application/openmetrics-text")
        assert open_metrics.text.endswith("# EOF\n")


def facts(
    pool: str, server: str, waiting: int, in_hand: int, *replicas: str, denied: int = 0
) -> PoolFacts:
    """A pool's registration on a server, and its backlog."""
    return PoolFacts(
        pool=pool,
        id=f"{pool}-{server}",
        name=Name(server, f"laser-{waiting}"),
        type=UUID(int=1),
        style=UNIDIRECTIONAL,
        user="helpdesk",
        user_filter=ALL_USERS,
        printers=False,
        needed=Right(0),
        source=None,
        buffer=10_000,
        since=0.0,
        waiting=waiting,
        in_hand=in_hand,
        denied=denied,
        everywhere=False,
        replicas=replicas,
    )


def test_the_backlog_is_what_waits_and_what_is_in_hand(liveness: Liveness, clock: Clock) -> None:
    backlog = Backlog(30.0, clock=clock)
    with HealthPort(ANY, liveness, backlog=backlog.read) as port:
        unknown = ask(port, "/backlog")
        assert unknown.status == 503, "nobody looked yet"
        assert unknown.content_type.startswith("application/json")
        assert "not known" in json.loads(unknown.text)["error"]

        backlog.update([facts("desk", "print01", 7, 2, "host.1.aa")])
        answer = ask(port, "/backlog")
        assert answer.status == 200
        assert json.loads(answer.text)["pools"]["desk"]["backlog"] == 9

        clock.now += 30.1
        assert ask(port, "/backlog").status == 503, "it is too old to be told"


def test_no_pool_at_all_is_known_too(liveness: Liveness) -> None:
    with HealthPort(ANY, liveness, backlog=lambda: ()) as port:
        assert json.loads(ask(port, "/backlog").text) == {"pools": {}}


def test_the_backlog_is_summed_by_pool_and_by_server() -> None:
    record = backlog_record(
        [
            facts("desk", "print01", 5, 1, "host.1.aa", "host.2.bb"),
            facts("desk", "print01", 3, 0, "host.1.aa", denied=4),
            facts("desk", "print02", 0, 2, "host.1.cc"),
            facts("mail", "print01", 1_000, 0),
        ]
    )
    assert record == {
        "pools": {
            "desk": {
                "waiting": 8,
                "in_hand": 3,
                "backlog": 11,
                "denied": 4,
                "replicas": 2,
                "servers": {
                    "print01": {
                        "waiting": 8,
                        "in_hand": 1,
                        "backlog": 9,
                        "denied": 4,
                        "replicas": 2,
                    },
                    "print02": {
                        "waiting": 0,
                        "in_hand": 2,
                        "backlog": 2,
                        "denied": 0,
                        "replicas": 1,
                    },
                },
            },
            "mail": {
                "waiting": 1_000,
                "in_hand": 0,
                "backlog": 1_000,
                "denied": 0,
                "replicas": 0,
                "servers": {
                    "print01": {
                        "waiting": 1_000,
                        "in_hand": 0,
                        "backlog": 1_000,
                        "denied": 0,
                        "replicas": 0,
                    }
                },
            },
        }
    }


@pytest.mark.parametrize("path", ["/metrics", "/backlog", "/", "/health"])
def test_what_is_not_given_is_not_there(liveness: Liveness, path: str) -> None:
    with HealthPort(ANY, liveness) as port:
        assert ask(port, path).status == 404


def test_many_ask_at_once(liveness: Liveness) -> None:
    with HealthPort(ANY, liveness, metrics=Telemetry()) as port:
        found: list[int] = []

        def look() -> None:
            paths = ("/livez", "/metrics", "/startupz")
            found.extend(ask(port, path).status for path in paths)

        askers = [threading.Thread(target=look) for _ in range(20)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    assert sorted(found) == [200] * 40 + [503] * 20


async def test_a_kept_liveness_beats_while_others_work(clock: Clock) -> None:
    liveness = Liveness(0.01, clock=clock)
    keeping = asyncio.create_task(liveness.keep())

    async def has_beaten() -> bool:
        return liveness.age == 0

    for _ in range(5):
        clock.now += 1.0
        await until(has_beaten)
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping
    assert keeping.cancelled()
