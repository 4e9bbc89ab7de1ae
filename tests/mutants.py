"""Mutants: does some test notice when a guard is taken out of a script?

``python -m tests.mutants`` changes one thing in one Lua file at a time (see
:mod:`tests.mutations`) and runs the tests that call that script on the changed copy, until one is
red. A mutant that no test notices SURVIVED: either a test is missing, or what was changed is not
needed. Those that cannot be noticed because they mean the same are listed below, with the reason.

Nothing in the project's own folders is touched. Status 1 where any mutant survived that is not on
that list.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker import _scripts
from tests import lua_source
from tests.mutant_plugin import VARIABLE
from tests.mutations import Mutant, mutants_of
from tests.scripts.analysis import ENTRIES, FILES
from tests.servers import RedisServer

CHECKOUT = Path(__file__).resolve().parents[1]
SELECTION = (
    "tests/scripts",
    "tests/conformance",
    "tests/redis/test_broker_close.py",
    "tests/redis/test_full_redis.py",
    "tests/redis/test_large_bodies.py",
    "tests/redis/test_lost_replies.py",
    "tests/redis/test_printers.py",
    "tests/redis/test_rights.py",
    "tests/redis/test_takes.py",
    "tests/redis/test_bells.py",
    "tests/redis/test_state_machine.py",
)
"""Tests of what scripts do. Those of failing servers take long, and would be red by chance."""
FIRST = ("tests/scripts/test_guards", "tests/scripts/test_effects")
"""How the files begin whose tests are there for single guards and writes."""
SHORT = {"TYMPAN_EXAMPLES": "30", "TYMPAN_SHRINK": "0"}
"""Environment of the tests: the state machines try fewer examples."""

EQUIVALENT: dict[str, str] = {
    "hello: `<=` for `<` in `deadline and math.max(deadline, (epoch or 0) + (grace or 0)) < now`": (
        "differs for one millisecond, in which either answer is right"
    ),
    "sweep: `>=` for `>` in `now > epoch + redis.call('HGET', meta, 'grace')`": (
        "differs for one millisecond, in which either answer is right"
    ),
    "shared/guard: `<=` for `<` in `math.max(deadline, epoch_known + grace) < now`": (
        "differs for one millisecond, in which either answer is right"
    ),
    "fetch: no `not found[1]` in `not found or not found[1]`": (
        "what the in-memory double of old answers; mutants are judged on a real server"
    ),
    "fetch: always `is_there(stream, one)`": (
        "Redis 7 claims nothing that is not there any more; the ones before do"
    ),
    "fetch: `<=` for `<` in `first and (due < 0 or first - now < due)` (2)": (
        "what is due at the same time is due at the same time"
    ),
    "replay: no `not is_board` in `not is_board and tonumber(space) <= number`": (
        "a board's room is infinite, and so never full"
    ),
    "shared/append: `>=` for `>` in `size + #head + #body > BELL_MOST`": (
        "differs for a bell of just so many bytes, which may be one or two"
    ),
    "uni_send: no `kept == 'ref'` in `kept == 'ref' and redis.call('EXISTS', body) == 0`": (
        "where the body travels in the call, the channel's own key stands in for the body's"
    ),
    "uni_send: always `here > 0`": "spares reads of a stream that is not written",
    "uni_send: `>=` for `>` in `here > 0`": "spares reads of a stream that is not written",
    "uni_send: always `pool ~= ''`": "spares a read: an audience's room stands for what is idle",
    "shared/pool: never `#found == tonumber(many)`": (
        "spares the making of ids that XPENDING told already"
    ),
    "shared/pool: never `not woken`": (
        "a bell at no channel is an error, which pcall takes: nobody is woken either way"
    ),
}
"""Mutants that mean the same as the original, each with the reason."""


@dataclass
class Verdict:
    """What became of one mutant."""

    mutant: Mutant
    killer: str | None
    """The test that noticed."""
    seconds: float
    why: str
    """Where none did."""

    @property
    def survived(self) -> bool:
        return self.killer is None and self.mutant.name not in EQUIVALENT

    def __str__(self) -> str:
        where = f"{self.mutant.file}.lua:{self.mutant.line}"
        if self.killer is not None:
            end = f"killed by {self.killer}"
        elif self.survived:
            end = f"SURVIVED ({self.why})"
        else:
            end = f"equivalent: {EQUIVALENT[self.mutant.name]}"
        return f"{where:<26} {self.mutant.change}\n{'':<26} {end} [{self.seconds:.1f} s]"


@dataclass
class Tests:
    """The tests that can tell mutants apart, by what they did on the unchanged files."""

    facts: dict[str, dict[str, Any]]
    killers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many mutants of a file each test noticed."""
    trusted: set[str] = field(default_factory=set)
    """Tests that noticed a mutant, and then were green again without it."""

    def for_file(self, file: str) -> list[str]:
        """Those that run the code of a file; first those that noticed other changes of it."""
        scripts = callers_of(file)
        chosen = [
            name
            for name, facts in self.facts.items()
            if facts["passed"] and scripts & set(facts["scripts"])
        ]

        def rank(name: str) -> tuple[int, bool, float]:
            seconds: float = self.facts[name]["seconds"]
            return -self.killers[file, name], not name.startswith(FIRST), seconds

        return sorted(chosen, key=rank)


