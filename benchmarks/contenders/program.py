"""A contender's program: takes commands, counts what it heard, says what it cost.

``python -m benchmarks.contenders.<name> ROLE`` with ROLE ``source`` or ``listener``. Standard
library only: peers run in environments of their own.

``BENCH_URL`` says where its server is; ``BENCH_FORM`` which form of the contender is meant, where
it has several (``nats:jetstream`` runs the program ``nats`` in the form ``jetstream``). Each line
on standard input is a JSON object, ``{"do": NAME, ...arguments}``, and is answered by a line on
standard output, ``{"ok": {...}}`` or ``{"error": "..."}``. The end of the input ends the program.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TextIO

STAMP = 20
"""Digits of the time of sending, with which each body begins: CLOCK_MONOTONIC in ns."""
MOST = 20_000
"""Measurements that one answer carries at the most."""

Answer = dict[str, Any]
log = logging.getLogger(__name__)


def body(size: int) -> bytes:
    """A body of ``size`` bytes, stamped with the present time; at least the stamp."""
    return b"%020d" % time.monotonic_ns() + _filling(size)


def _filling(size: int) -> bytes:
    known = _FILLINGS.get(size)
    if known is None:
        known = _FILLINGS[size] = b"x" * max(0, size - STAMP)
    return known


_FILLINGS: dict[int, bytes] = {}


def thinned(values: Sequence[float], most: int = MOST) -> list[float]:
    """At most so many of the values, evenly spread over their ranks; sorted where any are left out.

    Percentiles of what is left are those of all, within a rank of ``len(values) / most``.
    """
    if len(values) <= most:
        return list(values)
    ranked, step = sorted(values), len(values) / most
    return [ranked[int(step * (i + 0.5))] for i in range(most)]


class Stopwatch:
    """Wall time and CPU of this process since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic_ns()
        self._cpu = time.process_time_ns()

    @property
    def seconds(self) -> float:
        """Wall time."""
        return (time.monotonic_ns() - self._began) / 1e9

    @property
    def cpu_us(self) -> float:
        """CPU of all threads, user and system."""
        return (time.process_time_ns() - self._cpu) / 1e3

    def answer(self, **more: object) -> Answer:
        """Both as an operation answers them, with what else it has to say."""
        return {"seconds": self.seconds, "cpu_us": self.cpu_us, **more}


class Heard:
    """What the handlers of one process were handed, and when. Threads may share it."""

    def __init__(self) -> None:
        self._nows: list[int] = []
        self._stamps: list[bytes] = []
        self._wanted = 0
        self._loop = asyncio.get_running_loop()
        self._reached = asyncio.Event()
        self.watch = Stopwatch()

    def take(self, data: bytes) -> None:
        """A handler calls this, first thing, with the body that it was handed."""
        self._nows.append(time.monotonic_ns())
        self._stamps.append(data[:STAMP])
        if len(self._nows) == self._wanted:
            self._loop.call_soon_threadsafe(self._reached.set)

    @property
    def count(self) -> int:
        """Deliveries that were not collected yet."""
        return len(self._nows)

    async def collect(self, count: int, timeout: float) -> Answer:
        """Wait for ``count`` deliveries since the last time; TimeoutError says how many came."""
        self._reached.clear()
        self._wanted = count
        if len(self._nows) < count:
            try:
                await asyncio.wait_for(self._reached.wait(), timeout)
            except TimeoutError:
                raise TimeoutError(
                    f"{len(self._nows):,} of {count:,} deliveries after {timeout:g} s"
                ) from None
        cpu = self.watch.cpu_us
        nows, stamps = self._nows[:count], self._stamps[:count]
        del self._nows[:count], self._stamps[:count]
        latencies = [(now - int(stamp)) / 1e3 for now, stamp in zip(nows, stamps, strict=True)]
        answer = {
            "deliveries": count,
            "latencies_us": thinned(latencies),
            "sent_ns": int(stamps[0]) if stamps else 0,
            "first_ns": nows[0] if nows else 0,
            "last_ns": nows[-1] if nows else 0,
            "cpu_us": cpu,
        }
        self.watch = Stopwatch()
        return answer


