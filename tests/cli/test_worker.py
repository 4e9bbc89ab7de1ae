"""``tympan worker`` and ``tympan reaper``: processes that are started, told to stop, and killed."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from broker import BIDIRECTIONAL, Broker, Subscription
from tests.cli.commands import CHECKOUT, PATIENCE, TYPE, Place, Process, Tympan
from tests.redis.scenes import until
from tests.servers import RedisServer

MODULE = """
import os, threading, time
from pathlib import Path
from broker import BIDIRECTIONAL, Delivery, Notification
from workers import EVERYWHERE, Worker

HERE = Path(__file__).parent
worker = Worker("desk", user="desk", timeout=None, max_deliveries=9)
anywhere = Worker("farm", user="desk")

def note(text):
    with (HERE / "notes").open("a") as notes:
        notes.write(text + "\\n")

@worker.listen(r"{server}", "{type}", printers=True)
async def handle(notification: Notification, delivery: Delivery) -> None:
    note(f"begun {{notification.text}} {{delivery.times}} {{os.getpid()}}")
    if notification.text == "block":
        time.sleep(30)
    if notification.text == "hold" and not (HERE / "go on").exists():
        import asyncio
        while not (HERE / "go on").exists():
            await asyncio.sleep(0.01)
    if notification.text == "loop":
        import asyncio
        note(f"on {{type(asyncio.get_running_loop()).__module__}}")
    note(f"done {{notification.text}} {{delivery.times}} {{os.getpid()}}")

@worker.listen(r"{server}", "{type}", printers=True, style=BIDIRECTIONAL)
def answer(notification: Notification) -> str:
    if notification.text == "sleep":
        note("asleep")
        time.sleep(30)
    return f"{{os.getpid()}} {{notification.text}}"

@anywhere.listen(EVERYWHERE, "{type}")
def anywhere_handles(notification: Notification) -> None:
    note(f"anywhere {{notification.text}}")
"""


class Desk:
    """A module with workers in a folder of its own, and a namespace of its own in Redis."""

    lease = 2.0
    """Seconds; how soon others notice that a process was killed."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.folder = folder
        self.namespace = f"t{secrets.token_hex(4)}"
        self.place = Place()
        self.tympan = Tympan(redis.url, cwd=folder, environment={"PYTHONPATH": str(CHECKOUT)})
        self.file = folder / "desk_module.py"
        self.file.write_text(MODULE.format(server=self.place.server, type=TYPE))
        self._redis = redis

    @property
    def settings(self) -> tuple[str, ...]:
        """For each command."""
        settings = (f"namespace={self.namespace}", f"lease={self.lease}", "resync=0.2")
        return tuple(word for setting in settings for word in ("--set", setting))

    async def worker(self, *words: str, target: str = "desk_module:worker") -> Process:
        """A worker that serves."""
        process = await self.tympan.start("worker", target, *self.settings, *words)
        await process.note("is served")
        return process

    async def broker(self, user: str = "desk") -> Broker:
        """The library, in the same namespace."""
        return await Broker.connect(
            self._redis.url, user=user, namespace=self.namespace, lease=self.lease, resync=0.2
        ).start()

    async def notify(self, *texts: str) -> None:
        """Send to the desk."""
        source = await self.broker()
        async with await source.open_channel(self.place.printer, TYPE) as channel:
            for text in texts:
                await channel.send(text)
        await source.close()

    @property
    def notes(self) -> list[str]:
        """What the handlers noted."""
        file = self.folder / "notes"
        return file.read_text().splitlines() if file.exists() else []

    async def noted(self, pattern: str, many: int = 1) -> list[str]:
        """The notes that match, when there are so many."""

        async def are() -> bool:
            return len(self._matching(pattern)) >= many

        await until(are, PATIENCE)
        return self._matching(pattern)

    def _matching(self, pattern: str) -> list[str]:
        return [note for note in self.notes if re.match(pattern, note)]

    def let_go(self) -> None:
        """Handlers that hold something end."""
        (self.folder / "go on").touch()


@pytest.fixture
async def desk(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Desk]:
    """The desk; its processes end with the test."""
    made = Desk(tmp_path, redis_server)
    yield made
    await made.tympan.clean_up()


async def health(process: Process) -> str:
    """The URL of a process's health port."""
    await process.note("health at ")
    found = re.search(r"health at (\S+)", process.notes)
    assert found is not None
    return found[1]


async def get(url: str) -> tuple[int, str]:
    """Status and body of what a URL answers."""

    def read() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(read)


async def get_until(url: str, holds: Callable[[int, str], bool]) -> str:
    """The body, when status and body are as they should be."""
    last = ""

    async def is_so() -> bool:
        nonlocal last
        status, last = await get(url)
        return holds(status, last)

    await until(is_so, PATIENCE)
    return last


