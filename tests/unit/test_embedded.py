"""The private redis-server: life, death, data and error messages."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from workers.embedded import HOST, EmbeddedRedis, EmbeddedRedisError, free_port

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs the Linux death signal")


def ends_within(pid: int, seconds: float) -> bool:
    """Tell whether the process, ours or not, ends in that time."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(watched)


def fake_server(folder: Path, script: str) -> None:
    """Put a redis-server on PATH that is a shell script."""
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)


def test_answers_and_stops() -> None:
    server = EmbeddedRedis()
    with server:
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
            assert client.info("server")["process_id"] == server.pid
        pid, data = server.pid, server.data
        assert server.log.read_text(encoding="utf-8")
        assert os.getsid(pid) == pid  # so that Ctrl-C in a terminal does not reach it
    assert not server.running
    assert ends_within(pid, 0)
    assert not data.exists()


def test_settings() -> None:
    with (
        EmbeddedRedis() as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        settings = client.config_get("*")
    wanted = {
        "bind": "127.0.0.1",
        "protected-mode": "yes",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
    }
    assert {name: settings[name] for name in wanted} == wanted


def test_further_settings_win() -> None:
    config: dict[str, str | int] = {"maxmemory": "5mb", "appendfsync": "always", "hz": 50}
    with (
        EmbeddedRedis(config=config) as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        settings = client.config_get("maxmemory", "appendfsync", "hz")
    assert settings == {"maxmemory": str(5 * 1024 * 1024), "appendfsync": "always", "hz": "50"}


def test_start_and_stop_are_idempotent() -> None:
    server = EmbeddedRedis()
    server.stop()
    try:
        assert server.start() is server
        pid = server.pid
        with server.start():
            assert server.pid == pid
    finally:
        server.stop()
    server.stop()


def test_can_be_started_again() -> None:
    server = EmbeddedRedis()
    with server:
        first = server.pid
    with server:
        assert server.pid != first


@pytest.mark.parametrize("attribute", ["port", "url", "data", "log", "pid"])
def test_unstarted_server_has_no_address(attribute: str) -> None:
    with pytest.raises(EmbeddedRedisError, match=r"call start\(\)"):
        getattr(EmbeddedRedis(), attribute)


def test_given_data_is_kept(tmp_path: Path) -> None:
    data = tmp_path / 'a "b" \\c' / "däta"
    with EmbeddedRedis(data=data) as server, redis.Redis.from_url(server.url) as client:
        client.set("job", "42")
    assert "ready to exit" in (data / "redis.log").read_text(encoding="utf-8")
    with EmbeddedRedis(data=data) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("job") == b"42"


def test_given_port_is_used() -> None:
    port = free_port()
    with EmbeddedRedis(port=port) as server:
        assert server.port == port
        assert server.url == f"redis://127.0.0.1:{port}/0"


def test_starts_again_after_its_death(tmp_path: Path) -> None:
    with EmbeddedRedis(data=tmp_path) as server:
        port, pid = server.port, server.pid
        os.kill(pid, signal.SIGKILL)
        assert ends_within(pid, 5)
        while server.running:
            threading.Event().wait(0.001)
        server.start()
        assert server.port == port
        assert server.pid != pid


def test_stop_kills_what_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.embedded._STOP_PATIENCE_S", 0.1)
    with EmbeddedRedis() as server:
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
    assert ends_within(pid, 0)


def test_outlives_the_thread_that_started_it() -> None:
    server = EmbeddedRedis()
    thread = threading.Thread(target=server.start)
    thread.start()
    native = thread.native_id
    thread.join()
    try:
        while Path(f"/proc/self/task/{native}").exists():
            threading.Event().wait(0.001)
        assert not ends_within(server.pid, 0.1)
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
    finally:
        server.stop()


PARENT = """
import sys
from workers.embedded import EmbeddedRedis
server = EmbeddedRedis().start()
print(server.pid, server.data, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent() -> subprocess.Popen[str]:
    """A process that starts a server, prints its pid and folder, and ends with its input."""
    return subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@linux_only
def test_dies_with_a_killed_parent(parent: subprocess.Popen[str]) -> None:
    with parent:
        assert parent.stdout is not None
        pid, data = parent.stdout.readline().split()
        assert not ends_within(int(pid), 0)
        parent.kill()
        assert ends_within(int(pid), 5)
    shutil.rmtree(data)  # nobody was left to do it


def test_is_stopped_at_exit(parent: subprocess.Popen[str]) -> None:
    with parent:
        assert parent.stdout is not None
        pid, data = parent.stdout.readline().split()
        parent.communicate()
    assert parent.returncode == 0
    assert ends_within(int(pid), 5)
    assert not Path(data).exists()


FORKING = """
import os, sys
from workers.embedded import EmbeddedRedis
with EmbeddedRedis() as server:
    child = os.fork()
    if child == 0:
        sys.exit()  # leaves the block, then runs what is due at exit
    os.waitpid(child, 0)
    if not server.running or not server.log.exists():
        sys.exit("the child stopped the server")
"""


def test_forked_child_leaves_the_server_alone() -> None:
    # Newer Pythons warn of forking with threads; that is just what happens to users here.
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING], check=True, timeout=60)


FORKING_WITH_DATA = """
import os, pathlib, signal, sys
from workers.embedded import EmbeddedRedis
data = pathlib.Path(sys.argv[1])
with EmbeddedRedis(data=data):
    child = os.fork()
    if child == 0:
        signal.pause()
try:
    with EmbeddedRedis(data=data):
        pass
finally:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_forked_child_does_not_hold_the_data(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKING_WITH_DATA, str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)


def test_missing_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedRedisError, match=r"not found on PATH: install Redis 6\.2"):
        EmbeddedRedis().start()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'Redis server v=5.0.14 sha=0:0 bits=64'", r"is version 5\.0\.14, which is too old"),
        ("echo 'Redis server v=6.0.16 sha=0:0 bits=64'", r"is version 6\.0\.16, which is too old"),
        ("echo something else", "does not tell its version"),
        ("exit 3", "--version failed"),
    ],
)
def test_unsuitable_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, message: str
) -> None:
    fake_server(tmp_path, script)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedRedisError, match=message):
        EmbeddedRedis().start()


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_impossible_port(port: int) -> None:
    with pytest.raises(ValueError, match="port must be between"):
        EmbeddedRedis(port=port)