def callers_of(file: str) -> set[str]:
    """The scripts that a file is part of."""
    return {name for name in ENTRIES if name == file or file in lua_source.includes_of(name)}


async def run_tests(
    lua: Path | None, tests: Sequence[str] | None, limit: float
) -> dict[str, dict[str, Any]]:
    """Run tests on these Lua files until one is red, or the time is up: what the plugin saw."""
    files: Sequence[str] = SELECTION
    if tests is not None:
        files = list(dict.fromkeys(name.split("::")[0] for name in tests))
    with tempfile.TemporaryDirectory(prefix="tympan-mutant-") as scratch:
        report = Path(scratch) / "report.json"
        order = {"lua": str(lua or ""), "tests": tests, "report": str(report), "limit": limit}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pytest", "-q", "--tb=line", "--no-header",
            "-p", "no:cacheprovider", "-p", "no:rerunfailures", "-p", "tests.mutant_plugin",
            "-o", "addopts=", "-o", "timeout=60",
            *(("-x",) if tests is not None else ()), *files,
            cwd=CHECKOUT, env={**os.environ, **SHORT, VARIABLE: json.dumps(order)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode not in (0, 1, 2, 5) or not report.exists():
            text = output.decode(errors="replace")
            raise RuntimeError(f"pytest ended with status {process.returncode}:\n{text[-3000:]}")
        facts: dict[str, dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))
        if not facts:
            raise RuntimeError(f"no test ran:\n{output.decode(errors='replace')[-3000:]}")
        return facts


async def judge(mutant: Mutant, tests: Tests, redis: RedisServer, limit: float) -> Verdict:
    """Let the tests loose on one mutant: first those for single guards, then all others."""
    start = time.monotonic()
    chosen = tests.for_file(mutant.file)
    if not chosen:
        return Verdict(mutant, None, 0.0, "no test calls this")
    near = [name for name in chosen if name.startswith(FIRST)]
    ran = 0
    with tempfile.TemporaryDirectory(prefix="tympan-mutant-") as scratch:
        lua = Path(scratch) / "lua"
        shutil.copytree(str(_scripts.lua_folder()), lua)
        changed = lua / f"{mutant.file}.lua"
        changed.write_text(mutant.applied(lua_source.text_of(mutant.file)), encoding="utf-8")
        compile_all(lua, redis, callers_of(mutant.file))
        for stage in (near, [name for name in chosen if name not in near]):
            red, count = await first_red(stage, lua, tests, limit)
            ran += count
            if red is not None:
                tests.killers[mutant.file, red] += 1
                return Verdict(mutant, red, time.monotonic() - start, "")
    return Verdict(mutant, None, time.monotonic() - start, f"{ran} of {len(chosen)} tests ran")


async def first_red(
    chosen: list[str], lua: Path, tests: Tests, limit: float
) -> tuple[str | None, int]:
    """The first of these tests that notices, and how many ran."""
    while chosen:
        facts = await run_tests(lua, chosen, limit)
        red = next((name for name, fact in facts.items() if not fact["passed"]), None)
        if red is None or await is_to_be_trusted(red, lua, tests, limit):
            return red, len(facts)
        print(f"  red by chance, and used no more: {red}", flush=True)
        tests.facts[red]["passed"] = False
        chosen.remove(red)
    return None, 0


