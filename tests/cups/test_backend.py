"""The backend as cupsd runs it: a process of its own, an inner backend, and a bridge or none."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.cups.account import CHECKOUT, account
from workers.cups import backend
from workers.cups.file import Place
from workers.cups.installation.launchers import Launcher
from workers.cups.printing import run as printing
from workers.cups.printing import run_file, slip
from workers.cups.printing.held_note import notes
from workers.cups.printing.inner import Reasons, Unfit, inner_uri, shown
from workers.cups.printing.run_file import FOLDER, RunFile

PATIENCE = 20.0
OPTIONS = "sides=one-sided job-uuid=urn:uuid:11 time-at-creation=5"
MARK = "urn:uuid:11/5"


class Desk:
    """The bridge's end of the socket, in a test's hands."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.bind(str(path))
        self._socket.listen()
        self._path = path
        self._backend: socket.socket | None = None
        self._lines: Any = None
        self._opened: list[Any] = []

    def backend(self) -> dict[str, Any]:
        """Wait for one to come; returns its first line."""
        self._backend, _ = self._socket.accept()
        self._backend.settimeout(PATIENCE)
        self._lines = self._backend.makefile("rb")
        self._opened += [self._lines, self._backend]
        return self.hear()

    def lets_print(self) -> None:
        """Wait for one to come, and have it print."""
        self.backend()
        self.say("print")

    def hear(self) -> dict[str, Any]:
        """Its next line; empty where it has gone."""
        line = self._lines.readline()
        return slip.decode(line) if line else {}

    def hear_reasons(self, *reasons: str) -> None:
        """Wait until these are in force."""
        said = self.hear()
        while said["reasons"] != list(reasons):
            said = self.hear()

    def say(self, word: str, text: str = "") -> None:
        """Tell it a word."""
        assert self._backend is not None
        self._backend.sendall(slip.encode(word, text=text))

    def drop(self) -> None:
        """End the connection, as a bridge does that dies."""
        assert self._backend is not None
        self._lines.close()
        self._backend.close()

    def close(self) -> None:
        """End, as a bridge does in order."""
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        for one in self._opened:
            one.close()


