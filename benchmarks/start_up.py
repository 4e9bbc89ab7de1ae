"""Start-up: wall time of the command line's help, of an import of ``broker``, of all it needs.

What needs pydantic or redis comes when it is first asked for, and both at the latest when a broker
connects. Interleaved with an interpreter that does nothing, from compiled files of its own making.
What the ``telemetry`` extra brings is kept out: redis-py imports it wherever it is installed.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections import defaultdict
from collections.abc import Mapping, Sequence

from benchmarks.party import CHECKOUT, ContenderFailed

_WITHOUT = "import sys; sys.modules['opentelemetry'] = None; "
NOTHING = _WITHOUT + "pass"
BROKER = _WITHOUT + "import broker"
CONNECTING = "; from broker import *; import broker._topology"
"""What connecting and declaring models needs, with every public name."""
WHOLE = BROKER + CONNECTING
IN_ORDER = _WITHOUT + "import redis.asyncio, pydantic; pydantic.BaseModel" + CONNECTING
"""The same, where what redis and pydantic need as well is imported by them."""
HELP = _WITHOUT + "sys.argv = ['tympan', '--help']; from workers.cli import main; sys.exit(main())"
_TIMED = re.compile(r"^import time:\s*(\d+) \|\s*(\d+) \|( +)(\S+)$", re.MULTILINE)
FOREIGN = ("redis", "pydantic")


class StartUp:
    """Interpreters that start; enter it for a folder of compiled files."""

    def __init__(self) -> None:
        self._compiled = tempfile.TemporaryDirectory()

    def __enter__(self) -> StartUp:
        return self

    def __exit__(self, *_: object) -> None:
        self._compiled.cleanup()

    async def milliseconds(self, code: str) -> float:
        """Wall time of an interpreter that runs this. Raises ContenderFailed."""
        began = time.perf_counter()
        await self._run("-c", code)
        return (time.perf_counter() - began) * 1000

    async def share(self, code: str) -> float:
        """Of the time that imports take, how much is redis and pydantic, and what they import."""
        return share_of(await self._run("-X", "importtime", "-c", code), FOREIGN)

    async def _run(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments,
            stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, cwd=CHECKOUT, env=self._environment,
        )  # fmt: skip
        _, said = await process.communicate()
        if process.returncode:
            raise ContenderFailed(f"python {arguments[-1]!r} ended with {process.returncode}")
        return said.decode()

    @property
    def _environment(self) -> Mapping[str, str]:
        """As users have it, where their files are compiled."""
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return {**kept, "PYTHONPYCACHEPREFIX": self._compiled.name}


def share_of(report: str, packages: Sequence[str]) -> float:
    """The share of the packages, with what they import first, in a report of ``-X importtime``.

    A module's line follows those of what it imported, which are indented further.
    """
    spent: dict[bool, float] = defaultdict(float)
    above: list[tuple[int, bool]] = []
    for found in reversed(_TIMED.findall(report)):
        own, depth, name = float(found[0]), len(found[2]), found[3]
        while above and above[-1][0] >= depth:
            above.pop()
        is_theirs = name.split(".")[0] in packages or bool(above and above[-1][1])
        above.append((depth, is_theirs))
        spent[is_theirs] += own
    return spent[True] / (spent[True] + spent[False])