async def is_to_be_trusted(test: str, lua: Path, tests: Tests, limit: float) -> bool:
    """Whether a test that was red is red again on the mutant, and was green without it."""
    if test in tests.trusted:
        return True
    for folder_, is_green in ((lua, False), (None, True)):
        facts = await run_tests(folder_, [test], limit)
        if test not in facts or facts[test]["passed"] != is_green:
            return False
    if test.startswith(FIRST):
        tests.trusted.add(test)
    return True


def compile_all(lua: Path, redis: RedisServer, names: set[str]) -> None:
    """Raises redis.ResponseError where a mutant is no Lua: no test would have to notice that."""
    with folder(lua):
        for name in names:
            redis.cli("SCRIPT", "LOAD", _scripts.read(name))


@contextlib.contextmanager
def folder(lua: Path) -> Iterator[None]:
    """Read scripts from there."""
    own = _scripts.lua_folder
    _scripts.lua_folder = lambda: lua  # type: ignore[assignment]
    try:
        yield
    finally:
        _scripts.lua_folder = own


async def judge_all(mutants: Sequence[Mutant], jobs: int, limit: float) -> list[Verdict]:
    """All verdicts, each printed as it falls."""
    print("running the tests on the unchanged scripts ...", flush=True)
    facts = await run_tests(None, None, 1800)
    tests = Tests(facts)
    red = [name for name, fact in facts.items() if not fact["passed"]]
    print(
        f"{len(facts) - len(red)} tests can judge; {len(red)} are red without any change",
        flush=True,
    )
    for name in red:
        print(f"  red: {name}")
    verdicts: list[Verdict] = []
    queue = iter(mutants)
    with RedisServer() as redis:

        async def some() -> None:
            for mutant in queue:
                verdict = await judge(mutant, tests, redis, limit)
                verdicts.append(verdict)
                print(f"[{len(verdicts)}/{len(mutants)}] {verdict}", flush=True)

        await asyncio.gather(*(some() for _ in range(jobs)))
    return verdicts


def summary(verdicts: Sequence[Verdict]) -> str:
    """The end of the report: who survived, and what the list of equivalents is still worth."""
    survived = [verdict for verdict in verdicts if verdict.survived]
    killed = [verdict for verdict in verdicts if verdict.killer is not None]
    same = len(verdicts) - len(survived) - len(killed)
    lines = [str(verdict) for verdict in survived]
    noticed = [verdict.mutant.name for verdict in killed if verdict.mutant.name in EQUIVALENT]
    lines += [f"on the list of equivalents, and killed all the same: {name}" for name in noticed]
    return "\n".join([*lines, f"{len(killed)} killed, {len(survived)} survived, {same} equivalent"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the mutants; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "files", nargs="*", help="Lua files, as respond or shared/guard; default all"
    )
    parser.add_argument(
        "--change", default="", metavar="TEXT", help="only changes with this in them"
    )
    parser.add_argument("--list", action="store_true", help="list the mutants and stop")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="at once (default 2)")
    parser.add_argument(
        "--limit", type=float, default=180.0, metavar="S", help="seconds for one mutant"
    )
    given = parser.parse_args(arguments)
    unknown = set(given.files) - set(FILES)
    if unknown:
        parser.error(f"no Lua files: {', '.join(sorted(unknown))}; there are {', '.join(FILES)}")
    everything = [mutant for file in FILES for mutant in mutants_of(file)]
    stale = set(EQUIVALENT) - {mutant.name for mutant in everything}
    if stale:
        parser.error(
            "on the list of equivalents, and no mutant any more: " + "; ".join(sorted(stale))
        )
    chosen = [
        mutant
        for mutant in everything
        if mutant.file in (given.files or FILES) and given.change in mutant.change
    ]
    if given.list:
        for mutant in chosen:
            print(f"{mutant.file}.lua:{mutant.line:<4} {mutant.change}")
        return 0
    verdicts = asyncio.run(judge_all(chosen, given.jobs, given.limit))
    print("\n" + summary(verdicts))
    return 1 if any(verdict.survived for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