class Run:
    """One run of the backend: its messages go to a pipe, as cupsd has one."""

    def __init__(self, command: list[str], environ: dict[str, str], stdin: Any, fds: Any) -> None:
        ours, theirs = os.pipe()
        self._said = os.fdopen(ours, "rb", buffering=0)
        self._rest = b""
        self.process = subprocess.Popen(
            command,
            env=environ,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            pass_fds=fds,
        )
        os.close(theirs)

    def message(self) -> str:
        """The next message; empty at the end."""
        while b"\n" not in self._rest:
            assert select.select([self._said], [], [], PATIENCE)[0], "no message came"
            data = self._said.read(4096)
            if not data:
                break
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def await_message(self, words: str) -> None:
        """Wait for a message with these words in it."""
        while words not in (said := self.message()):
            assert said, f"it ended without a word of {words!r}"

    def messages(self) -> list[str]:
        """All to the end."""
        return list(iter(self.message, ""))

    def orphan(self) -> None:
        """Read nothing any more, as a cupsd that was killed."""
        self._said.close()

    def status(self) -> int:
        """Its exit status."""
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """End it, if it has not."""
        self._said.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Stage:
    """A ServerBin with an inner backend ``fake``, a spool, and settings."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = root / "spool"
        self.settings = root / "cups.toml"
        self.backends = root / "bin/backend"
        for folder in (self.spool, self.backends):
            folder.mkdir(parents=True)
        self.configure()
        self.program = root / "tympan"
        launcher = Launcher("backend", self.settings, Path(sys.executable), CHECKOUT)
        self.program.write_text(launcher.text)
        self.program.chmod(0o755)
        self.runs: list[Run] = []
        self.document = root / "d00007-001"
        self.document.write_bytes(b"a page\n")
        self.fake("exit 0")

    def configure(self, **values: str) -> None:
        """Write the settings."""
        lines = {"spool": str(self.spool)} | values
        self.settings.write_text("".join(f'{name} = "{value}"\n' for name, value in lines.items()))
        self.settings.chmod(0o644)

    def hurry(self) -> None:
        """The backend waits for a bridge a moment only."""
        said = self.program.read_text()
        ahead = "import workers.cups.printing.run as p; p.COMES_BACK = p.COMES_BACK_TO_HOLD = 0.3\n"
        self.program.write_text(said.replace("sys.exit(", ahead + "sys.exit("))

    def fake(self, script: str) -> Path:
        """What the inner backend does, in sh; it notes each start in ``starts``."""
        path = self.backends / "fake"
        path.write_text(f"#!/bin/sh\ncd {self.root}\necho $$ >> starts\n{script}\n")
        path.chmod(0o755)
        return path

    def desk(self) -> Desk:
        """A bridge."""
        return Desk(self.spool / "counter")

    def run(
        self,
        *files: Path,
        uri: str = "tympan:fake://user:secret@printer/x",
        stdin: Any = subprocess.DEVNULL,
        fds: Any = (),
        reasons: str = "none",
        arguments: tuple[str, ...] = ("7", "alice", "a title", "2", OPTIONS),
    ) -> Run:
        """Start the backend, as cupsd does."""
        environ = {
            "PATH": os.environ["PATH"],
            "CUPS_SERVERBIN": str(self.root / "bin"),
            "DEVICE_URI": uri,
            "PRINTER": "laser-3",
            "PRINTER_STATE_REASONS": reasons,
        }
        command = [str(self.program), *arguments, *map(str, files)]
        self.runs.append(Run(command, environ, stdin, fds))
        return self.runs[-1]

    @property
    def starts(self) -> int:
        """How often the inner backend was started."""
        path = self.root / "starts"
        return len(path.read_text().split()) if path.exists() else 0

    @property
    def run_files(self) -> list[Path]:
        """Those that are there."""
        return list((self.spool / FOLDER).glob("*"))

    def printed(self) -> None:
        """Wait for the inner backend to have some of the document."""
        path = self.root / "printed"
        until(lambda: path.exists() and path.stat().st_size)

    def made(self, name: str) -> None:
        """Wait for the inner backend to make a file."""
        until((self.root / name).exists)


def until(holds: Callable[[], object]) -> None:
    """Wait for a condition."""
    due = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < due, "it did not come to pass"
        time.sleep(0.01)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ended(Stage(tmp_path)) as made:
        yield made


@pytest.fixture
def open_stage() -> Iterator[Stage]:
    """One that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="tympan-backend-") as folder:
        Path(folder).chmod(0o777)
        with ended(Stage(Path(folder))) as made:
            yield made


@contextlib.contextmanager
def ended(stage: Stage) -> Iterator[Stage]:
    """At the end none of its processes lives."""
    yield stage
    for run in stage.runs:
        run.end()
    for pid in (stage.root / "starts").read_text().split() if stage.starts else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


# What it is ---------------------------------------------------------------------------------------


def test_without_arguments_it_says_what_it_is(stage: Stage) -> None:
    done = subprocess.run([stage.program], capture_output=True, check=True, text=True)
    assert done.stdout.startswith('network tympan "Unknown" "Tympan: asks people first')
    assert done.stderr == ""


def test_it_loads_nothing_but_the_standard_library_and_little_of_that() -> None:
    """It is started for each job. -S has no site-packages at all."""
    asked = (
        f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\n"
        "import workers.cups.backend\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & "
        "{'asyncio', 'broker', 'pydantic', 'redis', 'logging', 'sqlite3', 'typing_extensions'})"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", asked], capture_output=True, check=True, text=True
    )
    assert done.stdout.split() == []


def test_words_that_are_no_job_are_refused(stage: Stage) -> None:
    run = stage.run(arguments=("7", "alice"))
    assert "Usage: " in run.message()
    assert run.status() == 1
    run = stage.run(arguments=("seven", "alice", "a title", "2", OPTIONS))
    assert "Usage: " in run.message()
    assert run.status() == 1
    assert stage.starts == 0


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("tympan:", "names no device to print on"),
        ("tympan://printer/", "names no device to print on"),
        ("tympan:tympan:ipp://x/", "names no device to print on"),
        ("tympan:../../bin/sh:x", "names no device to print on"),
        ("tympan:absent://x/", "there is no backend for absent"),
        ("ipp://printer/", "is no device of this backend"),
    ],
)
def test_a_device_that_is_none_stops_the_queue(stage: Stage, uri: str, sentence: str) -> None:
    run = stage.run(uri=uri)
    said = run.message()
    assert said.startswith("ERROR: ")
    assert sentence in said
    assert run.status() == 4


