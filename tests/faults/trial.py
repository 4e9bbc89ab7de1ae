"""A trial: one case, played in a process of its own, and bounded in time.

``python -m tests.faults.trial`` is that process. It takes its case as a JSON object in its one
argument and says its report as one line of JSON; whatever else it says is kept for those who
have to understand a failure. A case that is not over in time is told by what it awaits.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.faults.case import CASES, MACHINE, Case, Extent, Report, sow
from tests.stolen import WATCHER

CHECKOUT = Path(__file__).resolve().parents[2]
BOUNDS = {Extent.SHORT: 90.0, Extent.USUAL: 600.0, Extent.LONG: 4 * 3600.0}
"""Seconds after which a case counts as hung."""
GRACE = 10.0
"""Seconds in which a case that was called off has to end its servers and processes."""
LINE = 64 * 1024 * 1024
"""Bytes of the longest report."""
SAID = 4000
"""Characters of what a process said that are shown where it failed."""


@dataclass
class Trial:
    """A case that was played."""

    case: Case
    report: Report
    seconds: float

    @property
    def violations(self) -> list[str]:
        """Broken promises; a case that shows nothing is one, too."""
        report = self.report
        if report.violations:
            return report.violations
        if not report.runs:
            return ["nothing was broken"]
        return [] if +report.checked else ["nothing was checked"]


# Whoever has it played --------------------------------------------------------------------------


async def play(case: Case, extent: Extent, seed: int, bound: float | None = None) -> Trial:
    """Play a case in a process of its own; ``bound``: seconds, by default those of its extent."""
    bound = BOUNDS[extent] if bound is None else bound
    part = {"case": case.name, "extent": extent.name, "seed": seed, "bound": bound}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+b") as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.trial", json.dumps(part),
            stdin=DEVNULL, stdout=PIPE, stderr=said, limit=LINE, cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, start_new_session=True,
        )  # fmt: skip
        try:
            report = await _report_of(process, bound)
        except BaseException:
            _kill(process)
            raise
        finally:
            await _end(process)
        if report.violations:
            said.seek(0)
            text = said.read().decode(errors="replace").strip()[-SAID:]
            report.violations += [f"its process said at last:\n{text}"] if text else []
    return Trial(case, report, time.monotonic() - began)


async def _report_of(process: Process, bound: float) -> Report:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(bound + 3 * GRACE):
            line = await process.stdout.readline()
    except TimeoutError:
        # It writes down where its threads are.
        process.send_signal(signal.SIGABRT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await process.wait()
        return Report(violations=[f"hung: its process did not answer for {bound + 3 * GRACE:g} s"])
    if not line:
        return Report(violations=[f"its process ended with status {await process.wait()}"])
    said = json.loads(line)
    said["checked"], said["lost"] = Counter(said["checked"]), Counter(said["lost"])
    return Report(**said)


async def _end(process: Process) -> None:
    """End it with all that it started and did not end; redis-servers die with it."""
    if process.returncode is None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await process.wait()
    _kill(process)
    await process.wait()


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


# The process in which it is played --------------------------------------------------------------


async def bounded(case: Case, extent: Extent, bound: float) -> Report:
    """Play a case here; one that fails, or is not over in time, is a broken promise."""
    left: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: left.append(_told(what)))
    playing = asyncio.ensure_future(case.play(extent))
    await asyncio.wait({playing}, timeout=bound)
    if not playing.done():
        report = Report(violations=[f"hung: not over after {bound:g} s", *awaited()])
        playing.cancel()
        await asyncio.wait({playing}, timeout=GRACE)
        return report
    error = playing.exception()
    if error is not None:
        return Report(violations=["failed:\n" + "".join(traceback.format_exception(error))])
    report = playing.result()
    report.violations += left
    return report


def _told(what: dict[str, Any]) -> str:
    error = what.get("exception")
    trace = "" if error is None else "\n" + "".join(traceback.format_exception(error))
    return f"nobody took this up: {what['message']}{trace}"


def awaited() -> Iterator[str]:
    """What each task awaits, and where each thread is; the same is told once."""
    mine = asyncio.current_task()
    tasks = Counter(" < ".join(chain(each)) for each in asyncio.all_tasks() if each is not mine)
    for where, many in tasks.items():
        yield f"{many} x {where}"
    silent = {each.ident for each in threading.enumerate() if each.name == WATCHER}
    silent.add(threading.get_ident())
    for thread, frame in sys._current_frames().items():
        ours = [
            f"{Path(each.filename).relative_to(CHECKOUT)}:{each.lineno} {each.name}"
            for each in traceback.extract_stack(frame)
            if is_ours(each.filename)
        ]
        if ours and thread not in silent:
            yield "a thread at " + " < ".join(reversed(ours))


def is_ours(file: str) -> bool:
    """Whether it is one of the checkout's own."""
    return Path(file).is_relative_to(CHECKOUT) and ".venv" not in Path(file).parts


def chain(task: asyncio.Task[Any]) -> Iterator[str]:
    """From what a task awaits to its beginning: functions of the checkout, with their lines."""
    frames: list[FrameType] = []
    each: Any = task.get_coro()
    while each is not None:
        frame = getattr(each, "cr_frame", None) or getattr(each, "ag_frame", None)
        if frame is None:
            break
        frames.append(frame)
        each = getattr(each, "cr_await", None) or getattr(each, "ag_await", None)
    for frame in reversed(frames):
        code = frame.f_code
        if is_ours(code.co_filename):
            file = Path(code.co_filename).relative_to(CHECKOUT)
            yield f"{file}:{frame.f_lineno} {code.co_qualname}"


def main() -> None:
    import tests.faults.cases  # noqa: F401 - makes all cases known

    faulthandler.enable()
    part = json.loads(sys.argv[1])
    said = os.dup(1)
    os.dup2(2, 1)
    sow(part["seed"])
    MACHINE.watch()

    async def report() -> None:
        seen = await bounded(CASES[part["case"]], Extent[part["extent"]], part["bound"])
        # Before the loop ends: a thread that hangs would hold that up.
        with os.fdopen(said, "w") as out:
            out.write(json.dumps(vars(seen)) + "\n")

    asyncio.run(report())


if __name__ == "__main__":
    main()
