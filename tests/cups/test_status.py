"""``tympan cups status``: on a real cupsd and a real Redis, with what a bridge leaves on disk."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cups.account import interpreter
from tests.cups.host import CupsHost
from tests.servers import RedisServer
from workers.cli import main
from workers.cups.events.journal import Journal
from workers.cups.events.sequence import Position
from workers.cups.file import Place

FLOWS, STOPPED = 0, 1
Status = Callable[..., dict[str, Any]]


@pytest.fixture
def words(host: CupsHost) -> list[str]:
    """What says which host is meant."""
    return [
        *("--config", f"{host.root}/etc", "--settings", str(host.settings)),
        *("--spool", str(host.spool), "--cups", host.address),
    ]


@pytest.fixture
def installed(
    host: CupsHost,
    words: list[str],
    redis_server: RedisServer,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[CupsHost]:
    """The same with Tympan, and a bridge that has just told the second of two events."""
    url = ["--url", redis_server.url, "--server", r"\\print01", "--python", str(interpreter())]
    assert main(["cups", "install", *words, *url]) == 0
    capsys.readouterr()
    number = host.subscribe("tympan:")
    host.add_sim("laser-3")
    path = host.spool / "journal"
    host.wait_until(path.exists, "the journal")
    with Journal(path) as journal:
        host.wait_until(lambda: journal.length > 2, "events")
        journal.done(journal.waiting(100)[-1].id, {"position": Position(number, 1, 2).dump()})
        journal.keep(heartbeat=time.time(), pid=os.getpid())
        journal.count(sent=2)
    with Place(host.spool).lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield host


def let_go(host: CupsHost) -> None:
    """Have nobody hold the bridge's lock: another file is at its place."""
    Place(host.spool).lock.unlink()
    Place(host.spool).lock.touch()


@pytest.fixture
def status(words: list[str], capsys: pytest.CaptureFixture[str]) -> Status:
    """The command: what it tells, which has to end with that exit status."""

    def run(ends: int) -> dict[str, Any]:
        assert main(["cups", "status", "--json", *words]) == ends
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert told["flows"] is (ends == FLOWS)
        return told

    return run


def stops(told: dict[str, Any]) -> list[str]:
    return [one["what"] for one in told["findings"] if one["severity"] == "stops"]


@pytest.mark.usefixtures("host")
def test_a_host_without_tympan_is_told_to_install_it(status: Status) -> None:
    told = status(STOPPED)
    assert stops(told)[0] == "Tympan is not installed here"
    assert told["cupsd"]["answers"]


@pytest.mark.usefixtures("installed")
def test_events_flow_where_nothing_is_wrong(status: Status) -> None:
    told = status(FLOWS)
    assert told["findings"] == []
    assert {one["standing"] for one in told["placed"]} == {"right"}
    assert told["events"]["sent"] == 2
    assert told["events"]["waiting"] == 0
    assert told["subscription"]["told"] == 2
    assert told["subscription"]["last"] > 2
    assert told["redis"]["answers"]
    assert told["bridge"]["alive"]