def test_a_job_with_more_options_than_are_looked_at_is_held(stage: Stage) -> None:
    padded = f"x={'y' * 20_000} print-color-mode=color"
    run = stage.run(stage.document, arguments=("7", "alice", "a title", "2", padded))
    said = run.message()
    assert "its options have 20,025 characters, and Tympan looks at up to 16,384" in said
    assert run.status() == 3
    assert stage.starts == 0


def test_uris_are_taken_apart() -> None:
    assert inner_uri("tympan:ipps://printer.example:631/ipp/print?a=b") == (
        "ipps://printer.example:631/ipp/print?a=b"
    )
    assert inner_uri("TYMPAN:usb://Make/Model") == "usb://Make/Model"
    assert shown("ipp://user:secret@printer/ipp") == "ipp://printer/ipp"
    assert shown("usb://Make/Model?a@b") == "usb://Make/Model?a@b"
    with pytest.raises(Unfit):
        inner_uri("tympan:IPP")


# Printing -----------------------------------------------------------------------------------------


def test_the_inner_backend_gets_what_cupsd_would_have_given_it(stage: Stage) -> None:
    stage.fake(
        'printf "%s|" "$0" "$@" > argv; echo "$DEVICE_URI $PRINTER $CUPS_SERVERBIN" > environ\n'
        "cat $6 > printed"
    )
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.lets_print()
        assert run.status() == 0
    words = (stage.root / "argv").read_text().split("|")[1:-1]
    assert words == ["7", "alice", "a title", "2", OPTIONS, str(stage.document)]
    assert (stage.root / "environ").read_text().split() == [
        "fake://user:secret@printer/x", "laser-3", str(stage.root / "bin")
    ]  # fmt: skip
    assert (stage.root / "printed").read_bytes() == b"a page\n"


def test_the_bridge_is_told_of_the_job(stage: Stage) -> None:
    with stage.desk() as desk:
        stage.run(stage.document)
        said = desk.backend()
    assert said == {
        "say": "job",
        "version": 1,
        "printing": False,
        "job": 7,
        "mark": MARK,
        "printer": "laser-3",
        "owner": "alice",
        "title": "a title",
        "copies": 2,
        "options": OPTIONS,
        "size": 7,
    }


def test_names_that_are_no_utf8_are_told_as_well_as_can_be(stage: Stage) -> None:
    title = os.fsdecode(b"caf\xe9 \xff")
    with stage.desk() as desk:
        stage.run(arguments=("7", "alice", title, "1", f"note={title[:4]}"))
        said = desk.backend()
    assert said["title"] == "caf� �"
    assert said["options"] == "note=caf�"


def test_a_document_of_any_size_goes_through_standard_input(stage: Stage) -> None:
    stage.fake("cksum > sum")
    document = os.urandom(3_000_000)
    (stage.root / "in").write_bytes(document)
    with stage.desk() as desk:
        with (stage.root / "in").open("rb") as source:
            feeder = subprocess.Popen(["cat"], stdin=source, stdout=subprocess.PIPE)
        run = stage.run(stdin=feeder.stdout)
        said = desk.backend()
        assert said["size"] is None
        desk.say("print")
        assert run.status() == 0
        assert feeder.stdout is not None
        feeder.stdout.close()
        feeder.wait()
    done = subprocess.run(["cksum"], input=document, capture_output=True, check=True)
    assert (stage.root / "sum").read_bytes() == done.stdout


def test_an_inner_backend_that_reads_little_ends_the_job(stage: Stage) -> None:
    stage.fake("head -c 10 > printed; exit 6")
    with stage.desk() as desk:
        with Path("/dev/zero").open("rb") as endless:
            run = stage.run(stdin=endless)
        desk.lets_print()
        assert run.status() == 6


