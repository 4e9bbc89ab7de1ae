"""``make fuzz``: a coverage-guided fuzzer on each parser, a process each, for so many seconds.

What it found worth keeping stays in ``.fuzz/<parser>``, where the next run begins. Input that broke
a parser is there too, as ``crash-…``, and is named; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.parsers import PARSERS

CORPUS = Path(__file__).parents[2] / ".fuzz"
SLOWEST = 10
"""Seconds after which an input is taken to hang."""
_DONE = re.compile(r"Done (\d+) runs")


def folder_of(name: str) -> Path:
    """Where a parser's input is kept, with its seeds."""
    folder = CORPUS / re.sub(r"\W", "-", name)
    folder.mkdir(parents=True, exist_ok=True)
    for seed in PARSERS[name].seeds:
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    return folder


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one parser in a process of its own; whether it stood."""
    folder = folder_of(name)
    run = subprocess.run(
        (
            *(sys.executable, "-m", "tests.fuzz.target", name, str(folder)),
            *(f"-max_total_time={seconds}", f"-timeout={SLOWEST}", "-max_len=4096"),
            f"-artifact_prefix={folder}/",
        ),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    done = _DONE.search(run.stderr)
    runs = f"{int(done[1]):,} runs" if done else "broken off"
    print(f"{name:16} {runs:>20}  {'stood' if run.returncode == 0 else 'BROKE'}", flush=True)
    if run.returncode != 0:
        print(run.stdout[-2000:], run.stderr[-4000:], sep="\n", file=sys.stderr)
    return run.returncode == 0


def main() -> int:
    """Returns the exit status."""
    words = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    words.add_argument("parsers", nargs="*", metavar="PARSER", help=", ".join(PARSERS))
    words.add_argument("--seconds", type=int, default=30, help="for each parser")
    asked = words.parse_args()
    unknown = set(asked.parsers) - set(PARSERS)
    if unknown:
        words.error(f"no such parser: {', '.join(sorted(unknown))}; there are {', '.join(PARSERS)}")
    stood = [fuzz(name, asked.seconds) for name in asked.parsers or PARSERS]
    return 0 if all(stood) else 1


if __name__ == "__main__":
    sys.exit(main())