class Side:
    """One process of a contender, in one role."""

    operations: ClassVar[frozenset[str]] = frozenset({"profile", "profiled"})
    """Names of the coroutine methods that may be asked for; they take and return what JSON has."""

    def __init__(self, url: str, form: str) -> None:
        self.url = url
        self.form = form
        self._profile = cProfile.Profile()

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Disconnect."""

    async def profile(self) -> None:
        """Count what functions of this thread take, from now on."""
        self._profile = cProfile.Profile()
        self._profile.enable()

    async def profiled(self) -> Answer:
        """What they took since: of each its file, name and calls, its own seconds by caller's file.

        What is written in C has ``~`` for a file.
        """
        self._profile.disable()
        self._profile.create_stats()
        stats = self._profile.stats
        return {
            "functions": [
                [file, name, calls, own, [[of[0], took[2]] for of, took in callers.items()]]
                for (file, _, name), (_, calls, own, _, callers) in stats.items()
            ]
        }


class Listener(Side):
    """The process of listeners."""

    operations = Side.operations | {"listen", "collect", "counted", "answer", "stop"}

    def __init__(self, url: str, form: str) -> None:
        super().__init__(url, form)
        self.heard = Heard()

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """Start ``each`` listeners on each subject; return when all of them will hear a send.

        ``handler``: ``plain`` or ``async``, where the contender knows both. Each delivery calls
        ``self.heard.take(body)`` first thing.
        """
        raise NotImplementedError

    async def answer(self, subjects: list[str]) -> None:
        """Answer each question that is asked on these subjects at once, with its own body."""
        raise NotImplementedError

    async def collect(self, count: int, timeout: float = 60.0) -> Answer:
        """What was heard; see :meth:`Heard.collect`."""
        return await self.heard.collect(count, timeout)

    async def counted(self) -> Answer:
        """How many deliveries there were since they were last collected."""
        return {"deliveries": self.heard.count}


class Source(Side):
    """The process of a source. A contender implements ``open``, ``send`` and ``dialog``."""

    operations = Side.operations | {"open", "one_by_one", "many", "ask", "close"}

    async def open(self, subjects: list[str], per_subject: int) -> None:
        """Open so many channels on each subject, or what corresponds."""
        raise NotImplementedError

    async def send(self, index: int, data: bytes) -> None:
        """Send on channel ``index`` modulo their number; return when it was acknowledged."""
        raise NotImplementedError

    async def dialog(self, subject: str, data: bytes) -> None:
        """Open, ask, and return when the response is here."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Close what the last dialog left open; its time is not the dialog's."""

    async def close(self) -> None:
        """Close what was opened."""

    async def one_by_one(self, count: int, size: int, pause_us: float) -> Answer:
        """Send one after another, with a pause between; the time that each send took."""
        took: list[float] = []
        pause, now = pause_us / 1e6, time.monotonic_ns
        watch = Stopwatch()
        for index in range(count):
            began = now()
            await self.send(index, body(size))
            took.append((now() - began) / 1e3)
            if pause:
                await asyncio.sleep(pause)
        return watch.answer(send_us=thinned(took))

    async def many(self, count: int, size: int, in_flight: int) -> Answer:
        """Acknowledged sends, so many at a time."""
        indices = iter(range(count))
        watch = Stopwatch()

        async def sender() -> None:
            for index in indices:
                await self.send(index, body(size))

        await asyncio.gather(*(sender() for _ in range(in_flight)))
        return watch.answer()

    async def ask(self, subject: str, count: int, size: int) -> Answer:
        """Whole dialogs, one after another."""
        took: list[float] = []
        now = time.monotonic_ns
        watch = Stopwatch()
        for _ in range(count):
            began = now()
            await self.dialog(subject, body(size))
            took.append((now() - began) / 1e3)
            await self.settle()
        return watch.answer(round_trip_us=thinned(took))


Make = Callable[[str, str], Side]
"""Makes a side, from the server's URL and the form."""
MakeLoop = Callable[[], asyncio.AbstractEventLoop]


def main(*, source: Make, listener: Make, loop: MakeLoop | None = None) -> None:
    """Run the role that the command line names until standard input ends, on a loop of asyncio's.

    ``loop`` makes another one.
    """
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    make = {"source": source, "listener": listener}[sys.argv[1]]
    # What a library prints must not end up among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_serve(make, answers))


async def _serve(make: Make, answers: TextIO) -> None:
    try:
        side = make(os.environ["BENCH_URL"], os.environ.get("BENCH_FORM", ""))
        await side.start()
    except Exception as error:
        log.exception("it could not start")
        _say(answers, {"error": f"it could not start: {type(error).__name__}: {error}"})
        return
    lines = _lines()
    while line := await lines.get():
        _say(answers, await _obey(side, json.loads(line)))
    await side.stop()


def _lines() -> asyncio.Queue[str]:
    """Lines of standard input as they come, an empty one at its end.

    Read by a thread, which any event loop allows, and which costs nothing while it waits.
    """
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, name="commands", daemon=True).start()
    return lines


async def _obey(side: Side, command: dict[str, Any]) -> Answer:
    name = command.pop("do")
    if name not in side.operations:
        known = ", ".join(sorted(side.operations))
        return {"error": f"{name!r} is no operation of this program (it knows {known})"}
    try:
        return {"ok": await getattr(side, name)(**command) or {}}
    except Exception as error:
        log.exception("%s failed", name)
        return {"error": f"{name}: {type(error).__name__}: {error}"}


def _say(answers: TextIO, answer: Answer) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