# Workers -----------------------------------------------------------------------------------------


async def test_a_worker_handles_and_answers_and_ends_politely(desk: Desk) -> None:
    process = await desk.worker()
    await desk.notify("one")
    await desk.noted("done one 1")
    broker = await desk.broker()
    async with await broker.open_channel(desk.place.printer, TYPE, style=BIDIRECTIONAL) as channel:
        await channel.send("well?")
        assert (await channel.response(PATIENCE)).text == f"{process.pid} well?"

    async def is_done() -> bool:
        return not any(pool.backlog for pool in await broker.pools.on_server(desk.place.server))

    await until(is_done)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process
    assert process.notes.endswith("tympan: stopping\n"), "nothing was in hand"
    (one, two) = await broker.pools.on_server(desk.place.server)
    assert (one.backlog, two.backlog, one.replicas, two.replicas) == (0, 0, (), ())
    await broker.close()


async def test_a_worker_may_be_named_by_its_file(desk: Desk) -> None:
    process = await desk.worker(target=f"{desk.file}:worker")
    assert "handle, answer" in process.notes


async def test_told_to_stop_it_finishes_what_is_in_hand_and_takes_nothing_new(desk: Desk) -> None:
    process = await desk.worker("--health", "127.0.0.1:0", "--concurrency", "1")
    url = await health(process)
    await desk.notify("hold", "next")
    await desk.noted("begun hold")
    assert (await get(f"{url}/readyz"))[0] == 200
    process.signal(signal.SIGTERM)
    await get_until(f"{url}/readyz", lambda status, body: status == 503 and "nothing new" in body)
    assert (await get(f"{url}/livez"))[0] == 200
    desk.let_go()
    assert await process.ended() == 0, process
    assert [note.rsplit(" ", 1)[0] for note in desk.notes] == ["begun hold 1", "done hold 1"]
    heir = await desk.worker()
    await desk.noted(f"done next 1 {heir.pid}")


async def test_after_the_drain_time_the_rest_is_handed_back(desk: Desk) -> None:
    process = await desk.worker("--drain", "0.1")
    await desk.notify("hold")
    await desk.noted("begun hold 1")
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process
    assert "tympan: stopping: 1 in hand, up to 0.1 s to finish" in process.notes
    assert "1 handler was broken off; what it had is handed out again" in process.notes
    desk.let_go()
    heir = await desk.worker()
    await desk.noted(f"done hold 2 {heir.pid}")


async def test_a_second_signal_ends_it_at_once_and_says_what_it_left(desk: Desk) -> None:
    process = await desk.worker("--health", "127.0.0.1:0")
    url = await health(process)
    await desk.notify("hold")
    await desk.noted("begun hold 1")
    process.signal(signal.SIGTERM)
    await get_until(f"{url}/readyz", lambda status, _: status == 503)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 128 + signal.SIGTERM
    assert "tympan: stopping: 1 in hand, up to 30 s to finish; once more ends at once\n" in (
        process.notes
    )
    left = (
        rf"left: handler handle: a notification of {re.escape(desk.place.printer)} \(channel \w+\)"
    )
    assert re.search(left, process.notes), process
    assert "another replica of pool desk gets it when this one's lease has ended (2 s)" in (
        process.notes
    )
    desk.let_go()
    heir = await desk.worker()
    await desk.noted(f"done hold 2 {heir.pid}")


async def test_a_function_that_still_runs_in_a_thread_was_not_broken_off(desk: Desk) -> None:
    process = await desk.worker("--drain", "0.1")
    broker = await desk.broker()
    async with await broker.open_channel(desk.place.printer, TYPE, style=BIDIRECTIONAL) as channel:
        await channel.send("sleep")
        await desk.noted("asleep")
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0, process
    await broker.close()
    assert "1 handler is not done after 0.1 s" in process.notes
    assert "broken off" not in process.notes
    assert "left: 1 function that still runs in a thread" in process.notes


async def test_what_a_killed_worker_had_in_hand_goes_to_another(desk: Desk) -> None:
    doomed = await desk.worker()
    await desk.notify(*["hold"] * 5)
    await desk.noted("begun hold 1", 5)
    heir = await desk.worker()
    doomed.signal(signal.SIGKILL)
    desk.let_go()
    await desk.noted(f"done hold 2 {heir.pid}", 5)


