"""The backend ``tympan``: asks the bridge what stands against a job, and has the inner one print.

A queue's device URI is ``tympan:`` and the inner one's, ``tympan:ipp://printer/ipp/print``. The
inner backend gets what cupsd would have given it, and its messages reach cupsd; what it says of
the printer's state reaches the bridge, too, which may have questions about it.

What becomes of a job, by exit status: that of the inner backend; 5 (canceled at the printer) and
3 (held) by an answer; 1 where cupsd stopped it. Without a bridge it prints or holds, as the
setting ``without_bridge`` says; a job that is known to wait for an answer is held.

A job is rather asked about twice than printed twice. Where cupsd was killed, what waits for an
answer ends; what prints goes on only if it has the whole document, and the next run of that job
waits for it and takes over how it ended. With only a part of the document it is ended: what the
filters had still to say died with cupsd, and the job has to be printed anew.

Nothing but the standard library: cupsd starts it for each job.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from workers.cups.file import DEFAULT, Place, SettingsFault
from workers.cups.installation.launchers import SCHEME
from workers.cups.printing import slip
from workers.cups.printing.inner import SERVER_BIN, Inner, Unfit, channels, inner_uri, shown
from workers.cups.printing.inner import program as program_of
from workers.cups.printing.run import FAILED, HOLD, STOP, Printing, tell
from workers.cups.printing.run_file import FOLDER, RunFile, name_of

_MARK = re.compile(r"(?:^|\s)(?:job-uuid|time-at-creation)=(\S+)")


def _text(word: str) -> str:
    """What was no UTF-8 cannot be told as it is."""
    return os.fsencode(word).decode(errors="replace")[: slip.LONGEST_WORD]


def _job(argv: list[str], environ: dict[str, str]) -> dict[str, Any]:
    """What the bridge is told of the job. Raises ValueError for words that are none of a job's."""
    number, owner, title, copies, options, *files = argv[1:]
    size = None
    if files:
        with contextlib.suppress(OSError):  # nobody knows the size then
            size = sum(Path(file).stat().st_size for file in files)
    return {
        "job": int(number),
        "mark": "/".join(_MARK.findall(options))[: slip.LONGEST_WORD],
        "printer": _text(environ.get("PRINTER", "")),
        "owner": _text(owner),
        "title": _text(title),
        "copies": int(copies),
        "options": os.fsencode(options).decode(errors="replace"),
        "size": size,
    }


def _settings(path: str | os.PathLike[str]) -> Place:
    try:
        return Place.read(path)
    except SettingsFault as error:
        tell(f"ERROR: {error}")
        return Place()


def main(settings: str | os.PathLike[str] = DEFAULT) -> int:
    """Print one job, as cupsd has its backends do it; without arguments, say what this is."""
    argv, environ, passed = sys.argv, dict(os.environ), channels()
    if len(argv) == 1:
        print(f'network {SCHEME} "Unknown" "Tympan: asks people first ({SCHEME}:ipp://…)"')
        return 0
    if len(argv) < 6:
        return _misused(argv)
    uri = environ.get("DEVICE_URI", argv[0])
    try:
        inner = inner_uri(uri)
        program = program_of(Path(environ.get("CUPS_SERVERBIN", SERVER_BIN)), inner)
    except Unfit as error:
        tell(f"ERROR: {error}")
        return STOP
    try:
        job = _job(argv, environ)
    except ValueError:
        return _misused(argv)
    if len(argv[5]) > slip.LONGEST_OPTIONS:  # what is not looked at might be what is asked about
        tell(
            f"ERROR: The job is held: its options have {len(argv[5]):,} characters, "
            f"and Tympan looks at up to {slip.LONGEST_OPTIONS:,}"
        )
        return HOLD
    place = _settings(settings)
    account = _become_owner(place.spool)

    def start(lock: int) -> Inner:
        return Inner(
            program,
            [shown(inner), *argv[1:]],
            environ | {"DEVICE_URI": inner},
            [*passed, *([lock] if lock >= 0 else [])],
            account,
            feeds=len(argv) == 6,
        )

    what = job["mark"], *(Path(file).name for file in argv[6:])
    run_file = RunFile(place.spool / FOLDER / name_of(job["job"], *what))
    reasons = environ.get("PRINTER_STATE_REASONS", "")
    printing = Printing(place, job, start, run_file, reasons)
    ring, bell = _bell()
    signal.signal(signal.SIGTERM, lambda *_: setattr(printing, "is_stopped", True))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    return printing.run(ring)


def _misused(argv: list[str]) -> int:
    tell(f"ERROR: Usage: {argv[0]} job-id user title copies options [file]")
    return FAILED


def _bell() -> tuple[int, int]:
    """A pipe that a signal writes to."""
    ring, bell = os.pipe()
    os.set_blocking(ring, False)
    os.set_blocking(bell, False)
    return ring, bell


def _become_owner(spool: Path) -> tuple[int, int] | None:
    """Who is run as root is the spool's owner from here on, but where the inner one wants root."""
    if os.geteuid() != 0:
        return None
    try:
        facts = spool.stat()
    except OSError as error:
        tell(f"ERROR: There is no spool: {error}")
        return None
    os.setegid(facts.st_gid)
    os.seteuid(facts.st_uid)
    return facts.st_uid, facts.st_gid
