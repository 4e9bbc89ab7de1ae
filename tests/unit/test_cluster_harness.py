"""The harness around a real Redis Cluster."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.certificates import Certificates
from tests.cluster import SLOTS, ClusterNode, RedisCluster
from tests.farm import OTHER_SERVER, SERVER
from tests.unit.test_embedded import ends_within, linux_only
from workers.embedded import HOST, EmbeddedRedisError

KEY = "farm:{print01}:pages"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Three masters; a test leaves them agreeing on all slots."""
    with RedisCluster() as running:
        yield running


@pytest.fixture(scope="module")
def replicated() -> Iterator[RedisCluster]:
    """Three masters with a replica each; a test leaves all of them alive."""
    with RedisCluster(replicas=1) as running:
        yield running


def other_than(cluster: RedisCluster, owner: ClusterNode) -> ClusterNode:
    return next(node for node in cluster.masters if node is not owner)


def test_clients_reach_every_slot(cluster: RedisCluster) -> None:
    assert cluster.masters == cluster.nodes
    assert sum(len(node.slots) for node in cluster.nodes) == SLOTS
    assert cluster.url.startswith("redis+cluster://127.0.0.1:")
    assert cluster.url.count(",") == 2
    first = cluster.nodes[0]
    with redis.RedisCluster(HOST, first.port, decode_responses=True) as client:
        for number in range(100):
            client.set(f"job:{number}", number)
        assert sum(node.cli("DBSIZE") for node in cluster.nodes) == 100
        for number in range(100):
            assert cluster.node_of(f"job:{number}").cli("GET", f"job:{number}") == str(number)
            client.delete(f"job:{number}")


def test_names_lie_on_different_masters(cluster: RedisCluster) -> None:
    names = cluster.server_names(3)
    assert [rf"\\{name}" for name in names[:2]] == [SERVER, OTHER_SERVER]
    assert {cluster.node_of(f"farm:{{{name}}}:meta") for name in names} == set(cluster.nodes)
    assert cluster.slot_of(KEY) == cluster.slot_of("{print01}")
    with pytest.raises(LookupError, match="no 4 masters"):
        cluster.server_names(4)


def test_a_slot_moves_with_all_that_is_in_it(cluster: RedisCluster) -> None:
    source = cluster.node_of(KEY)
    source.cli("RPUSH", KEY, b"caf\xc3\xa9", b"\xff\x00")
    source.cli("XADD", KEY + ":log", "1-1", "event", "open")
    source.cli("XGROUP", "CREATE", KEY + ":log", "readers", "0")
    source.cli("XREADGROUP", "GROUP", "readers", "one", "STREAMS", KEY + ":log", ">")
    target = other_than(cluster, source)
    cluster.migrate(KEY, target)
    assert cluster.node_of(KEY) is target
    assert target.cli("LRANGE", KEY, 0, -1) == ["café", "\udcff\x00"]
    assert target.cli("XPENDING", KEY + ":log", "readers")["pending"] == 1
    with pytest.raises(redis.ResponseError, match=f"{cluster.slot_of(KEY)} .*{target.port}"):
        source.cli("LLEN", KEY)
    cluster.migrate(KEY, source)
    assert source.cli("DEL", KEY, KEY + ":log") == 2


def test_a_migration_goes_step_by_step(cluster: RedisCluster) -> None:
    source = cluster.node_of(KEY)
    target = other_than(cluster, source)
    keys = [f"{KEY}:{number}" for number in range(3)]
    for key in keys:
        source.cli("SET", key, "sheet")
    steps = cluster.migration(KEY, target, batch=2)
    assert [next(steps), next(steps)] == ["importing", "migrating"]
    assert source.cli("GET", keys[0]) == "sheet"
    with pytest.raises(redis.exceptions.AskError):
        source.cli("GET", KEY)
    assert next(steps) == "moved"
    (left,) = source.cli("CLUSTER", "GETKEYSINSLOT", cluster.slot_of(KEY), 10)
    moved = next(key for key in keys if key != left)
    with pytest.raises(redis.exceptions.TryAgainError):
        source.cli("MGET", left, moved)
    assert next(steps) == "moved"
    assert cluster.node_of(KEY) is source
    assert list(steps) == ["taken", "left"]
    assert cluster.node_of(KEY) is target
    assert target.cli("DEL", *keys) == 3
    cluster.migrate(KEY, source)