def test_taken_port() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(EmbeddedRedisError, match=f"port {port} on 127.0.0.1 is in use"):
            EmbeddedRedis(port=port).start()


def test_port_taken_at_the_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    good = free_port()
    with EmbeddedRedis() as other:
        ports = iter([other.port, good])
        monkeypatch.setattr("workers.embedded.free_port", lambda: next(ports))
        with EmbeddedRedis() as server:
            assert server.port == good


def test_given_port_taken_at_the_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedRedis() as other:
        monkeypatch.setattr("workers.embedded._bind_error", lambda _: None)
        with pytest.raises(EmbeddedRedisError, match=f"port {other.port} on 127.0.0.1 is in use"):
            EmbeddedRedis(port=other.port).start()


def below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "data"


def in_a_read_only_file_system(_: Path) -> Path:
    return Path("/proc/tympan/data")


@pytest.mark.parametrize(
    "choose", [below_a_file, pytest.param(in_a_read_only_file_system, marks=linux_only)]
)
def test_unwritable_data(choose: Callable[[Path], Path], tmp_path: Path) -> None:
    data = choose(tmp_path)
    with pytest.raises(EmbeddedRedisError, match=f"data folder {data} cannot be written"):
        EmbeddedRedis(data=data).start()


def test_unwritable_configuration(tmp_path: Path) -> None:
    (tmp_path / "redis.conf").mkdir()
    with pytest.raises(EmbeddedRedisError, match=r"could not be run in .*redis\.conf"):
        EmbeddedRedis(data=tmp_path).start()


def test_shared_data(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(data=tmp_path) as first,
        pytest.raises(EmbeddedRedisError, match="in use by another embedded"),
    ):
        EmbeddedRedis(data=tmp_path).start()
    assert not first.running
    with EmbeddedRedis(data=tmp_path):
        pass


def test_death_on_start_shows_the_log(tmp_path: Path) -> None:
    with EmbeddedRedis(data=tmp_path):
        pass
    server = EmbeddedRedis(data=tmp_path, config={"no-such-setting": "1"})
    with pytest.raises(EmbeddedRedisError, match=r"(?s)died on start.*no-such-setting") as caught:
        server.start()
    assert "Ready to accept connections" not in str(caught.value)  # from the first, good start
    assert not server.running
    with EmbeddedRedis(data=tmp_path) as mended:
        assert mended.running


def test_silent_server_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_server(
        tmp_path,
        '[ "$1" = --version ] && exec echo v=7.0.0\necho "$$" >"$(dirname "$1")/pid"\n'
        "echo thinking; exec sleep 60",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    server = EmbeddedRedis(data=tmp_path / "data", ready_within=0.5)
    with pytest.raises(EmbeddedRedisError, match=r"(?s)not ready within 0\.5 s.*thinking"):
        server.start()
    assert ends_within(int((tmp_path / "data" / "pid").read_text(encoding="ascii")), 0)


def test_free_port_can_be_listened_on() -> None:
    with socket.socket() as listener:
        listener.bind((HOST, free_port()))
        listener.listen()


@linux_only
def test_free_port_is_not_ephemeral() -> None:
    bounds = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    if int(bounds[0]) > 11_000:
        assert all(free_port() < int(bounds[0]) for _ in range(50))
