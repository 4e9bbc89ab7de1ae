"""The notifier, as cupsd starts it: a process that reads a pipe."""

from __future__ import annotations

import base64
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cups.account import CHECKOUT
from tests.cups.messages import CAPTURED, event_message
from workers.cups.events.journal import Journal
from workers.cups.events.torn import Stream
from workers.cups.file import Place
from workers.cups.notifier import END, NEWS, PIPE, RECIPIENT, Keeper

PATIENCE = 20.0
_PIPE_SIZE = 1032
LAUNCHER = """
import sys
sys.path.insert(0, {checkout!r})
from workers.cups.notifier import main
sys.exit(main({settings!r}))
"""


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"awaited {what}"
        time.sleep(0.01)


class Notifier:
    """One, and its end of the pipe."""

    def __init__(self, settings: Path, *arguments: str) -> None:
        code = LAUNCHER.format(checkout=str(CHECKOUT), settings=str(settings))
        self.process = subprocess.Popen(
            [sys.executable, "-IS", "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        self.pipe = self.process.stdin

    def write(self, data: bytes) -> None:
        self.pipe.write(data)
        self.pipe.flush()

    def end(self) -> tuple[int, str]:
        """Close the pipe; its exit status, and what it said."""
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said.decode()


class Host:
    """A settings file, a spool, and the notifiers that were started."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder / "spool")
        self.place.spool.mkdir()
        self.settings = folder / "cups.toml"
        self.settings.write_text(f"spool = {str(self.place.spool)!r}\nmax_events = 1000\n")
        self.settings.chmod(0o640)
        self.started: list[Notifier] = []

    def notifier(self, user_data: bytes = b"", recipient: str = RECIPIENT) -> Notifier:
        made = Notifier(self.settings, recipient, base64.b64encode(user_data).decode())
        self.started.append(made)
        return made

    def kept(self) -> list[bytes]:
        with Journal(self.place.journal) as journal:
            return [row.data for row in journal.waiting(100_000)]

    def counts(self) -> dict[str, int]:
        with Journal(self.place.journal) as journal:
            return journal.counts()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    for notifier in made.started:
        notifier.process.kill()
        notifier.process.communicate()


def test_what_cupsd_writes_is_in_the_journal(host: Host) -> None:
    data = CAPTURED.read_bytes()
    notifier = host.notifier()
    notifier.write(data)
    until(lambda: len(host.kept()) == 28, "the events in the journal")
    assert b"".join(host.kept()) == data
    assert notifier.end() == (0, "")
    assert host.counts() == {"read": 28}


def test_torn_messages_are_left_out_and_counted(host: Host) -> None:
    notifier = host.notifier()
    notifier.write(event_message(1) + event_message(2)[:-1] + event_message(3) + b"\2\0\0")
    assert notifier.end() == (0, "")
    assert host.kept() == [event_message(1), event_message(3)]
    assert host.counts() == {"read": 2, "torn": 2}


def test_its_pipe_is_made_wide(host: Host) -> None:
    notifier = host.notifier()
    until(lambda: fcntl.fcntl(notifier.pipe, _PIPE_SIZE) == PIPE, "the pipe to be wide")


def test_a_flood_is_read_while_the_journal_is_locked(host: Host) -> None:
    messages = [event_message(number) for number in range(1, 901)]
    notifier = host.notifier()
    notifier.write(event_message(1))
    until(lambda: len(host.kept()) == 1, "it to be ready")
    with Journal(host.place.journal) as journal, journal.change():
        os.set_blocking(notifier.pipe.fileno(), False)
        for message in messages[1:]:
            os.write(notifier.pipe.fileno(), message)  # raises where cupsd would drop it
    until(lambda: len(host.kept()) == 900, "all of it")
    assert host.kept() == messages


def test_it_wakes_the_bridge(host: Host) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
        bell.bind(str(host.place.bell))
        bell.settimeout(PATIENCE)
        notifier = host.notifier()
        notifier.write(event_message(1))
        assert bell.recv(10) == NEWS
        assert host.kept() == [event_message(1)]
        notifier.end()
        assert bell.recv(10) == END


def test_sigterm_ends_it_with_all_kept(host: Host) -> None:
    notifier = host.notifier()
    notifier.write(event_message(1))
    until(lambda: host.kept() == [event_message(1)], "it to be ready")
    notifier.write(event_message(2))
    notifier.process.send_signal(signal.SIGTERM)
    assert notifier.process.wait(PATIENCE) == 0
    assert host.kept() == [event_message(1), event_message(2)]


def test_the_bridges_own_subscription_is_told_by_its_secret(host: Host) -> None:
    with Journal(host.place.journal) as journal:
        journal.keep(token="tympan/secret")
    own, other = host.notifier(b"tympan/secret"), host.notifier(b"somebody's")
    own.write(event_message(1))
    other.write(event_message(2))
    assert own.end() == (0, "")
    status, said = other.end()
    assert status == 0
    assert "the bridge did not make this subscription" in said
    assert host.kept() == [event_message(1)]


@pytest.mark.parametrize(
    "recipient", ["tympan://elsewhere/", "tympan:?settings=/tmp/mine", "tympan:redis://evil/0", ""]
)
def test_a_recipient_made_by_somebody_else_is_refused(host: Host, recipient: str) -> None:
    notifier = host.notifier(recipient=recipient)
    notifier.write(event_message(1))
    status, said = notifier.end()
    assert status == 0
    assert "it takes no settings from" in said
    assert not host.place.journal.exists()


def test_settings_that_others_can_write_are_not_used(host: Host) -> None:
    host.settings.chmod(0o666)
    notifier = host.notifier()
    notifier.write(event_message(1))
    status, said = notifier.end()
    assert status == 0
    assert "may be written by others" in said
    assert not host.place.journal.exists()


def test_arguments_that_are_missing_or_odd_are_harmless(host: Host) -> None:
    notifier = Notifier(host.settings)
    host.started.append(notifier)
    assert notifier.end()[0] == 0
    odd = Notifier(host.settings, RECIPIENT, "%%no base64%%")
    host.started.append(odd)
    odd.write(event_message(1))
    assert odd.end() == (0, "")
    assert host.kept() == [event_message(1)]


def test_while_the_journal_cannot_be_written_events_wait_in_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, stream = Place(tmp_path / "spool", max_events=100), Stream()
    with Keeper(place) as keeper:
        keeper.keep([b"1", b"2"], stream)
        assert keeper.is_behind
        keeper.keep([b"3"], stream)
        said = capsys.readouterr().err
        assert said.count("ERROR: tympan: the journal") == 1
        place.spool.mkdir()
        stream.torn = 1
        keeper.keep([b"4"], stream)
        assert not keeper.is_behind
    assert "can be written again" in capsys.readouterr().err
    with Journal(place.journal) as journal:
        assert [row.data for row in journal.waiting(10)] == [b"1", b"2", b"3", b"4"]
        assert journal.counts() == {"read": 4, "torn": 1}


def test_what_waits_in_memory_is_bounded_and_what_is_dropped_is_counted(tmp_path: Path) -> None:
    place, stream = Place(tmp_path / "spool", max_events=100), Stream()
    messages = [str(number).encode() for number in range(350)]
    with Keeper(place) as keeper:
        keeper.keep(messages, stream)
        place.spool.mkdir()
        keeper.keep([b"last"], stream)
    with Journal(place.journal) as journal:
        assert [row.data for row in journal.waiting(1000)] == [*messages[-99:], b"last"]
        assert journal.counts() == {"read": 100, "dropped": 251}


def test_a_journal_that_was_put_aside_is_begun_anew(tmp_path: Path) -> None:
    place, stream = Place(tmp_path), Stream()
    with Keeper(place) as keeper:
        keeper.keep([b"1"], stream)
        for path in tmp_path.glob("journal*"):
            path.rename(path.with_name(f"aside-{path.name}"))
        keeper.keep([b"2"], stream)
    with Journal(place.journal) as journal:
        assert [row.data for row in journal.waiting(10)] == [b"2"]