@pytest.mark.usefixtures("installed")
def test_people_read_it_on_one_screen(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cups", "status", *words]) == FLOWS
    shown = capsys.readouterr().out
    first, *lines = shown.splitlines()
    assert first == "print01: events flow."
    assert len(lines) < 20
    assert "the farm at 2" in shown
    assert max(map(len, lines)) <= 100


def spooled(host: CupsHost) -> dict[str, tuple[int, bytes]]:
    """What is in the spool but for SQLite's own index of a log, which readers take locks in."""
    return {
        path.name: (path.stat().st_ino, path.read_bytes() if path.is_file() else b"")
        for path in sorted(host.spool.iterdir())
        if not path.name.endswith("-shm")
    }


def test_nothing_is_changed(installed: CupsHost, status: Status) -> None:
    installed.end_subscriptions()
    installed.wait_until(lambda: not installed.children("notifier"), "the notifier's end")
    before = spooled(installed)
    names = sorted(path.name for path in installed.spool.iterdir())
    status(STOPPED)
    assert spooled(installed) == before
    assert sorted(path.name for path in installed.spool.iterdir()) == names
    with Journal(installed.spool / "journal") as journal:
        journal.count(sent=5)
        before = spooled(installed)
        assert status(STOPPED)["events"]["sent"] == 7
        assert spooled(installed) == before


def test_a_damaged_journal_is_told_and_left(installed: CupsHost, status: Status) -> None:
    installed.end_subscriptions()
    installed.terminate()
    installed.wait_until(lambda: not installed.children(), "the notifier's end")
    for path in installed.spool.glob("journal*"):
        path.unlink()
    (installed.spool / "journal").write_bytes(b"no database" * 1000)
    before = spooled(installed)
    said, *_ = stops(status(STOPPED))
    assert said == (
        f"the journal {installed.spool}/journal is damaged (file is not a database): "
        "it is put aside when a bridge starts"
    )
    assert spooled(installed) == before


def test_damaged_answers_are_told_and_left(installed: CupsHost, status: Status) -> None:
    path = installed.spool / "answers"
    path.write_bytes(b"no database" * 1000)
    (finding,) = status(FLOWS)["findings"]
    assert finding["what"].startswith(f"the answers {path} is damaged (file is not a database)")
    assert path.read_bytes() == b"no database" * 1000


def test_queues_through_the_backend_are_named(installed: CupsHost, status: Status) -> None:
    installed.add_sim("asks", wrapped=True)
    assert status(FLOWS)["wrapped"] == ["asks"]


def test_a_bridge_that_is_silent_is_told(installed: CupsHost, status: Status) -> None:
    with Journal(installed.spool / "journal") as journal:
        journal.keep(heartbeat=time.time() - 3600)
    (said,) = stops(status(STOPPED))
    assert said.startswith("the bridge said nothing for 36")


def test_a_bridge_that_was_killed_a_moment_ago_is_told(
    installed: CupsHost, words: list[str], status: Status, capsys: pytest.CaptureFixture[str]
) -> None:
    let_go(installed)
    told = status(STOPPED)
    assert stops(told) == [f"the bridge, process {os.getpid()}, has ended"]
    (advice,) = (one["advice"] for one in told["findings"])
    assert advice == f"tympan bridge run cups --settings {installed.settings}"
    assert not told["bridge"]["alive"]
    assert main(["cups", "status", *words]) == STOPPED
    assert "runs as process" not in capsys.readouterr().out


def test_the_interpreter_that_was_placed_is_judged_and_advised(
    installed: CupsHost, status: Status, words: list[str]
) -> None:
    for kind in ("notifier", "backend"):
        path = installed.server_bin / kind / "tympan"
        _, rest = path.read_text().split("\n", 1)
        path.write_text(f"#!/bin/false -IS\n{rest}")
    (installed.server_bin / "notifier/tympan").chmod(0o700)
    told = status(STOPPED)
    assert not [one for one in told["findings"] if "another environment" in one["what"]]
    (said,) = stops(told)
    assert "cannot run them by /bin/false" in said
    (advice,) = [one["advice"] for one in told["findings"] if one["severity"] == "warns"]
    assert advice == f"tympan cups install --python /bin/false {' '.join(words)}"


def test_a_question_that_may_never_come_up_is_told_and_headed(
    installed: CupsHost, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with installed.settings.open("a") as file:
        file.write('[[question]]\nname = "paper"\nwhen = "medai-empty"\ntext = "?"\n')
    assert main(["cups", "status", *words]) == FLOWS
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "print01: events flow, but not all is well:"
    assert second.startswith("  question 'paper': when: 'medai-empty' is no known state reason")


def test_what_troubles_the_bridge_is_told(installed: CupsHost, status: Status) -> None:
    with Journal(installed.spool / "journal") as journal:
        journal.keep(trouble="a reason")
    assert stops(status(STOPPED)) == ["the bridge: a reason"]


def test_events_that_wait_for_long_are_told(installed: CupsHost, status: Status) -> None:
    with Journal(installed.spool / "journal") as journal:
        journal.add("run", [b"event"])
        with journal.change() as file:
            file.execute("UPDATE event SET at = at - 90")
    (said,) = stops(status(STOPPED))
    assert said.startswith("the oldest of 1 events that wait is 9")


def test_dropped_events_are_told_and_stop_nothing(installed: CupsHost, status: Status) -> None:
    with Journal(installed.spool / "journal") as journal:
        journal.count(dropped=7, torn=3)
    told = status(FLOWS)
    (finding,) = told["findings"]
    assert finding["what"].startswith("7 events were dropped because more than 100,000 waited")
    assert told["events"]["torn"] == 3


def test_a_subscription_that_is_gone_is_told(installed: CupsHost, status: Status) -> None:
    installed.end_subscriptions()
    assert stops(status(STOPPED)) == ["cupsd has no subscription of this host's bridge"]


def test_a_cupsd_that_is_away_is_told(installed: CupsHost, status: Status) -> None:
    installed.terminate()
    (said,) = stops(status(STOPPED))
    assert said.startswith("cupsd: ")
    assert installed.address in said


def test_a_redis_that_is_away_is_told(installed: CupsHost, status: Status) -> None:
    text = installed.settings.read_text()
    url = next(line for line in text.splitlines() if line.startswith("url = "))
    installed.settings.write_text(text.replace(url, "url = 'redis://127.0.0.1:1/0'"))
    (said,) = stops(status(STOPPED))
    assert said.startswith("Redis: ")


def test_settings_that_cannot_be_used_are_told(installed: CupsHost, status: Status) -> None:
    installed.settings.chmod(0o660)
    said = stops(status(STOPPED))
    assert any("may be written by others than its owner" in one for one in said)
    installed.settings.chmod(0o640)
    installed.settings.write_text("pool = 3\n")
    assert any("pool: there is no such setting" in one for one in stops(status(STOPPED)))


def test_a_notifier_that_was_taken_away_is_told(installed: CupsHost, status: Status) -> None:
    path = installed.server_bin / "notifier/tympan"
    path.unlink()
    assert stops(status(STOPPED)) == [f"notifier: {path} is not there"]
    path.write_text("#!/bin/sh\n")
    (said,) = stops(status(STOPPED))
    assert said == f"notifier: {path} is not Tympan's: move it away"
