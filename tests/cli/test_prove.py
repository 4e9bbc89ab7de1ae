"""``tympan prove`` on real Redis: it holds, it says no where a promise is broken, it cleans up.

A play waits for leases most of the time, so two are run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from tests.certificates import Certificates
from tests.cli.commands import CHECKOUT, Event, Process, Tympan
from tests.cluster import RedisCluster
from tests.servers import RedisServer
from workers.embedded import HOST
from workers.proof.invariants import INVARIANTS
from workers.proof.play import ROLES

PROVE = ("prove", "--seconds", "3")
NAMES = [one.name for one in INVARIANTS]
GHOST = "held:host.1.ghost"
PATIENCE = 100.0
"""Seconds; two plays at once take twenty, on a machine that does nothing else."""


@pytest.fixture
async def at() -> AsyncIterator[Any]:
    """Commands on any Redis."""
    made: list[Tympan] = []

    def of(url: str, **options: Any) -> Tympan:
        made.append(Tympan(url, **options))
        return made[-1]

    yield of
    for tympan in made:
        await tympan.clean_up()


def broken(answer: Event) -> dict[str, int]:
    """The invariants that were, and how often."""
    found = {one["invariant"]: len(one["violations"]) for one in answer["invariants"]}
    return {name: many for name, many in found.items() if many}


async def ended(process: Process) -> int:
    """Its exit status; a play takes longer than other commands."""
    due = time.monotonic() + PATIENCE
    while process.is_running:
        assert time.monotonic() < due, f"{process} does not end"
        await asyncio.sleep(0.05)
    return await process.ended()


# It holds ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_it_holds_on_a_cluster_and_over_tls_with_the_credential_that_tympan_acl_prints(
    at: Any, redis_cluster: RedisCluster, tmp_path: Path
) -> None:
    tls = Certificates(tmp_path).tls()
    with RedisServer(tls=tls) as server:
        server.cli("SET", "somebody's", "key")
        server.cli("HSET", "tympan:servers", "print01", "print01")
        acl = await at(server.url).run(
            *("acl", *ROLES, "--server", r"\\print01", "--all-users"),
            *("--namespace", "proof", "--user", "prover", "--json"),
        )
        server.cli("ACL", "SETUSER", "prover", *acl.answer["rules"], ">secret")
        url = f"rediss://prover:secret@localhost:{server.port}/0?{tls.query}"
        confined = await at(url).start(*PROVE, "--namespace", "proof")
        on_cluster = await at(redis_cluster.url).start(*PROVE, "--json")
        for process in (confined, on_cluster):
            assert await ended(process) == 0, process
        left = server.cli("KEYS", "*")
        assert sorted(left) == ["somebody's", "tympan:servers"], "it knows its keys by name"
        assert server.cli("HGETALL", "tympan:servers") == {"print01": "print01"}
    holds_for_people(confined.lines)
    assert "secret" not in "\n".join((*confined.lines, confined.notes))
    holds_for_programs(on_cluster.answer)
    namespace = on_cluster.answer["namespace"]
    for node in redis_cluster.nodes:
        assert not [key for key in node.cli("KEYS", "*") if key.startswith(namespace)]


def holds_for_people(lines: list[str]) -> None:
    """What they read: each invariant with what was checked, and the verdict at last."""
    text = "\n".join(lines)
    assert lines[-1].startswith(f"Holds: {len(INVARIANTS)} invariants, ")
    for name in NAMES:
        assert re.search(rf"^{name} +[1-9][0-9,]* [a-z]+ +0 +R", text, re.MULTILINE), name
    assert "Note: this Redis has no append-only file" in text
    assert "Note: this credential may not SCAN" in text
    assert "  over after " in text


def holds_for_programs(answer: Event) -> None:
    """Each invariant was judged by something, and holds."""
    assert answer["verdict"] == "holds", answer
    assert [one["invariant"] for one in answer["invariants"]] == NAMES
    assert all(one["checked"] for one in answer["invariants"])
    recovered = {act["name"]: act["recovered"] for act in answer["played"]}
    assert recovered["connections are cut under dialogs"]["worst"] < 5
    assert recovered["owners and sources are killed"]["count"] >= 4


# It can say no -----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def sabotage(url: str, namespace: str) -> AsyncIterator[None]:
    """Another client, which counts drops of its own and leaves a key behind that nobody holds."""
    is_over = asyncio.Event()

    async def meddle() -> None:
        async with redis.asyncio.Redis.from_url(url, decode_responses=True) as client:
            pattern = f"{namespace}:{{print01}}:channel:*"
            while not is_over.is_set():
                async for key in client.scan_iter(pattern, count=100):
                    if not key.endswith(":log"):
                        await client.hincrby(key, "drops", 1)
                await client.set(f"{namespace}:{{print01}}:{GHOST}", "1")
                await asyncio.sleep(0.05)

    meddling = asyncio.create_task(meddle())
    try:
        yield
    finally:
        is_over.set()
        await meddling


GUARDS = (
    "if owner and owner ~= handle then return { 'ACQUIRED', by } end",
    "if state == 'answered' then return { 'IN_PROGRESS' } end",
)
"""What keeps a second listener from owning a dialog."""


@pytest.fixture
def unguarded(tmp_path: Path) -> Path:
    """A copy of this Tympan whose ``respond`` lacks them."""
    for package in ("broker", "workers", "lua"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / package, tmp_path / package, ignore=ignored)
    script = tmp_path / "lua" / "respond.lua"
    source = script.read_text(encoding="utf-8")
    for guard in GUARDS:
        assert guard in source
        source = source.replace(guard, "")
    script.write_text(source, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_script_without_its_guards_and_keys_that_are_meddled_with_are_found_out(
    unguarded: Path, at: Any
) -> None:
    with RedisServer() as server:
        copy = at(server.url, cwd=unguarded, environment={"PYTHONPATH": str(unguarded)})
        two_owners = await copy.start(*PROVE, "--patience", "3")
        meddled = await at(server.url).start(*PROVE, "--json", "--namespace", "proof")
        await meddled.note("many respond at once")
        async with sabotage(server.url, "proof"):
            assert await ended(meddled) == 1, meddled
        assert await ended(two_owners) == 1, two_owners
        assert not [key for key in server.cli("KEYS", "*") if not key.startswith("proof:")]

    assert two_owners.lines[-1].startswith("BROKEN: ")
    assert "exactly one owner in each dialog" in two_owners.lines[-1]
    assert any("two owners" in line for line in two_owners.lines)
    assert max(map(len, two_owners.lines)) <= 500, "people are shown an excerpt"

    answer = meddled.answer
    assert answer["verdict"] == "broken"
    assert answer["says"].startswith("BROKEN: ")
    assert broken(answer).keys() == {"each handle is dropped once", "no key without an owner"}
    (ghost,) = answer["invariants"][NAMES.index("no key without an owner")]["violations"]
    assert ghost["where"] == f"proof:{{print01}}:{GHOST}"


# It ends -----------------------------------------------------------------------------------------


async def test_ctrl_c_ends_its_processes_and_clears_away(at: Any) -> None:
    with RedisServer() as server:
        process = await at(server.url).start("prove", "--seconds", "600")
        await process.note("many respond at once")
        await process.until(lambda: bool(server.cli("KEYS", "tympan-proof-*:channel:*")), "a play")
        process.signal()
        assert await process.ended() == 130
        assert server.cli("KEYS", "*") == []
        assert "name=tympan-" not in server.cli("CLIENT", "LIST")
    assert "Traceback" not in process.notes


# It is refused -----------------------------------------------------------------------------------


async def test_what_its_credential_lacks_is_named(at: Any) -> None:
    with RedisServer() as server:
        server.cli("ACL", "SETUSER", "few", "on", ">secret", "~proof:*", "&*", "+@all", "-script")
        server.cli("ACL", "SETUSER", "other", "on", ">secret", "~tympan:*", "&*", "+@all")
        for user in ("few", "other"):
            url = f"redis://{user}:secret@{HOST}:{server.port}/0"
            process = await at(url).run(*PROVE, "--json", "--namespace", "proof", status=3)
            assert process.answer["error"] == "ACCESS_DENIED"
            says = process.answer["message"]
            command = says.partition("printed by: ")[2].partition(";")[0]
            assert command == (
                f"tympan acl {' '.join(ROLES)} --all-users --server '\\\\print01' --namespace proof"
            )
            assert "Traceback" not in process.notes
        assert server.cli("KEYS", "*") == [], "what was begun is taken back"


@pytest.mark.parametrize("key", ["tympan:servers", "tympan:of-another-program"])
async def test_a_namespace_in_use_is_left_alone(at: Any, key: str) -> None:
    with RedisServer() as server:
        server.cli("HSET", key, "print01", "print01")
        process = await at(server.url).run(*PROVE, "--json", "--namespace", "tympan", status=2)
        assert "namespace tympan is in use" in process.answer["message"]
        assert server.cli("KEYS", "*") == [key]


async def test_a_full_redis_refuses_at_the_start(at: Any) -> None:
    with RedisServer(maxmemory="1mb") as server:
        process = await at(server.url).run(*PROVE, "--json", status=3)
    assert process.answer["error"] in ("OUT_OF_MEMORY", "REDIS_FULL")