async def test_a_worker_whose_pools_are_deleted_ends_and_says_why(desk: Desk) -> None:
    process = await desk.worker()
    broker = await desk.broker()
    await broker.pools.delete("desk", desk.place.server)
    assert await process.ended() == 3, process
    await broker.close()
    assert process.notes.endswith(
        rf"tympan: pool desk is served nowhere any more: pool desk does not listen to "
        rf"{desk.place.server} any more: it was deleted, or Redis lost it" + "\n"
    )


async def test_a_loop_that_is_stuck_is_not_alive_and_one_without_redis_is(desk: Desk) -> None:
    process = await desk.worker("--health", "127.0.0.1:0")
    url = await health(process)
    await desk.notify("block")
    await desk.noted("begun block")
    body = await get_until(f"{url}/livez", lambda status, _: status == 503)
    assert "3 s are allowed" in body
    body = await get_until(f"{url}/readyz", lambda status, _: status == 503)
    assert "finished no poll" in body
    assert "Redis" not in body, "the lease is long over, but it is the loop's fault"
    assert float(re.findall(r"for ([\d.]+) s", body)[0]) < 5
    with RedisServer() as gone:
        lonely = await desk.tympan.start(
            "worker", "desk_module:worker", *desk.settings, "--health", "127.0.0.1:0", url=gone.url
        )
        await lonely.note("is served")
        other = await health(lonely)
        gone.kill()
        body = await get_until(
            f"{other}/readyz", lambda status, body: status == 503 and "Redis" in body
        )
        server = desk.place.server.strip("\\")
        (line,) = body.splitlines()
        assert re.fullmatch(rf"nothing was heard from Redis for \d+ s, for server {server}", line)
        assert (await get(f"{other}/livez"))[0] == 200
        gone.restart()
        await get_until(f"{other}/readyz", lambda status, _: status == 200)


async def test_metrics_say_what_was_done(desk: Desk) -> None:
    process = await desk.worker("--health", "127.0.0.1:0")
    url = await health(process)
    await desk.notify("one", "two")
    await desk.noted("done", 2)
    line = 'tympan_runs_total{handler="handle",outcome="done",pool="desk"} 2.0'
    await get_until(f"{url}/metrics", lambda _, body: line in body)


@pytest.mark.parametrize(
    ("words", "on"),
    [
        ((), "on uvloop"),
        (("--loop", "uvloop"), "on uvloop"),
        (("--loop", "asyncio"), "on asyncio.unix_events"),
    ],
)
async def test_the_loop_it_runs_on_can_be_chosen(
    desk: Desk, words: tuple[str, ...], on: str
) -> None:
    process = await desk.worker(*words)
    await desk.notify("loop")
    await desk.noted(on)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_it_starts_again_when_its_file_changes(desk: Desk, loop: str) -> None:
    process = await desk.worker("--reload", "--loop", loop)
    desk.file.write_text(desk.file.read_text().replace('"done ', '"finished '))
    await process.until(lambda: process.notes.count("is served") >= 2, "second start")
    await desk.notify("one")
    await desk.noted("finished one")
    process.signal(signal.SIGINT)
    await process.ended()


async def test_records_are_json_where_that_is_asked_for(desk: Desk) -> None:
    process = await desk.worker("--log-format", "json", "--health", "127.0.0.1:0")
    await process.note("listens to")
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process
    records = [json.loads(line) for line in process.notes.splitlines()]
    for said in ("handle listens to", "health at http", "pool desk is served", "stopping"):
        assert any(said in record["message"] for record in records), said


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("desk_module", "write help_desk:worker"),
        ("no_such_module:worker", "No module named 'no_such_module'"),
        ("nowhere.py:worker", "there is no file"),
        ("desk_module:nothing", "has no 'nothing'"),
        ("desk_module:HERE", "not a workers.Worker"),
        (
            "broken_module:worker",
            "ZeroDivisionError: division by zero ({folder}/broken_module.py, line 2)",
        ),
        ("no_syntax:worker", "SyntaxError: invalid syntax ({folder}/no_syntax.py, line 1)"),
        ("refused_module:worker", "({folder}/refused_module.py, line 3)"),
        ("empty_module:worker", "has no handlers"),
    ],
)
async def test_a_target_that_cannot_be_run_is_named(desk: Desk, target: str, said: str) -> None:
    (desk.folder / "broken_module.py").write_text("import json\n1 / 0")
    (desk.folder / "no_syntax.py").write_text("1 +* 0")
    (desk.folder / "refused_module.py").write_text(
        "from workers import Worker\nworker = Worker('desk')\nworker.listen(r'\\\\a', 'no type')"
    )
    (desk.folder / "empty_module.py").write_text(
        "from workers import Worker\nworker = Worker('desk')"
    )
    process = await desk.tympan.run("worker", target, status=2)
    assert said.format(folder=desk.folder) in process.notes
    assert "Traceback" not in process.notes