def test_a_hole_is_noticed_and_mended(cluster: RedisCluster) -> None:
    owner = cluster.node_of(KEY)
    cluster.drop_slots(KEY, 0)
    for node in cluster.nodes:
        assert not node.serves
        with pytest.raises(redis.exceptions.ClusterDownError):
            node.cli("GET", KEY)
    with pytest.raises(LookupError, match="owns the slot"):
        cluster.node_of(KEY)
    cluster.add_slots(owner, KEY)
    cluster.add_slots(cluster.nodes[0], 0)
    cluster.await_agreement()
    assert owner.cli("GET", KEY) is None


def test_a_replica_takes_over_and_the_dead_one_follows(replicated: RedisCluster) -> None:
    before = replicated.node_of(KEY)
    (replica,) = replicated.replicas_of(before)
    before.cli("SET", KEY, "7")
    assert before.cli("WAIT", 1, 5000) == 1
    assert replicated.fail_over(KEY) is replica
    assert not before.running
    assert replica.cli("INCR", KEY) == 8
    replicated.restart(before)
    assert replicated.replicas_of(replica) == [before]
    assert replicated.switch_over(KEY) is before
    assert before.cli("GET", KEY) == "8"
    assert before in replicated.masters
    assert len(replicated.masters) == 3


def test_a_master_that_was_frozen_finds_itself_a_replica(replicated: RedisCluster) -> None:
    frozen = replicated.node_of(KEY)
    frozen.pause()
    assert frozen not in replicated.awake
    successor = replicated.await_master(KEY)
    assert successor is not frozen
    frozen.resume()
    replicated.await_agreement()
    assert replicated.replicas_of(successor) == [frozen]


def test_nodes_may_speak_tls_and_want_a_password(tmp_path: Path) -> None:
    tls = Certificates(tmp_path).tls(clients="yes")
    with RedisCluster(masters=2, password="secret", tls=tls) as cluster:
        assert cluster.url.startswith("rediss+cluster://:secret@127.0.0.1:")
        first, second = cluster.nodes
        source = cluster.node_of(KEY)
        source.cli("SET", KEY, "7")
        target = second if source is first else first
        cluster.migrate(KEY, target)
        assert target.cli("GET", KEY) == "7"
        once = Retry(NoBackoff(), 0)
        with (
            pytest.raises(redis.ConnectionError),
            redis.Redis(HOST, first.port, retry=once) as plain,
        ):
            plain.ping()


def test_nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: RedisCluster) -> None:
        seen.extend((node.pid, node.data) for node in self.nodes)
        raise InterruptedError("in the middle of the start")

    seen: list[tuple[int, Path]] = []
    monkeypatch.setattr(RedisCluster, "_join", fail)
    with pytest.raises(InterruptedError):
        RedisCluster().start()
    assert len(seen) == 3
    for pid, data in seen:
        assert not Path(f"/proc/{pid}").exists()
        assert not data.exists()


def test_a_failed_start_names_its_cause() -> None:
    with pytest.raises(EmbeddedRedisError, match="no-such-setting"):
        RedisCluster(config={"no-such-setting": 1}).start()


PARENT = """
import sys
from tests.cluster import RedisCluster
cluster = RedisCluster()
cluster._join = lambda: None
cluster.start()
print(*(f"{node.pid} {node.data}" for node in cluster.nodes), sep="\\n", flush=True)
sys.stdin.read()
"""


@linux_only
def test_nodes_die_with_a_killed_parent() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        seen = [parent.stdout.readline().split() for _ in range(3)]
        parent.kill()
        for pid, data in seen:
            assert ends_within(int(pid), 5)
            shutil.rmtree(data)  # nobody was left to do it
