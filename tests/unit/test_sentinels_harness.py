"""The harness around real Redis Sentinels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from tests.certificates import Certificates
from tests.sentinels import MASTER_NAME, Sentinels
from workers.embedded import HOST, EmbeddedRedisError


@pytest.fixture(scope="module")
def watched() -> Iterator[Sentinels]:
    """A master, its replica and three Sentinels; a test leaves all of them alive."""
    with Sentinels() as running:
        yield running


def named(watched: Sentinels) -> set[int]:
    """The ports of the masters that the Sentinels name to a client."""
    found = set()
    for sentinel in watched.sentinels:
        with redis.Redis(HOST, sentinel.port) as client:
            finder = Sentinel([])
            finder.sentinels = [client]
            found.add(finder.discover_master(MASTER_NAME)[1])
    return found


def test_all_is_whole_at_the_start(watched: Sentinels) -> None:
    hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in watched.sentinels)
    assert watched.url == f"redis+sentinel://{hosts}/mymaster"
    assert named(watched) == {watched.master.port}
    assert len(watched.replicas) == 1
    assert watched.sentinels[0].cli("SENTINEL", "CKQUORUM", MASTER_NAME).startswith("OK 3 usable")


def test_a_replica_takes_over_and_the_dead_one_follows(watched: Sentinels) -> None:
    before, (replica,) = watched.master, watched.replicas
    before.cli("SET", "job", "42")
    assert before.cli("WAIT", 1, 5000) == 1
    assert watched.kill_master() is before
    assert watched.await_failover() is replica
    assert named(watched) == {replica.port}
    assert replica.cli("INCR", "job") == 43
    watched.rejoin()
    assert watched.replicas == [before]
    assert before.cli("GET", "job") == "43"


def test_masters_change_in_order_and_restarts_keep_the_roles(watched: Sentinels) -> None:
    before, (replica,) = watched.master, watched.replicas
    assert watched.switch_over() is replica
    before.restart()
    before.await_link()
    for sentinel in watched.sentinels:
        sentinel.kill()
        sentinel.restart()
        assert sentinel.master_port() == replica.port
    replica.cli("SET", "job", "44")


def test_a_master_that_was_frozen_follows(watched: Sentinels) -> None:
    frozen = watched.master
    frozen.pause()
    successor = watched.await_failover()
    assert successor is not frozen
    frozen.resume()
    watched.rejoin()
    assert watched.replicas == [frozen]


def test_all_may_speak_tls_and_want_passwords(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    tls = certificates.tls(clients="yes")
    with Sentinels(password="secret", sentinel_password="other", tls=tls) as watched:
        assert watched.url.startswith(f"rediss+sentinel://:secret@{HOST}:")
        assert watched.url.endswith("&sentinel_password=other")
        once: dict[str, Any] = {"retry": Retry(NoBackoff(), 0)}
        access = once | {
            "ssl": True,
            "ssl_ca_certs": str(certificates.ca),
            "ssl_certfile": str(certificates.good.chain),
            "ssl_keyfile": str(certificates.good.key),
        }
        ports = [(HOST, sentinel.port) for sentinel in watched.sentinels]
        to_sentinel = access | {"password": "other"}
        finder = Sentinel(ports, sentinel_kwargs=to_sentinel, password="secret", **access)
        with finder.master_for(MASTER_NAME) as client:
            assert client.set("job", "42")
        with pytest.raises(redis.AuthenticationError), redis.Redis(*ports[0], **access) as client:
            client.ping()
        with pytest.raises(redis.ConnectionError), redis.Redis(*ports[0], **once) as client:
            client.ping()


def test_nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, Path]] = []

    def fail(condition: object, what: str) -> None:
        seen.extend((each.pid, each.data) for each in [*broken.servers, *broken.sentinels])
        raise InterruptedError(what, condition)

    monkeypatch.setattr("tests.sentinels.await_agreement", fail)
    broken = Sentinels()
    with pytest.raises(InterruptedError):
        broken.start()
    assert len(seen) == 5
    for pid, data in seen:
        assert not Path(f"/proc/{pid}").exists()
        assert not data.exists()


def test_a_failed_start_names_its_cause() -> None:
    with pytest.raises(EmbeddedRedisError, match="no-such-setting"):
        Sentinels(config={"no-such-setting": 1}).start()