HOOKS = """
import asyncio
from workers import Worker
worker = Worker("desk", user="desk")

@worker.listen(r"{server}", "{type}")
async def handle() -> None: ...

@worker.on_{when}
{kind} connect() -> None:
    {{}}["dsn"]
"""


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_start_up_hook_that_raises_ends_it_in_one_line(desk: Desk, kind: str) -> None:
    file = desk.folder / "hooks.py"
    file.write_text(HOOKS.format(server=desk.place.server, type=TYPE, when="startup", kind=kind))
    process = await desk.tympan.run("worker", "hooks:worker", *desk.settings, status=2)
    line = f"tympan: start-up hook connect failed: KeyError: 'dsn' ({file}, line 11)"
    assert process.notes.splitlines()[-1] == line
    assert re.findall(r'File "(.*?)"', process.notes) == [str(file)], "the user's frames only"


async def test_a_shut_down_hook_that_raises_fails_in_one_line(desk: Desk) -> None:
    (desk.folder / "hooks.py").write_text(
        HOOKS.format(server=desk.place.server, type=TYPE, when="shutdown", kind="def")
    )
    process = await desk.worker(target="hooks:worker")
    process.signal(signal.SIGTERM)
    assert await process.ended() == 3, process
    assert "tympan: shut-down hook connect failed: KeyError: 'dsn'" in process.notes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "lease"), "write name=value"),
        (("--set", "lease=soon"), "lease: Input should be a valid number"),
        (("--set", "leese=1"), "leese"),
        (("--health", "8080"), "write 127.0.0.1:8080"),
        (("--concurrency", "0"), "0 is not in the range"),
        (("--drain", "-1"), "no time in seconds"),
    ],
)
async def test_options_that_cannot_be_meant_are_named(
    desk: Desk, words: tuple[str, ...], said: str
) -> None:
    process = await desk.tympan.run("worker", "desk_module:worker", *words, status=2)
    assert said in process.notes


# Reapers -----------------------------------------------------------------------------------------


async def test_a_pool_collects_while_no_replica_runs_and_the_reaper_says_so(desk: Desk) -> None:
    broker = await desk.broker()
    subscription = Subscription(desk.place.server, TYPE, "desk", printers=True)
    await broker.pools.create("desk", subscription)
    await desk.notify(*(str(i) for i in range(1000)))
    reaper = await desk.tympan.start(
        "reaper", *desk.settings, "--health", "127.0.0.1:0", "--every", "0.1"
    )
    url = await health(reaper)

    def backlog(body: str) -> Any:
        return json.loads(body).get("pools", {}).get("desk", {})

    body = await get_until(
        f"{url}/backlog", lambda status, body: status == 200 and backlog(body) != {}
    )
    assert backlog(body)["backlog"] == 1000
    assert (backlog(body)["waiting"], backlog(body)["replicas"]) == (1000, 0)
    await desk.worker()
    await get_until(f"{url}/backlog", lambda _, body: backlog(body)["backlog"] == 0)
    assert len([note for note in desk.notes if note.startswith("done")]) == 1000
    assert (await get(f"{url}/readyz"))[0] == 200
    reaper.signal(signal.SIGTERM)
    assert await reaper.ended() == 0, reaper
    assert reaper.notes.endswith("tympan: stopping\n")
    await broker.close()


async def test_a_reaper_ends_what_the_dead_held_where_nobody_else_is(desk: Desk) -> None:
    doomed = await desk.worker()
    await desk.notify("hold")
    await desk.noted("begun hold")
    doomed.signal(signal.SIGKILL)
    await desk.tympan.start("reaper", *desk.settings)
    broker = await desk.broker()

    async def is_free() -> bool:
        facts = await broker.pools.on_server(desk.place.server)
        return all(each.in_hand == 0 and not each.replicas for each in facts)

    await until(is_free, PATIENCE)
    await broker.close()


async def test_farm_wide_pools_collect_on_servers_that_come_while_no_replica_runs(
    desk: Desk,
) -> None:
    broker = await desk.broker()
    await broker.server(desk.place.server)
    first = await desk.worker(target="desk_module:anywhere")
    first.signal(signal.SIGTERM)
    assert await first.ended() == 0, first
    await desk.tympan.start("reaper", *desk.settings, "--every", "0.1")
    later = Place()
    await broker.server(later.server)

    async def collects() -> bool:
        return any(each.pool == "farm" for each in await broker.pools.on_server(later.server))

    await until(collects, PATIENCE)
    async with await broker.open_channel(later.server, TYPE) as channel:
        await channel.send("hello")
    await desk.worker(target="desk_module:anywhere")
    await desk.noted("anywhere hello")
    await broker.close()
