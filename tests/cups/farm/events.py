"""Cases about events: who hears of a job, and how often a printer's trouble is told."""

from __future__ import annotations

import asyncio

from tests.cups.eveprinter import EvePrinter
from tests.cups.farm.case import Cases
from tests.cups.farm.stage import Stage, until
from workers.cups.types import JobStatus, PrinterStatus

events = Cases()
HERE, THERE = r"\\print01", r"\\print02"


@events.add("a", "a job's owner hears that it is completed, an administrator too, nobody else")
async def owner(stage: Stage) -> str:
    tell = stage.tell
    alice, bob = await stage.listener("alice"), await stage.listener("bob")
    servers = [rf"\\{host.name}" for host in stage.hosts]
    helpdesk = await stage.listener("helpdesk", administers=servers)
    for server in servers:
        await alice.listen(server, JobStatus)
        await bob.listen(server, JobStatus)
        await helpdesk.listen(server, JobStatus, everybody=True)
    for host in stage.hosts:
        await asyncio.to_thread(host.add_sim, "laser-3")
        mine = {"host": host.name}
        hers = await asyncio.to_thread(host.lp, "laser-3", user="alice", title="annual report")
        said = await alice.hears(JobStatus, **mine, job=hers, is_over=True)
        tell("alice", f"{host.name}: job {hers} on {said.printer}: {said.text} ({said.pages} page)")
        await helpdesk.hears(JobStatus, **mine, job=hers, is_over=True)
        tell("helpdesk", f"{host.name}: job {hers} of {said.owner}: {said.state}")
        # Bob's own job comes behind hers on the same way: once he heard it, hers is not coming.
        his = await asyncio.to_thread(host.lp, "laser-3", user="bob")
        await bob.hears(JobStatus, **mine, job=his, is_over=True)
        assert not bob.of(JobStatus, **mine, job=hers), "bob heard of a job of alice's"
        tell("bob", f"{host.name}: nothing of job {hers}")
        over = len(helpdesk.of(JobStatus, **mine, job=hers, is_over=True))
        assert over == 1, f"the help desk was told {over} times that job {hers} is over"
        assert [one.state for one in alice.of(JobStatus, **mine, job=hers)] == [
            *("pending", "processing", "processing", "completed")
        ]
    hosts = f"{len(stage.hosts)} host{'s' if len(stage.hosts) > 1 else ''}"
    return f"{hosts}: alice and the help desk heard job-completed once, bob did not"


@events.add("b", "media-empty reaches a printer's listener and a server's, once each", needs=2)
async def paper(stage: Stage) -> str:
    tell, (here, there, *_) = stage.tell, stage.hosts
    sim = await asyncio.to_thread(here.add_sim, "laser-3")
    await asyncio.to_thread(here.add_sim, "laser-4")
    console = await stage.listener("console", administers=[HERE, THERE])
    await console.listen(HERE, PrinterStatus, everybody=True)
    await console.listen(THERE, PrinterStatus, everybody=True)
    walker = await stage.listener("walker")
    await walker.listen(rf"{HERE}\laser-3", PrinterStatus)
    await asyncio.to_thread(there.add_sim, "laser-3")
    sim.empty()
    job = await asyncio.to_thread(here.lp, "laser-3")
    listeners = (console, walker)
    for listener in listeners:
        said = await listener.hears(
            PrinterStatus, added=["media-empty-error", "media-needed-error"]
        )
        tell(
            listener.who, f"{said.host} {said.printer}: {', '.join(said.reasons)} [{said.severity}]"
        )
    sim.refill()
    await asyncio.to_thread(here.await_job, job, "completed")
    for listener in listeners:
        await listener.hears(PrinterStatus, cleared=["media-empty-error", "media-needed-error"])
        told = [one for one in listener.of(PrinterStatus) if "media-empty-error" in one.added]
        assert len(told) == 1, f"{listener.who} was told {len(told)} times: {told}"
        assert (told[0].host, told[0].printer) == (here.name, "laser-3")
        tell(listener.who, "paper is there again")
    assert {one.printer for one in walker.of(PrinterStatus)} == {"laser-3"}
    return "one notification each when the tray was empty, and one when it was filled"


@events.add("g", "an idle printer that speaks IPP is watched, though CUPS does not look", poll=0.5)
async def idle(stage: Stage) -> str:
    tell, (*_, host) = stage.tell, stage.hosts
    server = rf"\\{host.name}"
    console = await stage.listener("console", administers=[server])
    await console.listen(server, PrinterStatus, everybody=True)
    with EvePrinter("Office") as printer:
        await asyncio.to_thread(host.add_queue, "office", f"tympan:{printer.uri}")
        job = await asyncio.to_thread(host.lp, "office", title="by IPP")
        await asyncio.to_thread(host.await_job, job, "completed")
        assert printer.printed == ["by IPP"]
        tell("office", "printed a job, through tympan:ipp://")
        printer.supply(black=4)
        printer.empty()
        tell("office", "idle; its toner runs low, and somebody takes its paper")

        def told() -> list[PrinterStatus]:
            return [one for one in console.of(PrinterStatus, source="printer") if one.reasons]

        await until(
            lambda: bool(told()), "the poller's word", lambda: f"{console.heard} {stage.said()}"
        )
        said = told()[0]
        levels = ", ".join(f"{one.name} {one.level} %" for one in said.supplies)
        tell("console", f"{said.printer}: {', '.join(said.reasons)}; {levels}")
        reasons = await asyncio.to_thread(lambda: host.printer("office")["printer-state-reasons"])
        assert reasons == "none", f"CUPS looked itself: {reasons}"
        assert any(one.level == 4 for one in said.supplies), said.supplies
    return "toner and paper of an idle printer were told; CUPS itself still says none"