def test_back_and_side_channel_are_inherited(stage: Stage) -> None:
    """They have the numbers 3 and 4."""
    stage.fake("echo back >&3; echo side >&4; ls -l /proc/self/fd > open")
    paths = [stage.root / "back", stage.root / "side"]
    opened = [os.open(path, os.O_WRONLY | os.O_CREAT) for path in paths]
    kept = {number: os.dup(number) for number in (3, 4) if _is_open(number)}
    with stage.desk() as desk:
        high = [os.dup2(number, 100 + i, inheritable=False) for i, number in enumerate(opened)]
        for number in opened:
            os.close(number)
        code = (
            "import os, sys; os.dup2(100, 3); os.dup2(101, 4); os.close(100); os.close(101)\n"
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        environ = {"PATH": os.environ["PATH"], "CUPS_SERVERBIN": str(stage.root / "bin"),
                   "DEVICE_URI": "tympan:fake://x", "PRINTER": "laser-3"}  # fmt: skip
        words = ["7", "alice", "t", "1", OPTIONS, str(stage.document)]
        command = [sys.executable, "-IS", "-c", code, str(stage.program), *words]
        run = Run(command, environ, subprocess.DEVNULL, tuple(high))
        stage.runs.append(run)
        for number in high:
            os.close(number)
        desk.lets_print()
        assert run.status() == 0
    for number in kept.values():
        os.close(number)
    assert [path.read_text() for path in paths] == ["back\n", "side\n"]


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def test_messages_reach_cupsd_as_they_are(stage: Stage) -> None:
    stage.fake('echo "STATE: +toner-low-warning"; printf "PAGE: 1 1\\nATTR: x=1\\nno end"; exit 0')
    path = stage.backends / "fake"
    path.write_text(path.read_text().replace("echo $$ >> starts", "echo $$ >> starts; exec >&2"))
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.lets_print()
        assert run.messages() == ["STATE: +toner-low-warning", "PAGE: 1 1", "ATTR: x=1", "no end"]
        assert run.status() == 0


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4, 5, 6, 7])
def test_its_exit_status_is_the_jobs(stage: Stage, status: int) -> None:
    stage.fake(f"exit {status}")
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.lets_print()
        assert run.status() == status
        assert desk.hear() == {"say": "reasons", "reasons": []}
        assert desk.hear() == {"say": "over", "status": status}
    assert stage.run_files == []


def test_one_that_is_killed_has_failed(stage: Stage) -> None:
    stage.fake("kill -9 $$")
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.lets_print()
        run.await_message("ended by signal 9")
        assert run.status() == 1


def test_the_printers_state_reaches_the_bridge(stage: Stage) -> None:
    stage.fake(
        'exec 1>&2; echo "STATE: +media-empty-error, media-needed-error"; read wait < go1\n'
        'echo "STATE: -media-empty-error"; read wait < go2; echo "STATE: none"; read wait < go3'
    )
    for name in ("go1", "go2", "go3"):
        os.mkfifo(stage.root / name)
    with stage.desk() as desk:
        run = stage.run(stage.document, reasons="toner-low-warning,none")
        desk.lets_print()
        desk.hear_reasons("toner-low-warning")
        desk.hear_reasons("toner-low-warning", "media-empty-error", "media-needed-error")
        (stage.root / "go1").write_text("\n")
        desk.hear_reasons("toner-low-warning", "media-needed-error")
        (stage.root / "go2").write_text("\n")
        desk.hear_reasons()
        (stage.root / "go3").write_text("\n")
        assert run.status() == 0


def test_state_messages_are_read_as_cupsd_does() -> None:
    reasons = Reasons("none")
    for line, changed, after in (
        (b"STATE: +a,b", True, ["a", "b"]),
        (b"STATE: +b", False, ["a", "b"]),
        (b"STATE: + c", True, ["a", "b", "c"]),
        (b"STATE: -a,x", True, ["b", "c"]),
        (b"STATUS: d", False, ["b", "c"]),
        (b"STATE: d e", True, ["d", "e"]),
        (b"STATE: \xff", True, ["\ufffd"]),
        (b"STATE:", True, []),
    ):
        assert reasons.hear(line) is changed, line
        assert reasons.all == after, line


# What people answer -------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "status"), [("cancel", 5), ("hold", 3)])
def test_nothing_is_printed_before_the_answer(stage: Stage, word: str, status: int) -> None:
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.backend()
        desk.say("wait", "Waiting for\nan answer: Print?")
        assert run.message() == "INFO: Waiting for an answer: Print?"
        desk.say(word, "bob answered")
        assert run.message() == "INFO: bob answered"
        assert run.status() == status
        assert desk.hear() == {"say": "over", "status": status}
    assert stage.starts == 0


