"""The file of a running job: nobody prints it a second time meanwhile, or when it was printed.

A cupsd that was killed prints again, when it is back, what it was printing; the backend that it
ran before may still be at it. Both belong to one job, and so to one file: who prints holds its
lock, and leaves a word in it when the whole job was printed and no cupsd was there to be told.

Nothing but the standard library: cupsd starts what uses it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import time
from pathlib import Path

FOLDER = "runs"
"""Below the spool."""
_PRINTED = b"printed"
_MOST = 100
_OF_PROGRAM = 3
"""Words of a command: the interpreter, its options, the backend."""


def name_of(job: int, *what: str) -> str:
    """The file's name for a job, and for the document of it that is printed."""
    digest = hashlib.blake2b("\0".join(what).encode("utf-8", "surrogatepass"), digest_size=12)
    return f"{job}-{digest.hexdigest()}"


class RunFile:
    """One of them. Its lock is the inner backend's, too: it holds while either of the two lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor = -1

    def lock(self) -> bool:
        """Whether nobody else prints this job now. Raises OSError where there can be no file."""
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            opened = os.open(self._path, flags, 0o600)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(opened)
                return False
            if os.fstat(opened).st_nlink:
                self.descriptor = opened
                return True
            os.close(opened)  # who had it before took the file away

    def was_printed(self) -> bool:
        """Whether the job was printed, and nobody told. Who asks takes it upon him to tell."""
        return os.pread(self.descriptor, _MOST, 0) == _PRINTED

    def begin(self) -> None:
        """This process prints it now."""
        self._write(f"{os.getpid()} {_started(os.getpid())}".encode())

    def leave_printed(self) -> None:
        """It was printed, and there is nobody to be told."""
        self._write(_PRINTED)
        os.fsync(self.descriptor)

    def remove(self) -> None:
        """It is over, and cupsd is told."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self.descriptor)
        self.descriptor = -1

    def stop_other(self) -> None:
        """Have who prints it stop: its job is not wanted any more."""
        try:
            words = self._path.read_bytes()[:_MOST].split()
            pid, started = int(words[0]), words[1].decode()
        except (OSError, ValueError, IndexError):
            return
        if _started(pid) == started and _program(pid) == _program(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _write(self, words: bytes) -> None:
        os.pwrite(self.descriptor, words, 0)
        os.ftruncate(self.descriptor, len(words))


def sweep(folder: Path, older_than: float) -> None:
    """Delete what nobody asked for in so many seconds: jobs that were not printed again."""
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):  # somebody else did, or may
            if time.time() - path.stat().st_mtime > older_than:
                file = RunFile(path)
                if file.lock():
                    file.remove()


def _program(pid: int) -> list[bytes]:
    """What a process runs: the file is no root's, and a backend that is may end anything."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:_OF_PROGRAM]
    except OSError:
        return []


def _started(pid: int) -> str:
    """When a process was started, which tells it from a later one of its number."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
        return facts.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "?"
