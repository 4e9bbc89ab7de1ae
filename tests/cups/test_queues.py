"""Queues and Tympan's backend, on a real cupsd that was given it by ``tympan cups install``."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cups.account import account, interpreter
from tests.cups.host import CupsHost
from workers.cli import main
from workers.cups.events.journal import Journal
from workers.cups.file import Place
from workers.cups.installation import queues
from workers.cups.installation.host import Host
from workers.cups.installation.queues import Queue, written

DONE, FAILED = 0, 3
Tympan = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def tympan(host: CupsHost, capsys: pytest.CaptureFixture[str]) -> Tympan:
    """``tympan cups …`` on that host: the records that it tells."""

    def run(*words: str, ends: int = DONE) -> list[dict[str, Any]]:
        where = ["--config", f"{host.root}/etc", "--settings", str(host.settings)]
        where += ["--spool", str(host.spool), "--cups", host.address]
        if words[0] == "install":
            where += ["--python", str(interpreter())]
        status = main(["cups", *words, "--json", *where])
        told = capsys.readouterr()
        assert status == ends, told.err
        return [json.loads(line) for line in told.out.splitlines()]

    return run


@pytest.fixture
def installed(tympan: Tympan) -> Tympan:
    """The same, once Tympan is there."""
    tympan("install")
    return tympan


def uris(host: CupsHost) -> dict[str, str]:
    read = Host.read(server_root=host.root / "etc")
    return {queue.name: queue.device_uri for queue in written(read)}


@pytest.mark.usefixtures("installed")
def test_cupsd_runs_the_notifier_that_was_placed(host: CupsHost) -> None:
    host.subscribe("tympan:")
    host.add_sim("laser-3")
    place = Place.read(host.settings)
    host.wait_until(place.journal.exists, "the journal")
    assert place.journal.stat().st_uid == account().pw_uid
    with Journal(place.journal) as journal:
        host.wait_until(lambda: journal.length > 1, "events in the journal")


def test_a_queue_is_wrapped_and_unwrapped(host: CupsHost, installed: Tympan) -> None:
    sim = host.add_sim("laser-3")
    host.add_queue("plain", "file:///dev/null")
    (told,) = installed("wrap", "Laser-3")
    assert told == {"printer": "Laser-3", "device_uri": f"tympan:{sim.uri}"}
    assert host.printer("laser-3")["device-uri"] == f"tympan:{sim.uri}"
    installed("wrap", "laser-3")
    assert host.printer("laser-3")["device-uri"] == f"tympan:{sim.uri}"
    assert installed("unwrap", "--all") == [{"printer": "laser-3", "device_uri": sim.uri}]
    assert uris(host) == {"laser-3": sim.uri, "plain": "file:///dev/null"}
    assert installed("unwrap", "--all") == []


def test_what_else_is_set_of_a_queue_stays(host: CupsHost, installed: Tympan) -> None:
    words = ["-m", "raw", "-D", "First floor", "-o", "printer-error-policy=abort-job"]
    host.add_queue("office", "ipp://127.0.0.1:9/ipp/print", *words)
    installed("wrap", "--all")
    office = host.printer("office")
    assert office["device-uri"] == "tympan:ipp://127.0.0.1:9/ipp/print"
    assert (office["printer-info"], office["printer-state"]) == ("First floor", "idle")
    assert office["printer-error-policy"] == "abort-job"


def test_what_cannot_be_wrapped_is_refused(host: CupsHost, installed: Tympan) -> None:
    host.add_queue("secret", "ipp://bob:password@127.0.0.1:9/ipp/print")
    host.add_queue("nowhere", "file:///dev/null")
    (told,) = installed("wrap", "secret", ends=FAILED)
    assert "everybody could read it" in told["message"]
    assert "password" not in told["message"]
    (told,) = installed("wrap", "nowhere", ends=FAILED)
    assert "queue nowhere has a file: device, which cupsd writes itself" in told["message"]
    (told,) = installed("wrap", "laser-9", ends=FAILED)
    assert "cupsd has no queue laser-9; there are: nowhere, secret" in told["message"]
    assert not any(uri.startswith("tympan:") for uri in uris(host).values())


def test_queues_that_cannot_be_wrapped_do_not_keep_others_from_it(
    host: CupsHost, installed: Tympan
) -> None:
    sims = {name: host.add_sim(name).uri for name in ("alpha", "zulu")}
    host.add_queue("mike", "ipp://bob:password@127.0.0.1:9/ipp/print")
    host.add_queue("nowhere", "file:///dev/null")
    told = installed("wrap", "--all", ends=FAILED)
    skipped = {one["printer"]: one["skipped"] for one in told if "skipped" in one}
    assert "everybody could read it" in skipped.pop("mike")
    assert "cupsd writes itself" in skipped.pop("nowhere")
    assert not skipped
    assert {one["printer"]: one["device_uri"] for one in told if "device_uri" in one} == {
        name: f"tympan:{uri}" for name, uri in sims.items()
    }
    assert {name for name, uri in uris(host).items() if uri.startswith("tympan:")} == set(sims)


@pytest.mark.parametrize(
    "words", [("wrap", "--all"), ("unwrap", "--all"), ("wrap", "laser-3"), ("unwrap", "laser-3")]
)
def test_a_cupsd_that_is_away_is_no_host_without_queues(
    host: CupsHost, installed: Tympan, words: tuple[str, ...]
) -> None:
    host.add_sim("laser-3")
    host.terminate()
    (told,) = installed(*words, ends=FAILED)
    assert f"cupsd does not answer at {host.address}" in told["message"]


def test_a_device_that_needs_root_needs_our_backend_as_root(
    host: CupsHost, installed: Tympan
) -> None:
    host.add_sim("laser-3")
    (host.server_bin / "backend/sim").chmod(0o744)
    (told,) = installed("wrap", "laser-3", ends=FAILED)
    assert f"`tympan cups install --backend-as-root --config {host.root}/etc" in told["message"]
    backend = host.server_bin / "backend/tympan"
    for words, mode in (
        (["--backend-as-root"], 0o744),
        ([], 0o744),
        (["--backend-not-as-root"], 0o755),
    ):
        installed("install", *words)
        assert backend.stat().st_mode & 0o777 == mode


def test_a_queue_that_cupsd_has_not_written_yet_is_waited_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with CupsHost("print01", saves_after=2) as host:
        host.place()
        where = ["--config", f"{host.root}/etc", "--cups", host.address]
        where += ["--settings", str(host.settings), "--spool", str(host.spool)]
        host.add_queue("secret", "ipp://bob:password@127.0.0.1:9/ipp/print")
        assert not uris(host)
        assert main(["cups", "wrap", "secret", *where]) == FAILED
        told = capsys.readouterr().err
        assert "waiting for cupsd to write queue secret down" in told
        assert "everybody could read it" in told


def test_wrapping_before_installing_says_so(host: CupsHost, tympan: Tympan) -> None:
    host.add_sim("laser-3")
    (told,) = tympan("wrap", "laser-3", ends=FAILED)
    assert "backend/tympan is not there: run `tympan cups install --config " in told["message"]
    assert f"--settings {host.settings}" in told["message"]


def test_uninstalling_is_refused_while_queues_need_the_backend(
    host: CupsHost, installed: Tympan
) -> None:
    sim = host.add_sim("laser-3", wrapped=True)
    (told,) = installed("uninstall", ends=FAILED)
    assert "laser-3: still printing through Tympan's backend" in told["message"]
    assert f"`tympan cups unwrap --all --config {host.root}/etc" in told["message"]
    assert f"lpadmin -p laser-3 -v {sim.uri}" in told["message"]
    assert (host.server_bin / "backend/tympan").exists()
    installed("uninstall", "--force")
    assert not (host.server_bin / "backend/tympan").exists()
    host.run("lpadmin", "-p", "laser-3", "-v", sim.uri)
    host.await_job(host.lp("laser-3"), "completed")


def test_uninstalling_ends_the_subscription_and_no_other(host: CupsHost, installed: Tympan) -> None:
    theirs = host.subscribe("rss:")
    ours = host.subscribe("tympan:")
    told = installed("uninstall")
    removed = {one["path"] for one in told if one["what"] == "events"}
    assert removed == {f"subscription {ours} of cupsd"}
    assert [one["notify-subscription-id"] for one in host.subscriptions()] == [theirs]


def test_uninstalling_is_refused_while_a_bridge_runs(host: CupsHost, installed: Tympan) -> None:
    with Place(host.spool).lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (told,) = installed("uninstall", ends=FAILED)
        assert f"a bridge runs on {host.spool}" in told["message"]
        assert (host.server_bin / "notifier/tympan").exists()
    installed("uninstall")
    assert not (host.server_bin / "notifier/tympan").exists()


def test_the_command_that_unwraps_says_the_same_to_a_shell() -> None:
    queue = Queue("a'b;c$d", "tympan:ipp://host/it's?a=b&c=d")
    words = ["lpadmin", "-p", "a'b;c$d", "-v", "ipp://host/it's?a=b&c=d"]
    assert shlex.split(queue.unwrapping) == words


def test_an_lpadmin_that_does_not_end_is_a_sentence(
    host: CupsHost, installed: Tympan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.add_sim("laser-3", wrapped=True)
    slow = tmp_path / "lpadmin"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(queues, "_TIMEOUT_S", 0.2)
    (told,) = installed("unwrap", "laser-3", ends=FAILED)
    assert "lpadmin -p laser-3 did not end within 0.2 s, and was killed" in told["message"]