@pytest.mark.parametrize(("word", "status"), [("cancel", 5), ("hold", 3)])
def test_an_answer_during_the_job_ends_it(stage: Stage, word: str, status: int) -> None:
    stage.fake('trap "touch ended; exit 0" TERM; touch began; while :; do sleep 0.05; done')
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.lets_print()
        stage.made("began")
        desk.say(word, "bob answered")
        assert run.status() == status
    assert (stage.root / "ended").exists()
    assert stage.run_files == []


def test_one_that_feeds_on_standard_input_gets_no_more_of_it(stage: Stage) -> None:
    """Such a backend ignores SIGTERM, and counts on cupsd's ending the filters."""
    stage.fake('trap "" TERM; touch began; cat > printed; touch ended')
    ours, theirs = os.pipe()
    with stage.desk() as desk:
        run = stage.run(stdin=ours)
        os.close(ours)
        desk.lets_print()
        os.write(theirs, b"the first page")
        stage.printed()
        desk.say("cancel", "bob answered")
        assert run.status() == 5
    os.close(theirs)
    assert (stage.root / "ended").exists()
    assert (stage.root / "printed").read_bytes() == b"the first page"


# What cupsd does ----------------------------------------------------------------------------------


def test_a_job_that_cupsd_stops_while_it_waits_is_not_printed(stage: Stage) -> None:
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.backend()
        desk.say("wait", "Print?")
        run.await_message("Print?")
        run.process.terminate()
        assert run.status() == 1
        assert desk.hear() == {"say": "stopped"}
    assert stage.starts == 0


def test_one_that_prints_is_stopped_with_its_filters(stage: Stage) -> None:
    """They end the page that they are at, and the inner backend has it."""
    stage.fake('trap "" TERM; touch began; cat > printed')
    ours, theirs = os.pipe()
    with stage.desk() as desk:
        run = stage.run(stdin=ours)
        os.close(ours)
        desk.lets_print()
        os.write(theirs, b"a page")
        stage.printed()
        run.process.terminate()
        assert desk.hear()["say"] == "reasons"
        assert desk.hear() == {"say": "stopped"}
        os.write(theirs, b", and its end")
        os.close(theirs)
        assert run.status() == 1
    assert (stage.root / "printed").read_bytes() == b"a page, and its end"


def test_what_waits_ends_with_its_cupsd(stage: Stage) -> None:
    """The cupsd that comes next runs the job again, and that run is told the answer."""
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.backend()
        desk.say("wait", "Print?")
        run.await_message("Print?")
        run.orphan()
        assert run.status() == 1
        assert desk.hear() == {"say": "over", "status": 1}
    assert stage.starts == 0


def test_what_has_the_whole_document_prints_on_and_the_next_run_takes_over(stage: Stage) -> None:
    stage.fake("touch began; read wait < go; cat $6 >> printed")
    os.mkfifo(stage.root / "go")
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.lets_print()
        stage.made("began")
        run.orphan()
        again = stage.run(stage.document)
        desk.lets_print()
        again.await_message("Waiting for an earlier run of this job")
        (stage.root / "go").write_text("\n")
        assert run.status() == 0
        again.await_message("Printed already")
        assert again.status() == 0
    assert stage.starts == 1
    assert (stage.root / "printed").read_bytes() == b"a page\n"
    assert stage.run_files == []


def test_what_was_printed_when_nobody_could_be_told_is_not_printed_again(stage: Stage) -> None:
    stage.fake("touch began; read wait < go")
    os.mkfifo(stage.root / "go")
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.lets_print()
        stage.made("began")
        run.orphan()
        (stage.root / "go").write_text("\n")
        assert run.status() == 0
        assert len(stage.run_files) == 1
        for _ in range(2):
            again = stage.run(stage.document)
            desk.lets_print()
            assert again.status() == 0
            if stage.starts == 1:
                again.await_message("Printed already")
                stage.fake("exit 0")
    assert stage.starts == 2, "a reprint is printed"


