"""The harness itself: private cupsds, simulated printers, and a printer that speaks IPP."""

from __future__ import annotations

import os
import sys

import pytest

from tests.cups import account
from tests.cups.eveprinter import EvePrinter
from tests.cups.host import CupsHost

TITLE = "Überschrift “mit” 'Zeichen'"


def test_a_job_is_printed_by_a_cupsd_without_privileges(cups_host: CupsHost) -> None:
    sim = cups_host.add_sim("laser-3")
    job = cups_host.lp("laser-3", user="alice", title=TITLE, text="1\f2", copies=2)
    ended = cups_host.await_job(job, "completed")
    assert ended["job-originating-user-name"] == "alice"
    (printed,) = sim.jobs
    assert (printed["title"], printed["user"], printed["pages"]) == (TITLE, "alice", 4)
    with open(f"/proc/{cups_host.pid}/status", encoding="utf-8") as status:  # noqa: PTH123
        facts = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    assert int(facts["Uid"].split()[0]) == account.account().pw_uid != 0
    assert os.geteuid() != 0 or int(facts["CapEff"], 16) == 0


def test_an_empty_tray_holds_a_job_until_paper_is_there(cups_host: CupsHost) -> None:
    sim = cups_host.add_sim("laser-3")
    sim.empty()
    job = cups_host.lp("laser-3")

    def is_told() -> bool:
        return "media-empty-error" in cups_host.printer("laser-3")["printer-state-reasons"]

    cups_host.wait_until(is_told, "media-empty")
    assert sim.printed == []
    sim.refill()
    cups_host.await_job(job, "completed")
    assert sim.printed == [job]
    assert not is_told()


def test_a_cancelled_job_ends_its_backend(cups_host: CupsHost) -> None:
    sim = cups_host.add_sim("laser-3")
    sim.hold()
    job = cups_host.lp("laser-3")
    cups_host.wait_until(lambda: sim.begun == [job], "the backend")
    assert cups_host.children("backend/sim")
    cups_host.cancel(job)
    cups_host.await_job(job, "canceled")
    cups_host.wait_until(lambda: not cups_host.children("backend/sim"), "the backend's end")
    assert [one["outcome"] for one in sim.jobs] == ["canceled"]


def test_queues_jobs_and_subscriptions_outlive_a_kill(cups_host: CupsHost) -> None:
    sim = cups_host.add_sim("laser-3")
    number = cups_host.subscribe("rss:")
    sim.hold()
    job = cups_host.lp("laser-3")
    cups_host.await_job(job, "processing")
    cups_host.kill()
    assert not cups_host.running
    sim.release()
    cups_host.start()
    cups_host.await_job(job, "completed")
    assert [one["notify-subscription-id"] for one in cups_host.subscriptions()] == [number]


def test_what_cupsd_had_not_saved_is_gone_with_it() -> None:
    with CupsHost("print01", saves_after=30) as host:
        host.add_sim("laser-3")
        host.restart()
        host.add_sim("laser-4")
        host.kill()
        host.start()
        assert host.run("lpstat", "-e").split() == ["laser-3"]


def test_a_printer_that_speaks_ipp_prints_and_tells_its_supplies(cups_host: CupsHost) -> None:
    with EvePrinter("Sim 1") as printer:
        cups_host.add_queue("eve", printer.uri, "-m", "everywhere")
        cups_host.await_job(cups_host.lp("eve", title="hello"), "completed")
        assert printer.printed == ["hello"]
        printer.empty()
        printer.supply(black=4)
        reasons = printer.attributes()["printer-state-reasons"]
        assert set(reasons) == {"media-empty-report", "toner-low-report"}
        printer.refill()
        printer.supply(black=80)
        assert printer.attributes()["printer-state-reasons"] == "none"


def test_what_is_missing_is_a_failure_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(account.CupsMissing, match=r"install CUPS .*: apt-get install .*cups "):
        account.program("cupsd-that-is-not-there")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert account.interpreter().name == "python3"


def test_a_cupsd_that_cannot_start_shows_its_log(cups_host: CupsHost) -> None:
    cups_host.kill()
    (cups_host.root / "etc/cupsd.conf").unlink()
    with pytest.raises(account.CupsMissing, match=r"(?s)cupsd ended at its start:.*cupsd\.conf"):
        cups_host.start()
