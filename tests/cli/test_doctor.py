"""``tympan doctor`` on real redis-servers: what it finds, and that what it prints mends it.

The command runs in this process, as in ``test_usage``; what it prints runs in a shell.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.certificates import Certificates
from tests.cli.commands import PATIENCE, Event, Tympan
from tests.cluster import RedisCluster
from tests.sentinels import Sentinels
from tests.servers import RedisServer, await_agreement
from tests.told import acl_commands, configurations, settings_of, type_at
from workers.acl import Task
from workers.cli import main
from workers.doctor import examination
from workers.embedded import HOST, free_port

WIDTH = 100
SECRET = "open-sesame"
SOUND: dict[str, Any] = {"appendonly": True, "maxmemory": "100mb"}


class Report(NamedTuple):
    """What people and programs are told."""

    lines: list[str]
    answer: Event

    def found(self, *severities: str) -> dict[str, Event]:
        """Findings by their check; by default those that are neither good nor accepted."""
        wanted = severities or ("loses data", "refuses work", "warning")
        return {one["check"]: one for one in self.answer["findings"] if one["severity"] in wanted}

    @property
    def commands(self) -> list[str]:
        """The commands that are there to be copied."""
        text = "\n".join(self.lines).replace("\\\n", " ")
        return [line.strip() for line in text.splitlines() if line.strip().startswith("redis-cli")]


def doctor(url: str, *words: str, status: int = 0) -> Report:
    """Run it for people and for programs; neither is ever shown a password."""
    written = []
    for more in ((), ("--json",)):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            ended = main(("doctor", "--url", url, *words, *more))
        assert ended == status, f"exit status {ended}, not {status}: {out.getvalue()}"
        assert SECRET not in out.getvalue()
        written.append(out.getvalue())
    lines = written[0].splitlines()
    assert max(map(len, lines)) <= WIDTH
    return Report(lines, json.loads(written[1]))


def run(command: str) -> str:
    """Run a line in a shell, as an operator does who types the password when asked."""
    done = subprocess.run(
        command,
        shell=True,
        input=f"{SECRET}\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


def mend(report: Report) -> None:
    """Run all commands."""
    assert report.commands
    for command in report.commands:
        assert run(command).endswith("OK"), command


def await_online(primary: RedisServer) -> None:
    """Wait until the primary, too, knows that its replica follows."""
    await_agreement(
        lambda: primary.cli("INFO", "replication")["slave0"]["state"] == "online",
        "the replica to be online",
    )


# One Redis --------------------------------------------------------------------------------------


def test_a_sound_redis() -> None:
    with RedisServer(**SOUND) as server:
        report = doctor(server.url)
        assert server.cli("KEYS", "*") == [], "looking changes nothing"
        version = server.cli("INFO", "server")["redis_version"]
    assert report.found() == {}
    assert report.commands == []
    assert report.answer["verdict"] == "good"
    assert report.lines[0].endswith("has nothing that loses data silently.")
    assert [one["durability"] for one in report.answer["worth"]] == ["memory", "replica", "fsync"]
    (node,) = report.answer["nodes"]
    assert (node["version"], node["aof"], node["appendfsync"]) == (version, True, "everysec")


def test_eviction_and_the_commands_that_mend_it() -> None:
    with RedisServer(**SOUND) as server:
        server.config("maxmemory-policy", "allkeys-lru")
        report = doctor(server.url, status=1)
        assert report.found().keys() == {"eviction"}
        assert report.answer["findings"][0]["mend"] == report.commands[:1]
        assert "can lose data silently: 1 finding" in report.lines[0]
        mend(report)
        assert doctor(server.url).found() == {}
        kept = (server.data / "redis.conf").read_text(encoding="utf-8")
        assert "maxmemory-policy noeviction" in kept, "also after a restart"


def test_no_persistence_which_may_be_wanted() -> None:
    with RedisServer(maxmemory="100mb") as server:
        report = doctor(server.url, status=1)
        assert report.found()["persistence"]["what"] == "no persistence at all"
        assert "`tympan doctor --accept persistence`" in "\n".join(report.lines)
        accepted = doctor(server.url, "--accept", "persistence")
        assert accepted.answer["verdict"] == "accepted"
        assert "no persistence at all" in "\n".join(accepted.lines), "still shown"
        mend(report)
        assert doctor(server.url).found() == {}


def test_snapshots_only() -> None:
    with RedisServer(maxmemory="100mb", config={"save": "3600 1"}) as server:
        server.cli("SET", "somebody's", "key")
        found = doctor(server.url, status=1).found()["persistence"]
    assert found["what"] == "snapshots only (save 3600 1)"
    assert "changes so far: 1" in found["why"]


def test_an_append_only_file_that_cannot_be_written() -> None:
    def writes() -> str:
        return str(server.cli("INFO", "persistence")["aof_last_write_status"])

    full, endless = 20_000, resource.RLIM_INFINITY
    with RedisServer(**SOUND) as server:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (full, endless))
        server.cli("SET", "large", "x" * 2 * full)
        await_agreement(lambda: writes() == "err", "a failed write")
        report = doctor(server.url, status=3)
        assert report.found()["persistence"]["severity"] == "refuses work"
        assert str(server.data) in run(report.commands[0]), "where to make room"
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (endless, endless))
        await_agreement(lambda: writes() == "ok", "a good write")
        assert doctor(server.url).found() == {}


def test_settings_of_connections_and_their_commands() -> None:
    config: dict[str, str | int] = {
        "client-output-buffer-limit": "pubsub 65536 65536 60",
        "tcp-keepalive": 0,
        "timeout": 3,
    }
    with RedisServer(appendonly=True, config=config) as server:
        report = doctor(server.url)
        assert report.found("warning").keys() == {"memory", "subscribers", "connections"}
        mend(report)
        assert doctor(server.url).found() == {}
        limits = server.cli("CONFIG", "GET", "client-output-buffer-limit")
    assert "pubsub 33554432 8388608 60" in str(limits)


def test_durability_that_is_not_possible() -> None:
    with RedisServer(**SOUND) as server:
        found = doctor(server.url, "--durability", "replica", status=3).found()
        assert "0 replicas online" in found["durability"]["why"]
        with server.replica():
            await_online(server)
            found = doctor(server.url, "--durability", "replica").found()
            assert found.keys() == {"isolation"}


def test_a_socket(tmp_path: Path) -> None:
    socket = tmp_path / "redis.sock"
    config = {"unixsocket": str(socket), "maxmemory-policy": "allkeys-lru"}
    with RedisServer(**SOUND, config=config):
        mend(doctor(f"unix://{socket}", status=1))
        assert doctor(f"unix://{socket}").found() == {}


# Primary and replica ----------------------------------------------------------------------------


def test_a_primary_with_its_replica() -> None:
    with RedisServer(**SOUND) as server, server.replica() as replica:
        await_online(server)
        report = doctor(server.url)
        assert report.found().keys() == {"isolation"}
        mend(report)
        report = doctor(server.url)
        assert report.found() == {}
        (seen,) = report.answer["nodes"][0]["replicas"]
        assert any(f"replica {HOST}:{replica.port}: online" in line for line in report.lines)
        assert (seen["address"], seen["state"]) == (f"{HOST}:{replica.port}", "online")
        assert report.answer["worth"][1]["possible"], "a replica can hold a success"
        replica.kill()
        await_agreement(
            lambda: server.cli("INFO", "replication")["min_slaves_good_slaves"] == 0,
            "the primary to miss its replica",
        )
        assert "NOREPLICAS" in doctor(server.url, status=3).found()["replicas"]["why"]


def test_a_replica() -> None:
    with RedisServer(**SOUND) as server, server.replica() as replica:
        found = doctor(replica.url, status=3).found()
        assert found["url"]["what"] == f"this is a replica of {HOST}:{server.port}"
        replica.config("replica-read-only", "no")
        report = doctor(replica.url, status=1)
        assert report.found("loses data").keys() == {"read-only"}
        mend(report)
        assert doctor(replica.url, status=3).found().keys() == {"url"}


# Sentinel and Cluster ---------------------------------------------------------------------------


def test_sentinels() -> None:
    with Sentinels(
        config={"maxmemory": "100mb"}, appendonly=True, password=SECRET, sentinel_password=SECRET
    ) as farm:
        master, (replica,) = farm.master, farm.replicas
        await_online(master)
        report = doctor(farm.url, status=1)
        assert report.found().keys() == {"isolation"}
        assert {node["address"] for node in report.answer["nodes"]} == {
            f"{HOST}:{server.port}" for server in farm.servers
        }
        mend(report)
        report = doctor(farm.url)
        assert report.found() == {}
        assert len(report.answer["sentinel"]["views"]) == 3
        assert doctor(master.url).found().keys() == {"url"}, "it names the primary itself"
        found = doctor(farm.sentinels[0].url, status=3).found()
        assert "this is a Sentinel" in found["url"]["what"]
        for sentinel in farm.sentinels[1:]:
            sentinel.kill()
        found = doctor(farm.url).found()
        assert found.keys() == {"sentinels"}
        assert "1 of 3 Sentinels answer" in found["sentinels"]["what"]
        replica.kill()
        assert doctor(farm.url, status=3).found()["reach"]["node"] == f"{HOST}:{replica.port}"


def test_a_replica_that_sentinels_miss_is_no_reason_to_be_quiet() -> None:
    """What a primary that is cut off accepts goes, whether its replica is heard just now or not."""
    with Sentinels(config={"maxmemory": "100mb"}, appendonly=True) as farm:
        (replica,) = farm.replicas
        await_online(farm.master)
        assert doctor(farm.url, status=1).found("loses data").keys() == {"isolation"}
        replica.kill()
        await_agreement(
            lambda: farm.master.cli("INFO", "replication")["connected_slaves"] == 0,
            "the primary to miss its replica",
        )
        report = doctor(farm.url, status=1)
        found = report.found()
        assert found.keys() == {"isolation", "reach", "sentinels"}
        assert found["isolation"]["severity"] == "loses data"
        assert found["isolation"]["mend"] == [], "without a replica it would refuse every write"
        assert "Start its replica again first" in found["isolation"]["advice"]
        assert "no replica of mymaster is online" in found["sentinels"]["what"]
        assert "A failover forgets" in report.answer["worth"][0]["says"]


def test_a_cluster() -> None:
    config = {"maxmemory": "100mb", "cluster-require-full-coverage": "yes"}
    with RedisCluster(3, 1, appendonly=True, config=config) as farm:
        for primary in farm.nodes[:3]:
            await_online(primary)
        report = doctor(farm.url)
        assert report.found().keys() == {"coverage"}
        assert len(report.answer["nodes"]) == 6
        mend(report)
        assert doctor(farm.url).found() == {}
        found = doctor(farm.nodes[0].url, status=3).found()
        assert f"redis+cluster://{HOST}" in found["url"]["advice"]
        farm.nodes[3].kill()
        await_agreement(
            lambda: any(seen.is_failed for seen in farm.nodes[0].view().values()), "a failed node"
        )
        report = doctor(farm.url)
        assert report.found().keys() == {"cluster", "reach"}
        assert any("has no replica" in one["what"] for one in report.answer["findings"])


def test_a_cluster_that_lost_a_node_without_a_replica() -> None:
    config = {"maxmemory": "100mb", "cluster-require-full-coverage": "no"}
    with RedisCluster(3, appendonly=True, config=config) as farm:
        home = farm.node_of("tympan:servers")
        names = farm.server_names(3)
        know(home, *names)
        dead = next(node for node in farm.nodes if node is not home)
        (away,) = [name for name in names if farm.node_of(f"{{{name}}}") is dead]
        dead.kill()
        report = doctor(farm.url, status=3)
        assert report.found("refuses work").keys() == {"coverage"}, "before the others know"
        await_agreement(lambda: home.view()[dead.id].is_failed, "a failed node")
        assert "cluster_slots_fail:546" in home.cli("CLUSTER", "INFO")
        report = doctor(farm.url, status=3)
        lost = report.found("refuses work")["coverage"]
        where = f"{HOST}:{dead.port}"
        assert f"{where} is away with 5,46" in lost["what"]
        assert lost["why"] == rf"Out of reach: \\{away}. The other print servers go on."
        assert report.lines[0].startswith("The Cluster (3 nodes) does not work for all print serv")
        assert "coverage" not in report.found("good")
        assert not any(where in command for command in report.commands)
        assert "del-node" not in "\n".join(report.lines)


@pytest.mark.parametrize(
    ("all_slots", "why"),
    [
        ("no", "The directory of print servers is among them"),
        ("yes", "All print servers are refused (CLUSTERDOWN"),
    ],
)
def test_a_cluster_that_lost_what_all_need(all_slots: str, why: str) -> None:
    config = {"maxmemory": "100mb", "cluster-require-full-coverage": all_slots}
    with RedisCluster(3, appendonly=True, config=config) as farm:
        dead = farm.kill_master("tympan:servers")
        node = farm.awake[0]
        await_agreement(lambda: node.view()[dead.id].is_failed, "a failed node")
        await_agreement(lambda: node.serves is (all_slots == "no"), "what follows from that")
        lost = doctor(farm.url, status=3).found("refuses work")["coverage"]
    assert why in lost["why"]


def test_slots_that_nobody_owns() -> None:
    with RedisCluster(1, config={"maxmemory": "100mb"}, appendonly=True) as farm:
        farm.nodes[0].cli("CLUSTER", "DELSLOTS", 7, 8, 9)
        found = doctor(farm.url, status=3).found("refuses work")
    assert "3 slots without an owner (7-9)" in found["coverage"]["what"]


# By the book -------------------------------------------------------------------------------------


class Pasted(RedisServer):
    """A redis-server whose configuration is what docs/farm.md says, as it stands there."""

    def _configuration(self, port: int) -> str:
        own = f'bind {HOST}\nport {port}\ndir {self.data}\nlogfile ""\n'
        return own + configurations()[0]


def test_one_redis_by_the_book() -> None:
    with Pasted() as server:
        report = doctor(server.url)
        assert report.found() == {}
        assert server.cli("SET", "a", "b")
        (node,) = report.answer["nodes"]
    assert (node["policy"], node["aof"], node["timeout"]) == ("noeviction", True, 0)
    limit = node["buffer_limit"]
    assert limit == [32 * 1024 * 1024, 8 * 1024 * 1024, 60]


def test_a_primary_and_a_replica_by_the_book() -> None:
    one, replicas, _ = configurations()
    with Sentinels(config=settings_of(one, replicas)) as farm:
        await_online(farm.master)
        assert doctor(farm.url).found() == {}
        assert farm.master.cli("SET", "a", "b")


def test_a_cluster_by_the_book() -> None:
    one, _, cluster = configurations()
    with RedisCluster(3, 1, config=settings_of(one, cluster)) as farm:
        for primary in farm.nodes[:3]:
            await_online(primary)
        assert doctor(farm.url).found() == {}


async def test_a_redis_to_try_things_on(tympan: Tympan) -> None:
    process = await tympan.start("up", "--json")
    await process.until(lambda: bool(process.lines), "its URL")
    report = (await tympan.run("doctor", "--json", url=process.answer["url"])).answer
    assert report["verdict"] == "good"
    assert {one["severity"] for one in report["findings"]} == {"good"}


# Credentials ------------------------------------------------------------------------------------


@pytest.fixture
def confined() -> Iterator[RedisServer]:
    """A redis-server with the users of the README, and some that lack something."""
    with RedisServer(**SOUND) as server:
        for command in acl_commands():
            type_at(server, command.replace(">secret", f">{SECRET}"))
        acl = ("ACL", "SETUSER")
        server.cli(*acl, "keyless", "on", f">{SECRET}", "~other:*", "&*", "+@all")
        server.cli(*acl, "quiet", "on", f">{SECRET}", "~*", "&*", "+@all", "-publish")
        server.cli(*acl, "blind", "on", f">{SECRET}", "~*", "&*", "+@all", "-info", "-eval")
        yield server


def url(server: RedisServer, user: str) -> str:
    return f"redis://{user}:{SECRET}@{HOST}:{server.port}/0"


def test_a_print_hosts_credential(confined: RedisServer) -> None:
    report = doctor(url(confined, "print01"), r"\\print01")
    (facts,) = report.answer["credentials"]
    assert facts["lacks"].keys() == set(Task) - {Task.SOURCE, Task.RING}
    assert report.found() == {}
    unseen = [one for one in report.answer["findings"] if one["severity"] == "not looked at"]
    assert {one["what"].split(" is ")[0] for one in unseen} == {"CONFIG GET", "CLIENT LIST"}
    assert "2 not looked at" in report.lines[0]
    found = doctor(url(confined, "print01"), r"\\print02", status=3).found()
    assert r"\\print02" in found["credential"]["what"]


def test_a_listeners_credential(confined: RedisServer) -> None:
    report = doctor(url(confined, "helpdesk"), r"\\print01")
    assert report.answer["credentials"][0]["lacks"] == {
        Task.SOURCE: "scripts on tympan:{print01}:opened",
        Task.ALL_USERS: "scripts on tympan:{print01}:grants",
        Task.ADMINISTRATOR: "scripts on tympan:{print01}:grants",
    }
    assert report.found() == {}


@pytest.mark.parametrize(("user", "status"), [("keyless", 3), ("quiet", 0)])
def test_a_credential_that_is_mended(confined: RedisServer, user: str, status: int) -> None:
    report = doctor(url(confined, user), r"\\print01", status=status)
    assert report.found().keys() == {"credential"}
    assert f"--user {user} --askpass" in report.commands[0]
    mend(report)
    assert doctor(url(confined, user), r"\\print01").found() == {}


def test_a_credential_that_may_not_ask(confined: RedisServer) -> None:
    report = doctor(url(confined, "blind"), status=3)
    assert report.found().keys() == {"facts"}
    assert "eval" in report.found("not looked at")["credential"]["why"]
    mend(report)
    assert "Redis 7" in doctor(url(confined, "blind")).lines[0]


def know(redis: RedisServer, *servers: str) -> None:
    """Have these print servers, and an alias of the first, in the directory."""
    names = {"*": "identity", "alias": servers[0], **dict(zip(servers, servers, strict=True))}
    for name, server in names.items():
        redis.cli("HSET", "tympan:servers", name, server)


def tried(report: Report) -> list[str]:
    """The print servers for which a credential was judged."""
    return [one["server"] for one in report.answer["credentials"]]


def test_the_print_servers_that_redis_knows_are_tried(confined: RedisServer) -> None:
    confined.cli("ACL", "SETUSER", "spooler", "on", f">{SECRET}", "~tympan:{print01}:*", "+@all")
    report = doctor(url(confined, "spooler"))
    assert tried(report) == [], "none is known"
    assert "name one" in report.found("not looked at")["credential"]["why"]
    know(confined, "print01", "print02")
    assert tried(doctor(confined.url)) == ["print01", "print02"]


def test_a_confined_credential_is_judged_where_it_is_meant_for(confined: RedisServer) -> None:
    """The other print servers are named, and nobody is told how to undo the confinement."""
    others = [f"print{number:02}" for number in range(2, 40)]
    know(confined, *others, "print01")
    report = doctor(url(confined, "print01"))
    assert tried(report) == ["print01"]
    assert report.found() == {}
    assert report.answer["outside"] == others
    unseen = report.found("not looked at")["credential"]
    named = r"\\print02, \\print03, \\print04, \\print05 and 34 more"
    assert unseen["what"] == f"user print01 is kept from {named}"
    assert r"tympan doctor '\\print02'" in unseen["advice"]
    assert not any("SETUSER" in command for command in report.commands)
    assert doctor(url(confined, "helpdesk")).answer["outside"] == []


def test_a_print_host_is_judged_before_its_first_start(confined: RedisServer) -> None:
    """Nobody knows the print server yet; its user has its name."""
    assert tried(doctor(url(confined, "print01"))) == ["print01"]
    know(confined, "print02")
    report = doctor(url(confined, "print01"))
    assert tried(report) == ["print01"]
    assert report.answer["outside"] == ["print02"]


def test_a_credential_that_fits_no_print_server_that_is_known(confined: RedisServer) -> None:
    """It may be meant for another one: that is asked for before any rule is offered."""
    know(confined, "print01")
    confined.cli("ACL", "SETUSER", "keyless", "~tympan:servers")
    report = doctor(url(confined, "keyless"), status=3)
    assert r"`tympan doctor '\\print01'`" in report.found()["credential"]["advice"]
    assert report.commands == []


def test_before_redis_7_too_a_credential_is_judged_where_it_is_meant_for(
    confined: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "DRY_RUN", "return {}")
    know(confined, "print01", "print02")
    report = doctor(url(confined, "print01"))
    assert (tried(report), report.answer["outside"]) == (["print01"], ["print02"])


def test_before_redis_7_a_script_that_does_nothing_is_tried(
    confined: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "DRY_RUN", "return {}")
    (facts,) = doctor(url(confined, "helpdesk"), r"\\print01").answer["credentials"]
    assert facts["lacks"].keys() == {Task.SOURCE, Task.ALL_USERS, Task.ADMINISTRATOR}


def test_a_redis_whose_config_is_closed() -> None:
    config = {"rename-command CONFIG": "", "maxmemory-policy": "allkeys-lru"}
    with RedisServer(**SOUND, config=config) as server:
        report = doctor(server.url, status=1)
    (unseen,) = report.found("not looked at").values()
    assert "unknown command" in unseen["why"]
    assert "console" in unseen["advice"]
    assert report.commands == [], "there is none that would work"
    assert "    Where this Redis is configured: maxmemory-policy noeviction" in report.lines


# TLS --------------------------------------------------------------------------------------------


def test_tls(tmp_path: Path) -> None:
    tls = Certificates(tmp_path).tls(clients="yes")
    config = {"maxmemory-policy": "allkeys-lru"}
    with RedisServer(**SOUND, config=config, password=SECRET, tls=tls) as server:
        report = doctor(server.url, status=1)
        assert report.answer["way"]["tls"] == "verified"
        mend(report)
        unverified = doctor(f"{server.url}&ssl_cert_reqs=none&ssl_check_hostname=false")
        assert unverified.found().keys() == {"tls"}


# Nobody there -----------------------------------------------------------------------------------


async def test_a_dead_address(tympan: Tympan) -> None:
    process = await tympan.run("doctor", "--json", url=f"redis://{HOST}:{free_port()}", status=5)
    assert process.answer["error"] == "REDIS_UNREACHABLE"
    assert "Traceback" not in process.notes


async def test_a_wrong_password() -> None:
    with RedisServer(password=SECRET) as server:
        tympan = Tympan(server.url.replace(SECRET, "wrong"))
        process = await tympan.run("doctor", "--json", status=3)
        await tympan.clean_up()
    assert process.answer["error"] == "ACCESS_DENIED"
    assert "wrong" not in process.notes


async def test_wrong_usage(tympan: Tympan) -> None:
    process = await tympan.run("doctor", "--accept", "everything", "--json", status=2)
    assert "persistence" in process.answer["message"], "what may be accepted is listed"
