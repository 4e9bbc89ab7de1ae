"""The harness around real redis-servers."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.servers import RedisServer
from workers.embedded import EmbeddedRedisError


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def test_commands(server: RedisServer) -> None:
    server.cli("SET", "job", b"caf\xc3\xa9")
    assert server.cli("GET", "job") == "café"
    assert server.cli("INCRBY", "pages", 3) == 3
    assert server.cli("INFO", "server")["process_id"] == server.pid
    with redis.Redis.from_url(server.url) as client:
        assert client.get("pages") == b"3"


def test_command_errors_reach_the_test(server: RedisServer) -> None:
    server.cli("SET", "job", "x")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        server.cli("INCR", "job")


def test_options() -> None:
    with RedisServer(maxmemory="8mb", config={"maxclients": 17}) as server:
        settings = {
            name: server.cli("CONFIG", "GET", name)[name]
            for name in ("appendonly", "maxmemory", "maxclients", "maxmemory-policy")
        }
    assert settings == {
        "appendonly": "no",
        "maxmemory": str(8 * 1024 * 1024),
        "maxclients": "17",
        "maxmemory-policy": "noeviction",
    }


def test_full_memory_is_an_error() -> None:
    def fill(server: RedisServer) -> None:
        for number in range(100):
            server.cli("SET", f"page:{number}", b"x" * 65_536)

    with RedisServer(maxmemory="4mb") as server, pytest.raises(redis.OutOfMemoryError):
        fill(server)


def test_config_lasts_until_restart(server: RedisServer) -> None:
    before = server.cli("CONFIG", "GET", "hz")
    server.config("hz", 77)
    assert server.cli("CONFIG", "GET", "hz") == {"hz": "77"}
    server.restart()
    assert server.cli("CONFIG", "GET", "hz") == before


def test_orderly_restart_keeps_appended_data() -> None:
    with RedisServer(appendonly=True) as server:
        port, pid, data = server.port, server.pid, server.data
        server.cli("SET", "job", "42")
        server.restart()
        assert (server.port, server.data) == (port, data)
        assert server.pid != pid
        assert server.cli("GET", "job") == "42"
    assert not data.exists()


def test_kill_and_restart_keep_appended_data() -> None:
    with RedisServer(appendonly=True, config={"appendfsync": "always"}) as server:
        url = server.url
        for number in range(100):
            server.cli("RPUSH", "jobs", number)
        server.kill()
        assert not server.running
        assert server.url == url
        with pytest.raises(redis.ConnectionError):
            server.cli("PING")
        server.restart()
        assert server.cli("LLEN", "jobs") == 100


def test_restart_without_persistence_forgets(server: RedisServer) -> None:
    server.cli("SET", "job", "42")
    server.restart()
    assert server.cli("EXISTS", "job") == 0


def test_loading_is_not_ready() -> None:
    # Loading takes about a second, and answers LOADING every 1024 commands.
    slow = {"key-load-delay": "40"}
    script = "for i = 1, 20000 do redis.call('SET', 'job:' .. i, i) end"
    with RedisServer(appendonly=True) as server:
        server.cli("EVAL", script, 0)
        server._settings |= slow
        server.restart()
        assert server.log.read_text(encoding="utf-8").count("Ready to accept connections") == 2
        assert server.cli("DBSIZE") == 20_000


def test_killed_server_cannot_be_killed(server: RedisServer) -> None:
    server.kill()
    for action in (server.kill, server.pause, server.resume):
        with pytest.raises(EmbeddedRedisError, match="not running"):
            action()


def test_pause_and_resume(server: RedisServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        server.pause()
        state = Path(f"/proc/{server.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        assert state.split()[0] == "T"
        client.sendall(b"PING\r\n")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(10)
        server.resume()
        assert client.recv(7) == b"+PONG\r\n"


def test_pause_can_be_repeated(server: RedisServer) -> None:
    for _ in range(3):
        server.pause()
        server.pause()
        server.resume()
        assert server.cli("PING")


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail, by the test's time limit, when a server has to be killed at last."""
    monkeypatch.setattr("workers.embedded._STOP_PATIENCE_S", 600.0)


@pytest.mark.timeout(30)
@pytest.mark.usefixtures("patience")
def test_paused_server_stops_and_restarts() -> None:
    with RedisServer() as server:
        server.pause()
        server.restart()
        assert server.cli("PING")
        server.pause()


def test_replica_follows_and_is_promoted(server: RedisServer) -> None:
    server.cli("SET", "job", "42")
    with server.replica() as replica:
        assert replica.cli("GET", "job") == "42"
        with pytest.raises(redis.ReadOnlyError):
            replica.cli("SET", "job", "43")
        server.cli("SET", "job", "43")
        assert server.cli("WAIT", 1, 5000) == 1
        server.kill()
        replica.promote()
        assert replica.cli("ROLE")[0] == "master"
        assert replica.cli("GET", "job") == "43"
        replica.cli("SET", "job", "44")
        server.restart()
        server.follow(replica)
        assert server.cli("GET", "job") == "44"
        server.restart()
        server.await_link()
        assert server.cli("GET", "job") == "44"


@pytest.mark.timeout(30)
@pytest.mark.usefixtures("patience")
def test_replica_keeps_role_and_settings_over_restart() -> None:
    with (
        RedisServer(appendonly=True, config={"hz": 31}) as server,
        server.replica() as replica,
    ):
        assert replica.cli("CONFIG", "GET", "hz") == {"hz": "31"}
        replica.restart()
        replica.await_link()
        assert replica.cli("ROLE")[0] == "slave"
        replica.promote()
        replica.restart()
        assert replica.cli("ROLE")[0] == "master"


def test_link_that_never_comes_up(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.servers._LINK_TIMEOUT_S", 0.2)
    server.pause()
    with pytest.raises(TimeoutError, match="no link to its master"):
        server.replica()


def test_death_is_seen(server: RedisServer) -> None:
    child = server._running_child()
    child.send(signal.SIGKILL)
    assert child.exited.wait(30)
    assert not server.running


def test_no_server_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedRedisError, match="not found on PATH"):
        RedisServer().start()