def test_what_failed_when_nobody_could_be_told_is_printed_again(stage: Stage) -> None:
    stage.fake("touch began; read wait < go; exit 1")
    os.mkfifo(stage.root / "go")
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.lets_print()
        stage.made("began")
        run.orphan()
        (stage.root / "go").write_text("\n")
        assert run.status() == 1
        stage.fake("exit 0")
        again = stage.run(stage.document)
        desk.lets_print()
        assert again.status() == 0
    assert stage.starts == 2


def test_what_has_a_part_of_the_document_is_ended_and_printed_again(stage: Stage) -> None:
    """The filters died with their cupsd: the end of what they said would be no end.

    A backend that reads standard input ignores SIGTERM, and would print what it had by then.
    """
    stage.fake('trap "" TERM; touch began; cat > printed; touch took-it-for-the-whole')
    ours, theirs = os.pipe()
    with stage.desk() as desk:
        run = stage.run(stdin=ours)
        os.close(ours)
        desk.lets_print()
        os.write(theirs, b"half a page")
        stage.printed()
        run.orphan()
        os.close(theirs)
        assert run.status() == 1
        assert stage.run_files == []
        stage.fake("cat > printed")
        with stage.document.open("rb") as document:
            again = stage.run(stdin=document)
        desk.lets_print()
        assert again.status() == 0
    assert stage.starts == 2
    assert (stage.root / "printed").read_bytes() == b"a page\n"
    assert not (stage.root / "took-it-for-the-whole").exists()


def test_cancelling_a_job_whose_earlier_run_still_prints_ends_that(stage: Stage) -> None:
    stage.fake('trap "touch ended; exit 0" TERM; touch began; while :; do sleep 0.05; done')
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.lets_print()
        stage.made("began")
        run.orphan()
        again = stage.run(stage.document)
        desk.lets_print()
        again.await_message("Waiting for an earlier run")
        again.process.terminate()
        assert again.status() == 1
        assert run.status() == 1
    assert (stage.root / "ended").exists()
    assert stage.run_files == []


def test_a_backend_that_was_killed_leaves_the_lock_to_what_prints(stage: Stage) -> None:
    stage.fake("touch began; read wait < go")
    os.mkfifo(stage.root / "go")
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.lets_print()
        stage.made("began")
        run.process.kill()
        run.status()
        again = stage.run(stage.document)
        desk.lets_print()
        again.await_message("Waiting for an earlier run")
        (stage.root / "go").write_text("\n")
        stage.fake("exit 0")
        assert again.status() == 0
    assert stage.starts == 2


def test_a_run_file_that_names_another_program_ends_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            path = tmp_path / "7-x"
            path.write_text(f"{other.pid} {run_file._started(other.pid)}")
            RunFile(path).stop_other()
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(0.2)
        finally:
            other.kill()


def test_a_run_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        RunFile(tmp_path / "link").lock()
    assert target.read_text() == "precious"


# Without a bridge ---------------------------------------------------------------------------------


def test_without_a_bridge_it_prints_and_says_so(stage: Stage) -> None:
    stage.hurry()
    run = stage.run(stage.document)
    run.await_message("ERROR: Printing unasked: no bridge of Tympan answers")
    assert run.status() == 0
    assert stage.starts == 1


def test_or_holds_where_the_settings_say_so(stage: Stage) -> None:
    stage.configure(without_bridge="hold")
    stage.hurry()
    run = stage.run(stage.document)
    run.await_message("ERROR: The job is held: no bridge of Tympan answers")
    assert run.status() == 3
    assert stage.starts == 0
    (note,) = notes(stage.spool)
    assert (note.job, note.mark) == (7, MARK)


def test_settings_that_cannot_be_used_are_told_of(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    stage.settings.chmod(0o666)
    assert backend._settings(stage.settings) == Place()
    said = capfd.readouterr().err
    assert said.startswith("ERROR: ")
    assert "may be written by others than its owner" in said


@pytest.mark.parametrize("left_its_socket", [True, False])
def test_a_bridge_that_is_starting_is_waited_for(stage: Stage, left_its_socket: bool) -> None:
    if left_its_socket:
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(stage.spool / "counter"))
        dead.close()
    run = stage.run(stage.document)
    (stage.spool / "counter").unlink(missing_ok=True)
    with stage.desk() as desk:
        assert desk.backend()["job"] == 7
        desk.say("cancel", "bob answered")
        assert run.status() == 5


