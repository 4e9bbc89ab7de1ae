"""The doctor's rules: which facts make which findings, and what a success is worth on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker import Durability, Settings
from broker._address import Address, Form
from broker._scripts import SCRIPTS
from workers.acl import RUNS, Task
from workers.doctor import diagnose
from workers.doctor.credential import (
    ANY,
    CredentialFacts,
    keys_given,
    probes,
    read_credential,
)
from workers.doctor.ensemble import ClusterFacts, SentinelFacts, View
from workers.doctor.examination import way_of
from workers.doctor.facts import FarmFacts, Tls, Way
from workers.doctor.findings import ACCEPTABLE, Check, Finding, Severity, accept, size, worst
from workers.doctor.node import BufferLimit, NodeFacts, ReplicaFacts
from workers.doctor.worth import worth

SETTINGS = Settings()
MB = 1024 * 1024
HERE = "redis1:6379"
INFO = {
    "redis_version": "7.2.4",
    "redis_mode": "standalone",
    "config_file": "/etc/redis.conf",
    "loading": "0",
    "role": "master",
    "maxmemory": str(1024 * MB),
    "maxmemory_policy": "noeviction",
    "used_memory": str(100 * MB),
    "mem_not_counted_for_evict": str(20 * MB),
    "total_system_memory": str(4096 * MB),
    "evicted_keys": "0",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "rdb_changes_since_last_save": "7",
    "master_repl_offset": "1000",
    "slave0": "ip=10.0.0.2,port=6379,state=online,offset=990,lag=1",
}
CONFIG = {
    "appendfsync": "everysec",
    "client-output-buffer-limit": "normal 0 0 0 slave 1 1 1 pubsub 33554432 8388608 60",
    "cluster-require-full-coverage": "yes",
    "maxmemory-clients": "0",
    "min-replicas-max-lag": "10",
    "min-replicas-to-write": "1",
    "no-appendfsync-on-rewrite": "no",
    "save": "",
    "stop-writes-on-bgsave-error": "yes",
    "tcp-keepalive": "300",
    "timeout": "0",
    "tls-port": "0",
}
GOOD = NodeFacts.of(HERE, INFO, CONFIG, user="default", subscribers="12", sentinels=0)
REPLICA = ReplicaFacts(address="10.0.0.2:6379", state="online", lag=1, behind=10)
MAY = CredentialFacts(server=ANY, lacks={})


def farm(*nodes: NodeFacts, **facts: Any) -> FarmFacts:
    given: dict[str, Any] = {"way": Way(), "nodes": nodes or (GOOD,), "credentials": (MAY,)}
    return FarmFacts(**(given | facts))


def bad(findings: list[Finding]) -> list[Finding]:
    return [one for one in findings if one.severity is not Severity.GOOD]


# One process ------------------------------------------------------------------------------------

LOSES, REFUSES, WARNING, UNKNOWN = (
    Severity.LOSES,
    Severity.REFUSES,
    Severity.WARNING,
    Severity.UNKNOWN,
)
AOF_OFF: dict[str, Any] = {"aof": False}
SNAPSHOTS: dict[str, Any] = {"aof": False, "save": "3600 1", "snapshots": "err"}

PROCESS: dict[str, tuple[dict[str, Any], Check, Severity, str]] = {
    "too old": ({"speaks": (6, 0, 20), "version": "6.0.20"}, Check.VERSION, REFUSES, ""),
    "loading": ({"is_loading": True}, Check.VERSION, REFUSES, ""),
    "allkeys-lru": (
        {"policy": "allkeys-lru"},
        Check.EVICTION,
        LOSES,
        "CONFIG SET maxmemory-policy noeviction",
    ),
    "allkeys-lfu, not yet limited": (
        {"policy": "allkeys-lfu", "maxmemory": 0},
        Check.EVICTION,
        LOSES,
        "CONFIG SET maxmemory-policy noeviction",
    ),
    "volatile-ttl": (
        {"policy": "volatile-ttl"},
        Check.EVICTION,
        WARNING,
        "CONFIG SET maxmemory-policy noeviction",
    ),
    "evicted before": ({"evicted": 3}, Check.EVICTION, WARNING, ""),
    "no maxmemory": ({"maxmemory": 0}, Check.MEMORY, WARNING, "CONFIG SET maxmemory 3072mb"),
    "no maxmemory, host unknown": (
        {"maxmemory": 0, "system_memory": None},
        Check.MEMORY,
        WARNING,
        "",
    ),
    "nearly full": (
        {"used_memory": 900 * MB},
        Check.MEMORY,
        WARNING,
        f"CONFIG SET maxmemory {2048 * MB}",
    ),
    "full": (
        {"used_memory": 1025 * MB},
        Check.MEMORY,
        REFUSES,
        f"CONFIG SET maxmemory {2048 * MB}",
    ),
    "more than the host has": (
        {"maxmemory": 8192 * MB},
        Check.MEMORY,
        WARNING,
        "CONFIG SET maxmemory 3072mb",
    ),
    "no persistence": (AOF_OFF, Check.PERSISTENCE, LOSES, "CONFIG SET appendonly yes"),
    "snapshots only": (
        {"aof": False, "save": "3600 1 300 100"},
        Check.PERSISTENCE,
        LOSES,
        "CONFIG SET appendonly yes",
    ),
    "no append-only file, snapshots unknown": (
        {"aof": False, "save": None},
        Check.PERSISTENCE,
        LOSES,
        "CONFIG SET appendonly yes",
    ),
    "append-only file not written": (
        {"aof_writes": "err"},
        Check.PERSISTENCE,
        REFUSES,
        "CONFIG GET dir",
    ),
    "append-only file not rewritten": (
        {"aof_rewrites": "err"},
        Check.PERSISTENCE,
        WARNING,
        "BGREWRITEAOF",
    ),
    "appendfsync no": (
        {"appendfsync": "no"},
        Check.FSYNC,
        LOSES,
        "CONFIG SET appendfsync everysec",
    ),
    "fsync pauses": (
        {"pauses_fsync": True},
        Check.FSYNC,
        WARNING,
        "CONFIG SET no-appendfsync-on-rewrite no",
    ),
    "fsync always, and pauses": (
        {"pauses_fsync": True, "appendfsync": "always"},
        Check.FSYNC,
        LOSES,
        "CONFIG SET no-appendfsync-on-rewrite no",
    ),
    "snapshot failed": (
        SNAPSHOTS | {"stops_writes": True},
        Check.SNAPSHOTS,
        REFUSES,
        "CONFIG GET dir; BGSAVE",
    ),
    "snapshot failed, unknown what follows": (
        SNAPSHOTS | {"stops_writes": None},
        Check.SNAPSHOTS,
        REFUSES,
        "CONFIG GET dir; BGSAVE",
    ),
    "snapshot failed, and Redis goes on": (
        SNAPSHOTS | {"stops_writes": False},
        Check.SNAPSHOTS,
        LOSES,
        "CONFIG GET dir; BGSAVE; CONFIG SET stop-writes-on-bgsave-error yes",
    ),
    "snapshot failed beside an append-only file": (
        SNAPSHOTS | {"aof": True, "stops_writes": False},
        Check.SNAPSHOTS,
        WARNING,
        "CONFIG GET dir; BGSAVE",
    ),
    "replica that takes writes": (
        {"is_primary": False, "read_only": False, "primary": "r:1", "replicas": ()},
        Check.READ_ONLY,
        LOSES,
        "CONFIG SET replica-read-only yes",
    ),
    "replica without its primary": (
        {"is_primary": False, "follows": False, "primary": "r:1", "replicas": ()},
        Check.REPLICAS,
        WARNING,
        "",
    ),
    "too few replicas": (
        {"good_replicas": 0, "replicas": ()},
        Check.REPLICAS,
        REFUSES,
        "CONFIG SET min-replicas-to-write 0",
    ),
    "replica copies": (
        {"replicas": (replace(REPLICA, state="send_bulk"),)},
        Check.REPLICAS,
        WARNING,
        "",
    ),
    "replica is silent": ({"replicas": (replace(REPLICA, lag=11),)}, Check.REPLICAS, WARNING, ""),
    "subscribers without a limit": (
        {"buffer_limit": BufferLimit(0, 0, 0)},
        Check.SUBSCRIBERS,
        WARNING,
        "CONFIG SET client-output-buffer-limit pubsub 33554432 8388608 60",
    ),
    "subscribers with a tiny limit": (
        {"buffer_limit": BufferLimit(65_536, 0, 0)},
        Check.SUBSCRIBERS,
        WARNING,
        "CONFIG SET client-output-buffer-limit pubsub 33554432 8388608 60",
    ),
    "too many subscribers": (
        {"subscribers": 33},
        Check.SUBSCRIBERS,
        WARNING,
        "CONFIG SET maxmemory-clients 25%",
    ),
    "too many subscribers, Redis 6.2": (
        {"subscribers": 40, "speaks": (6, 2, 14), "client_memory": None},
        Check.SUBSCRIBERS,
        WARNING,
        f"CONFIG SET client-output-buffer-limit pubsub {512 * MB // 40} 0 0",
    ),
    "clients were cut off": ({"cut_off": 2}, Check.SUBSCRIBERS, WARNING, ""),
    "short timeout": ({"timeout": 3}, Check.CONNECTIONS, WARNING, "CONFIG SET timeout 0"),
    "no keepalive": ({"keepalive": 0}, Check.CONNECTIONS, WARNING, "CONFIG SET tcp-keepalive 300"),
    "CONFIG forbidden": (
        {"refused": {"CONFIG GET": "this user has no permissions to run it"}},
        Check.FACTS,
        UNKNOWN,
        "",
    ),
    "CONFIG renamed": (
        {"refused": {"CONFIG GET": "unknown command 'CONFIG'"}},
        Check.FACTS,
        UNKNOWN,
        "",
    ),
    "INFO forbidden": (
        {"refused": {"INFO": "this user has no permissions to run it"}},
        Check.FACTS,
        REFUSES,
        "ACL SETUSER default +info",
    ),
    "silent": ({"unreachable": "No connection."}, Check.REACH, WARNING, ""),
}


@pytest.mark.parametrize(
    ("changes", "check", "severity", "mend"), PROCESS.values(), ids=PROCESS.keys()
)
def test_process(changes: dict[str, Any], check: Check, severity: Severity, mend: str) -> None:
    (found,) = [
        one
        for one in bad(diagnose(farm(replace(GOOD, **changes), way=CLUSTERED), SETTINGS))
        if one.check is check
    ]
    assert found.severity is severity
    assert "; ".join(" ".join(words) for words in found.mend) == mend
    assert found.why.endswith("."), "a sentence"


CLUSTERED = Way(form=Form.CLUSTER)
"""A way on which a replica, or a node that is silent, is nothing odd."""


def test_a_good_redis_has_good_findings_only() -> None:
    found = diagnose(farm(), SETTINGS)
    assert bad(found) == []
    assert {one.check for one in found} >= {
        Check.CREDENTIAL,
        Check.EVICTION,
        Check.FSYNC,
        Check.ISOLATION,
        Check.MEMORY,
        Check.PERSISTENCE,
        Check.REPLICAS,
        Check.SUBSCRIBERS,
    }


def test_nothing_is_concluded_from_what_was_not_looked_at() -> None:
    assert diagnose(farm(NodeFacts(address=HERE), credentials=()), SETTINGS) == []


@pytest.mark.parametrize("command", ["CONFIG GET", "CLIENT LIST"])
def test_a_print_host_is_not_given_what_tells_passwords(command: str) -> None:
    node = replace(GOOD, refused={command: "this user has no permissions"})
    (found,) = bad(diagnose(farm(node), SETTINGS))
    assert found.mend == ()
    assert "administrator's credential" in found.advice


def test_replicas_are_emptied_by_a_primary_that_forgets() -> None:
    (found,) = bad(diagnose(farm(replace(GOOD, aof=False)), SETTINGS))
    assert "empties its replicas" in found.why


def test_a_limit_on_all_clients_together_bounds_many_subscribers() -> None:
    node = replace(GOOD, subscribers=10_000, client_memory="25%")
    assert bad(diagnose(farm(node), SETTINGS)) == []


# Reading ----------------------------------------------------------------------------------------


def test_facts_of_info() -> None:
    assert (GOOD.product, GOOD.version, GOOD.speaks) == ("Redis", "7.2.4", (7, 2, 4))
    assert GOOD.replicas == (REPLICA,)
    assert GOOD.used_memory == 80 * MB, "buffers of replicas do not count for maxmemory"
    assert GOOD.buffer_limit == BufferLimit(33_554_432, 8_388_608, 60)
    assert (GOOD.is_primary, GOOD.aof, GOOD.save, GOOD.subscribers) == (True, True, "", 12)


def test_facts_of_valkey() -> None:
    info = INFO | {"server_name": "valkey", "valkey_version": "8.1.0", "pubsub_clients": "5"}
    node = NodeFacts.of(HERE, info, CONFIG, sentinels=3)
    assert (node.product, node.version, node.speaks) == ("Valkey", "8.1.0", (7, 2, 4))
    assert node.subscribers == 2, "Sentinels are no listeners"


def test_facts_of_a_replica() -> None:
    info = INFO | {
        "role": "slave",
        "master_host": "::1",
        "master_port": "6379",
        "master_link_status": "down",
        "slave_read_only": "1",
    }
    node = NodeFacts.of(HERE, info, CONFIG)
    assert (node.is_primary, node.primary, node.follows) == (False, "[::1]:6379", False)
    assert node.read_only is True


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1 KB"), (1.5 * MB, "1.5 MB")],
)
def test_sizes(number: float, text: str) -> None:
    assert size(number) == text


def test_what_a_replica_lacks_of_replicas_is_no_matter_now() -> None:
    """By the book it is configured as its primary is, whose place it may take."""
    node = replace(GOOD, is_primary=False, primary="r:1", replicas=(), good_replicas=0)
    found = diagnose(farm(GOOD, node, way=CLUSTERED), SETTINGS)
    assert bad(found) == []


# The way ----------------------------------------------------------------------------------------

REMOTE = Way(is_local=False, has_password=True)

WAYS: dict[str, tuple[FarmFacts, Check, Severity]] = {
    "replica": (
        farm(replace(GOOD, is_primary=False, primary="r:1", replicas=())),
        Check.URL,
        REFUSES,
    ),
    "node of a Cluster": (farm(replace(GOOD, mode="cluster")), Check.URL, REFUSES),
    "Sentinel": (farm(NodeFacts(address=HERE, mode="sentinel")), Check.URL, REFUSES),
    "watched by Sentinels": (farm(replace(GOOD, sentinels=3)), Check.URL, WARNING),
    "clear text": (farm(way=REMOTE), Check.TLS, WARNING),
    "unverified": (farm(way=replace(REMOTE, tls=Tls.UNVERIFIED)), Check.TLS, WARNING),
    "no password": (
        farm(way=replace(REMOTE, tls=Tls.VERIFIED, has_password=False)),
        Check.CREDENTIAL,
        WARNING,
    ),
    "credential not tried": (
        farm(credentials=(), untried="Nobody knows."),
        Check.CREDENTIAL,
        UNKNOWN,
    ),
    "credential without bells": (
        farm(credentials=(CredentialFacts(server="print01", lacks={Task.RING: "PUBLISH x"}),)),
        Check.CREDENTIAL,
        WARNING,
    ),
    "credential for nothing": (
        farm(
            credentials=(
                CredentialFacts(
                    server="print01", lacks={Task.SOURCE: "scripts", Task.LISTENER: "scripts"}
                ),
            )
        ),
        Check.CREDENTIAL,
        REFUSES,
    ),
}


@pytest.mark.parametrize(("facts", "check", "severity"), WAYS.values(), ids=WAYS.keys())
def test_way(facts: FarmFacts, check: Check, severity: Severity) -> None:
    (found,) = bad(diagnose(facts, SETTINGS))
    assert (found.check, found.severity) == (check, severity)
    assert found.mend or found.advice or found.severity is UNKNOWN


NOTHING = {Task.SOURCE: "scripts", Task.LISTENER: "scripts"}


def test_a_credential_that_may_do_nothing_is_widened_only_where_that_was_asked_for() -> None:
    facts = farm(credentials=(CredentialFacts(server="print02", lacks=NOTHING),), is_named=True)
    (named,) = bad(diagnose(facts, SETTINGS))
    (known,) = bad(diagnose(replace(facts, is_named=False), SETTINGS))
    assert named.mend
    assert known.mend == ()
    assert r"tympan doctor '\\print02'" in known.advice


def test_the_print_servers_of_others_are_named_and_not_judged() -> None:
    mine = CredentialFacts(server="print01", lacks={})
    others = tuple(f"print{number:02}" for number in range(2, 7))
    (one,) = bad(diagnose(farm(credentials=(mine,), outside=others), SETTINGS))
    assert (one.check, one.severity) == (Check.CREDENTIAL, UNKNOWN)
    assert r"\\print02, \\print03, \\print04, \\print05 and 1 more" in one.what
    assert one.mend == ()


@pytest.mark.parametrize(
    ("url", "way"),
    [
        ("redis://localhost", Way()),
        ("redis://[::1]:6379", Way()),
        ("unix:///run/redis.sock", Way()),
        ("redis://redis1", Way(is_local=False)),
        ("redis://alice:secret@10.0.0.1", Way(is_local=False, has_password=True)),
        ("rediss://redis1", Way(is_local=False, tls=Tls.VERIFIED)),
        ("rediss://redis1?ssl_cert_reqs=none", Way(is_local=False, tls=Tls.UNVERIFIED)),
        ("rediss://redis1?ssl_check_hostname=false", Way(is_local=False, tls=Tls.UNVERIFIED)),
        ("redis+sentinel://localhost,redis2/m", Way(form=Form.SENTINEL, is_local=False)),
        ("redis+cluster://127.0.0.1:7000,127.0.0.1:7001", Way(form=Form.CLUSTER)),
    ],
)
def test_way_of_a_url(url: str, way: Way) -> None:
    assert way_of(Address.parse(url, SETTINGS)) == way


def test_the_port_with_tls_is_named() -> None:
    (found,) = bad(diagnose(farm(replace(GOOD, tls_port=6380), way=REMOTE), SETTINGS))
    assert "6380" in found.advice


# An isolated primary ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "durability", "severity"),
    [
        pytest.param({"min_replicas": 0}, Durability.MEMORY, WARNING, id="nobody promotes"),
        pytest.param({"min_replicas": 0, "sentinels": 3}, Durability.MEMORY, LOSES, id="watched"),
        pytest.param({"max_lag": 0, "sentinels": 3}, Durability.MEMORY, LOSES, id="never late"),
        pytest.param(
            {"min_replicas": 0, "sentinels": 3}, Durability.REPLICA, WARNING, id="replicas confirm"
        ),
    ],
)
def test_isolation(changes: dict[str, Any], durability: Durability, severity: Severity) -> None:
    found = diagnose(farm(replace(GOOD, **changes)), Settings(durability=durability))
    (one,) = [one for one in bad(found) if one.check is Check.ISOLATION]
    assert one.severity is severity
    assert one.mend[0] == ("CONFIG", "SET", "min-replicas-to-write", "1")
    assert "one replica" in one.advice, "what that costs"


@pytest.mark.parametrize(
    ("known", "checks"),
    [(1, {Check.ISOLATION, Check.SENTINELS}), (0, {Check.SENTINELS})],
    ids=["away", "none known"],
)
def test_isolation_without_a_replica_that_is_online(known: int, checks: set[Check]) -> None:
    """Whoever is cut off from Sentinels and replica sees no replica."""
    sentinel = SentinelFacts(
        master="mymaster", views=tuple(replace(view, replicas=known) for view in VIEWS)
    )
    node = replace(GOOD, replicas=(), good_replicas=None, min_replicas=0)
    facts = farm(node, way=WATCHED, sentinel=sentinel)
    found = {one.check: one for one in bad(diagnose(facts, SETTINGS))}
    assert found.keys() == checks
    assert found[Check.SENTINELS].severity is WARNING
    if known:
        assert found[Check.ISOLATION].severity is LOSES
        assert found[Check.ISOLATION].mend == (), "it would refuse every write"
    alone = farm(replace(node, sentinels=3))
    assert {one.check for one in bad(diagnose(alone, SETTINGS))} == {Check.URL, Check.ISOLATION}


# Cluster ----------------------------------------------------------------------------------------


def cluster(*lines: str, state: str = "ok") -> ClusterFacts:
    nodes = "\n".join(f"{number}{line}" for number, line in enumerate(lines))
    return ClusterFacts.of(HERE, f"cluster_state:{state}\r\ncluster_slots_assigned:1\r\n", nodes)


WHOLE = (
    " redis1:6379@16379 myself,master - 0 0 1 connected 0-5460",
    " redis2:6379@16379,redis2 master - 0 0 2 connected 5461-10922 [10922->-4]",
    " redis3:6379@16379 master - 0 0 3 connected 10923-16382 16383",
    " redis4:6379@16379 slave 0 0 0 1 connected",
    " redis5:6379@16379 slave 1 0 0 2 connected",
    " redis6:6379@16379 slave 2 0 0 3 connected",
)
MEMBER = replace(GOOD, mode="cluster", full_coverage=False)

CLUSTERS: dict[str, tuple[ClusterFacts, NodeFacts, Check, Severity, str]] = {
    "slots without an owner": (
        cluster(WHOLE[0], *WHOLE[2:4], *WHOLE[5:], " :0@0 handshake - 0 0 0 disconnected"),
        MEMBER,
        Check.COVERAGE,
        REFUSES,
        f"--cluster fix {HERE}",
    ),
    "down": (
        cluster(*WHOLE, state="fail"),
        MEMBER,
        Check.COVERAGE,
        REFUSES,
        f"--cluster check {HERE}",
    ),
    "one stops all": (
        cluster(*WHOLE),
        replace(MEMBER, full_coverage=True),
        Check.COVERAGE,
        WARNING,
        "CONFIG SET cluster-require-full-coverage no",
    ),
    "primary without a replica": (
        cluster(*WHOLE[:5]),
        MEMBER,
        Check.CLUSTER,
        WARNING,
        "--cluster add-node NEW-HOST:PORT redis3:6379 --cluster-slave --cluster-master-id 2",
    ),
    "failed": (
        cluster(*WHOLE, " redis7:6379@16379 slave,fail 0 0 0 1 connected"),
        MEMBER,
        Check.CLUSTER,
        WARNING,
        "",
    ),
    "two primaries": (
        cluster(
            " redis1:6379@16379 master - 0 0 1 connected 0-5460",
            " redis2:6379@16379 master - 0 0 2 connected 5461-16383",
            " redis3:6379@16379 slave 0 0 0 1 connected",
            " redis4:6379@16379 slave 1 0 0 1 connected",
        ),
        MEMBER,
        Check.CLUSTER,
        WARNING,
        "",
    ),
}


@pytest.mark.parametrize(
    ("facts", "node", "check", "severity", "mend"), CLUSTERS.values(), ids=CLUSTERS.keys()
)
def test_cluster(
    facts: ClusterFacts, node: NodeFacts, check: Check, severity: Severity, mend: str
) -> None:
    found = bad(diagnose(farm(node, way=CLUSTERED, cluster=facts), SETTINGS))
    (one,) = [one for one in found if one.check is check]
    assert one.severity is severity
    assert "; ".join(" ".join(words) for words in one.mend) == mend


DEAD = " redis2:6379@16379 master,fail - 0 0 2 connected 5461-10922"
HERE_AND_THERE = ("print01", "print03", "print04")
"""One on each primary of :data:`WHOLE`, where the last has the directory, too."""


@pytest.mark.parametrize(
    ("lines", "silent", "advice"),
    [
        pytest.param((WHOLE[0], DEAD, *WHOLE[2:4], WHOLE[5]), (), "Start it again", id="no heir"),
        pytest.param((WHOLE[0], DEAD, *WHOLE[2:]), (), "redis5:6379", id="an heir"),
        pytest.param(WHOLE, ("redis2:6379",), "redis5:6379", id="others do not know yet"),
    ],
)
def test_a_primary_that_is_away(
    lines: tuple[str, ...], silent: tuple[str, ...], advice: str
) -> None:
    """Its print servers are named; it needs no replica of its own now, and must not be removed."""
    nodes = [MEMBER, *(NodeFacts(address=one, unreachable="No connection.") for one in silent)]
    facts = farm(*nodes, way=CLUSTERED, cluster=cluster(*lines), servers=HERE_AND_THERE)
    found = diagnose(facts, SETTINGS)
    (one,) = [one for one in found if one.check is Check.COVERAGE]
    assert (one.severity, one.what) == (
        REFUSES,
        "redis2:6379 is away with 5,462 slots (5461-10922)",
    )
    assert one.why == r"Out of reach: \\print01. The other print servers go on."
    assert advice in one.advice
    assert not [one for one in found if one.check is Check.CLUSTER]


@pytest.mark.parametrize(
    ("servers", "why"),
    [
        (None, "the directory could not be read"),
        (("print04",), "None of the print servers that are known lives there"),
    ],
)
def test_whom_a_primary_that_is_away_stops_is_not_always_known(
    servers: tuple[str, ...] | None, why: str
) -> None:
    away = cluster(WHOLE[0], DEAD, *WHOLE[2:4], WHOLE[5])
    found = diagnose(farm(MEMBER, way=CLUSTERED, cluster=away, servers=servers), SETTINGS)
    (one,) = [one for one in found if one.check is Check.COVERAGE]
    assert why in one.why


def test_a_failed_node_without_slots_may_be_removed() -> None:
    facts = cluster(*WHOLE, " redis7:6379@16379 master,fail - 0 0 1 connected")
    (one,) = bad(diagnose(farm(MEMBER, way=CLUSTERED, cluster=facts), SETTINGS))
    assert "del-node" in one.advice


def test_a_whole_cluster_is_good() -> None:
    whole = cluster(*WHOLE)
    assert bad(diagnose(farm(MEMBER, way=CLUSTERED, cluster=whole), SETTINGS)) == []
    assert [one.address for one in whole.primaries] == ["redis1:6379", "redis2:6379", "redis3:6379"]
    assert whole.unowned == ()


def test_slots_without_an_owner_are_counted() -> None:
    facts = cluster(" redis1:6379@16379 master - 0 0 1 connected 1-99 101-16382")
    assert facts.unowned == ((0, 0), (100, 100), (16_383, 16_383))
    found = diagnose(farm(MEMBER, way=CLUSTERED, cluster=facts), SETTINGS)
    assert any("3 slots without an owner (0, 100, 16383)" in one.what for one in found)


# Sentinel ---------------------------------------------------------------------------------------

WATCHED = Way(form=Form.SENTINEL)
VIEW = View(sentinel="s1:26379", primary=HERE, quorum=2, others=2, replicas=1, epoch=4)
VIEWS = (VIEW, replace(VIEW, sentinel="s2:26379"), replace(VIEW, sentinel="s3:26379"))
OTHER = replace(GOOD, address="redis2:6379")

SENTINELS: dict[str, tuple[tuple[View, ...], tuple[NodeFacts, ...], Check, Severity, str]] = {
    "one is silent": (
        (*VIEWS[:2], View(sentinel="s3:26379", unreachable="No connection.")),
        (GOOD,),
        Check.SENTINELS,
        WARNING,
        "",
    ),
    "two Sentinels": (
        tuple(replace(view, others=1) for view in VIEWS[:2]),
        (GOOD,),
        Check.SENTINELS,
        WARNING,
        "",
    ),
    "quorum out of reach": (
        tuple(replace(view, quorum=4) for view in VIEWS),
        (GOOD,),
        Check.SENTINELS,
        WARNING,
        "SENTINEL SET mymaster quorum 2",
    ),
    "one finds the primary down": (
        (*VIEWS[:2], replace(VIEWS[2], flags=("s_down", "master"))),
        (GOOD,),
        Check.SENTINELS,
        WARNING,
        "",
    ),
    "nothing to promote": (
        tuple(replace(view, replicas=0) for view in VIEWS),
        (GOOD,),
        Check.SENTINELS,
        WARNING,
        "",
    ),
    "they disagree": (
        (*VIEWS[:2], replace(VIEWS[2], primary="redis2:6379", epoch=3)),
        (GOOD, replace(OTHER, is_primary=False)),
        Check.PRIMARY,
        LOSES,
        "SENTINEL RESET mymaster",
    ),
    "two primaries": (VIEWS, (GOOD, OTHER), Check.PRIMARY, LOSES, "REPLICAOF redis1 6379"),
    "no primary": (VIEWS, (replace(GOOD, is_primary=False),), Check.PRIMARY, REFUSES, ""),
}


@pytest.mark.parametrize(
    ("views", "nodes", "check", "severity", "mend"), SENTINELS.values(), ids=SENTINELS.keys()
)
def test_sentinels(
    views: tuple[View, ...],
    nodes: tuple[NodeFacts, ...],
    check: Check,
    severity: Severity,
    mend: str,
) -> None:
    facts = SentinelFacts(master="mymaster", views=views)
    (one,) = bad(diagnose(farm(*nodes, way=WATCHED, sentinel=facts), SETTINGS))
    assert (one.check, one.severity) == (check, severity)
    assert "; ".join(" ".join(words) for words in one.mend) == mend


def test_sentinels_that_are_too_few_to_agree() -> None:
    silent = tuple(replace(view, unreachable="No connection.") for view in VIEWS[1:])
    facts = SentinelFacts(master="mymaster", views=(VIEW, *silent))
    found = bad(diagnose(farm(way=WATCHED, sentinel=facts), SETTINGS))
    assert [one.severity for one in found] == [WARNING] * 3
    assert any("Too few to agree" in one.why for one in found)


def test_the_sentinel_that_is_behind_is_reset() -> None:
    behind = replace(VIEWS[2], primary="redis2:6379", epoch=3)
    facts = SentinelFacts(master="mymaster", views=(behind, *VIEWS[:2]))
    (one,) = bad(diagnose(farm(way=WATCHED, sentinel=facts), SETTINGS))
    assert one.node == "s3:26379"


# The credential ---------------------------------------------------------------------------------


def test_every_script_belongs_to_a_task() -> None:
    listed = {name for names in RUNS.values() for name in names}
    assert {script.name for script in SCRIPTS} == listed


def test_every_key_of_every_script_is_tried() -> None:
    asked = probes("tympan", "print01", Form.SINGLE)
    keys = {key for commands in asked.values() for _, key in keys_given(commands)}
    single = ("meta", "opened", "grants", "pools", "dead")
    of_many = ("channel:", "to:", "held:", "body:", "stream:", "room:", "idle:", "returned:")
    for part in (*single, *of_many, "held:~"):
        assert any(key.startswith(f"tympan:{{print01}}:{part}") for key in keys), part


def test_what_a_task_lacks_is_the_first_thing_refused() -> None:
    asked = probes("tympan", "print01", Form.SINGLE)
    grants = next(one for one in asked[Task.ADMINISTRATOR] if one[-1].endswith(":grants"))
    facts = read_credential("print01", asked, {grants: False, asked[Task.RING][0]: False})
    assert facts.lacks == {
        Task.ADMINISTRATOR: "scripts on tympan:{print01}:grants",
        Task.ALL_USERS: "scripts on tympan:{print01}:grants",
        Task.RING: "PUBLISH tympan:{print01}:to:doctor ",
    }
    assert facts.may(Task.SOURCE)


@pytest.mark.parametrize("kind", ["pools", "dead"])
def test_who_may_not_write_pools_may_still_send_to_them(kind: str) -> None:
    asked = probes("tympan", "print01", Form.SINGLE)
    (given,) = {
        one for one, key in keys_given(asked[Task.POOL]) if key == f"tympan:{{print01}}:{kind}"
    }
    facts = read_credential("print01", asked, {given: False})
    assert facts.lacks == {Task.POOL: f"scripts on tympan:{{print01}}:{kind}"}


def test_bells_of_a_cluster_ring_in_their_shard() -> None:
    asked = probes("tympan", "print01", Form.CLUSTER)
    assert {words[0] for words in asked[Task.RING] if "{" in words[1]} == {"SPUBLISH"}


# What counts ------------------------------------------------------------------------------------


def test_accepted_losses_do_not_count() -> None:
    found = diagnose(farm(replace(GOOD, aof=False, policy="allkeys-lru")), SETTINGS)
    assert worst(found) is LOSES
    assert worst(accept(found, [Check.PERSISTENCE])) is LOSES
    both = accept(found, [Check.PERSISTENCE, Check.EVICTION])
    assert worst(both) is Severity.ACCEPTED
    assert len(both) == len(found)


def test_whatever_loses_data_can_be_accepted() -> None:
    tables = [
        *((check, severity) for _, check, severity, _ in PROCESS.values()),
        *((check, severity) for _, _, check, severity, _ in SENTINELS.values()),
        (Check.ISOLATION, LOSES),
    ]
    assert {check for check, severity in tables if severity is LOSES} == set(ACCEPTABLE)


def test_the_worst_comes_first() -> None:
    node = replace(GOOD, policy="volatile-lru", aof=False, is_loading=True)
    severities = [one.severity for one in diagnose(farm(node), SETTINGS)]
    assert severities == sorted(severities, key=list(Severity).index)


# Worth ------------------------------------------------------------------------------------------

WORTH: dict[str, tuple[dict[str, Any], Durability, bool, str]] = {
    "memory": ({}, Durability.MEMORY, True, "about the last second"),
    "memory, always": ({"appendfsync": "always"}, Durability.MEMORY, True, "and power loss"),
    "memory, never": ({"appendfsync": "no"}, Durability.MEMORY, True, "30 s"),
    "memory, unknown": ({"appendfsync": None}, Durability.MEMORY, True, "not looked at"),
    "memory, snapshots": ({"aof": False, "save": "1 1"}, Durability.MEMORY, True, "last snapshot"),
    "memory, nothing kept": (AOF_OFF, Durability.MEMORY, True, "forgets everything"),
    "memory, failover": ({}, Durability.MEMORY, True, "A failover forgets"),
    "replica": ({}, Durability.REPLICA, True, "1 online"),
    "no replica": ({"replicas": ()}, Durability.REPLICA, False, "NotDurable"),
    "replica copies": (
        {"replicas": (replace(REPLICA, state="send_bulk"),)},
        Durability.REPLICA,
        False,
        "0 replicas online",
    ),
    "fsync": ({}, Durability.FSYNC, True, "WAITAOF"),
    "fsync, always": (
        {"appendfsync": "always", "speaks": (6, 2)},
        Durability.FSYNC,
        True,
        "flushes each write",
    ),
    "fsync, too old": ({"speaks": (7, 0, 15)}, Durability.FSYNC, False, "before 7.2"),
    "fsync, no file": (AOF_OFF, Durability.FSYNC, False, "no append-only file"),
    "fsync, not told": (
        {"refused": {"CONFIG GET": "no permissions"}},
        Durability.FSYNC,
        False,
        "refuses to tell",
    ),
}


@pytest.mark.parametrize(
    ("changes", "durability", "possible", "says"), WORTH.values(), ids=WORTH.keys()
)
def test_worth(changes: dict[str, Any], durability: Durability, possible: bool, says: str) -> None:
    facts = farm(replace(GOOD, **changes))
    levels = {one.durability: one for one in worth(facts, SETTINGS)}
    assert list(levels) == list(Durability)
    assert levels[durability].is_possible is possible
    assert says in levels[durability].says
    found = diagnose(facts, Settings(durability=durability))
    refused = [one for one in found if one.check is Check.DURABILITY]
    assert [one.severity for one in refused] == ([] if possible else [REFUSES])


def test_the_weakest_primary_counts() -> None:
    weak = replace(OTHER, aof=False, replicas=())
    levels = {one.durability: one for one in worth(farm(GOOD, weak), SETTINGS)}
    assert "forgets everything" in levels[Durability.MEMORY].says
    assert not levels[Durability.REPLICA].is_possible
    assert not levels[Durability.FSYNC].is_possible
    assert all(OTHER.address in levels[one].says for one in (Durability.REPLICA, Durability.FSYNC))


def test_more_replicas_than_there_are() -> None:
    (_, replica, _) = worth(farm(), Settings(replicas=2))
    assert not replica.is_possible