def test_a_bridge_that_dies_while_a_question_stands_is_waited_for(stage: Stage) -> None:
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.backend()
        desk.say("wait", "Print?")
        run.await_message("Print?")
        desk.drop()
        assert desk.backend()["printing"] is False
        desk.say("wait", "Print?")
        desk.say("print")
        assert run.status() == 0


def test_a_bridge_that_dies_while_it_prints_is_told_of_the_printer_again(stage: Stage) -> None:
    stage.fake('exec 1>&2; echo "STATE: +media-empty-error"; read wait < go')
    os.mkfifo(stage.root / "go")
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.lets_print()
        desk.hear_reasons("media-empty-error")
        desk.drop()
        assert desk.backend()["printing"] is True
        assert desk.hear() == {"say": "reasons", "reasons": ["media-empty-error"]}
        (stage.root / "go").write_text("\n")
        assert run.status() == 0
        assert desk.hear() == {"say": "over", "status": 0}


def test_a_bridge_that_refuses_it_is_asked_no_more(stage: Stage) -> None:
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.backend()
        desk.say("refused", "run `tympan cups install` again")
        run.await_message("(run `tympan cups install` again)")
        assert run.status() == 0


def test_a_bridge_that_talks_nonsense_is_none(stage: Stage) -> None:
    stage.configure(without_bridge="hold")
    stage.hurry()
    with stage.desk() as desk:
        run = stage.run(stage.document)
        desk.backend()
        assert desk._backend is not None
        desk._backend.sendall(b"\xff\xfe\n")
        desk.close()
        run.await_message("The job is held")
        assert run.status() == 3


def test_a_bridge_that_has_a_fault_each_time_is_given_up(stage: Stage) -> None:
    ahead = "import workers.cups.printing.run as p; p.RECONNECT = 0.01\n"
    stage.program.write_text(stage.program.read_text().replace("sys.exit(", ahead + "sys.exit("))
    with stage.desk() as desk:
        run = stage.run(stage.document)
        for _ in range(printing.MOST_LOSSES):
            desk.backend()
            desk.say("heard")
            desk.drop()
        run.await_message("Printing unasked: no bridge of Tympan answers (it has ended)")
        assert run.status() == 0


def test_a_spool_that_cannot_be_written_does_not_keep_it_from_printing(stage: Stage) -> None:
    (stage.spool / FOLDER).write_text("not a folder")
    stage.hurry()
    run = stage.run(stage.document)
    run.await_message("Nothing keeps this job from being printed twice")
    assert run.status() == 0
    assert stage.starts == 1


def test_a_backend_that_anybody_may_write_is_not_run_by_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.cups.printing import inner

    path = stage.fake("exit 0")
    path.chmod(0o777)
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(Unfit, match="may be written by anybody"):
        inner.program(stage.root / "bin", "fake://x")


@pytest.mark.parametrize("mode", [0o755, 0o744])
def test_a_backend_is_run_as_cupsd_would_run_it(open_stage: Stage, mode: int) -> None:
    """As root, where it is root's alone; otherwise as the owner of the spool."""
    stage = open_stage
    stage.fake("id -u > spool/who; id -G >> spool/who").chmod(mode)
    owner = os.geteuid()
    if owner == 0:
        owner = account().pw_uid
        os.chown(stage.spool, owner, owner)
    expected = 0 if os.geteuid() == 0 and mode == 0o744 else owner
    with stage.desk() as desk:
        os.chown(stage.spool / "counter", owner, -1)
        run = stage.run(stage.document)
        desk.lets_print()
        assert run.status() == 0, run.messages()
    user, *groups = (stage.spool / "who").read_text().split()
    assert int(user) == expected
    assert expected == os.geteuid() or groups == [str(owner)]
    assert stage.run_files == []


def test_a_backend_for_root_only_says_what_to_do(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.cups.printing import inner

    path = stage.fake("exit 0")
    path.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IROTH)
    assert inner.wants_root(path)
    monkeypatch.setattr(os, "getuid", lambda: 7)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(Unfit, match="is for root only: let cupsd run this one as root"):
        inner.program(stage.root / "bin", "fake://x")
