"""Cases about questions: who is asked, who wins, and what becomes of the job."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from broker.errors import ChannelAcquired
from broker.offer import Offer
from tests.cups.farm.case import Cases
from tests.cups.farm.stage import Listener, Stage, until
from tests.cups.host import CupsHost
from tests.cups.sim import Sim
from workers.cups.types import JobAnswer, JobQuestion

dialogs = Cases()
RESPONDERS = 50
ENDS = {"continue": "completed", "cancel": "canceled", "hold": "held"}
"""What a job comes to, by the answer."""
HERE = r"\\print01"


async def put_job(host: CupsHost, sim: Sim, title: str, **options: object) -> int:
    """A job on an empty printer; returns when it waits for paper."""
    sim.empty()
    before = len(sim.begun)
    job = await asyncio.to_thread(host.lp, sim.folder.name, title=title, **options)  # type: ignore[arg-type]
    await until(lambda: len(sim.begun) > before, "the job to reach the printer", host.log_tail)
    return job


async def obeyed(host: CupsHost, sim: Sim, job: int, choice: str) -> str:
    """Fill the printer, and wait until the job is as the answer wants it; its state."""
    if choice == "continue":
        sim.refill()
    state = (await asyncio.to_thread(host.await_job, job, ENDS[choice]))["job-state"]
    assert (job in sim.printed) == (choice == "continue"), f"{choice}: {sim.jobs}"
    sim.refill()
    if choice == "hold":
        await asyncio.to_thread(host.cancel, job)
        await asyncio.to_thread(host.await_job, job, "canceled")
    return str(state)


@dialogs.add("c", f"{RESPONDERS} answer at once: one wins, and the job does what that one said")
async def race(stage: Stage) -> str:
    tell, (host, *_) = stage.tell, stage.hosts
    sim = await asyncio.to_thread(host.add_sim, "laser-3", wrapped=True)
    names = [f"desk{number:02}" for number in range(RESPONDERS)]
    crowd = await asyncio.gather(*[stage.listener(name, administers=[HERE]) for name in names])
    await asyncio.gather(
        *[one.listen(HERE, JobQuestion, everybody=True, asks=True) for one in crowd]
    )
    wins: Counter[str] = Counter()
    rounds = ("cancel",) if stage.is_short else ("continue", "cancel", "hold")
    for round_, choice in enumerate(rounds, 1):
        job = await put_job(host, sim, f"round {round_}")
        held = await asyncio.gather(*[one.asked(job=job, question="paper") for one in crowd])
        order = random.sample(range(RESPONDERS), RESPONDERS)
        # The first to ask Redis are the first as a rule: so each choice has its round.
        said = [choice if place < 10 else random.choice(tuple(ENDS)) for place in range(len(order))]
        won = await asyncio.gather(
            *[_respond(held[number], one) for number, one in zip(order, said, strict=True)]
        )
        winners = [place for place, is_won in enumerate(won) if is_won]
        assert len(winners) == 1, f"round {round_}: {len(winners)} won"
        winner, chosen = crowd[order[winners[0]]], said[winners[0]]
        state = await obeyed(host, sim, job, chosen)
        wins[chosen] += 1
        tell(winner.who, f"was first of {RESPONDERS}: {chosen}; job {job} is {state}")
        assert sum(offer.payload.job == job for one in crowd for offer in one.offers) == RESPONDERS
    counts = ", ".join(f"{count} x {choice}" for choice, count in sorted(wins.items()))
    return (
        f"{len(rounds)} questions to {RESPONDERS} listeners each: one winner each time ({counts})"
    )


async def _respond(offer: Offer[JobQuestion], choice: str) -> bool:
    """Whether this response was the first."""
    try:
        await offer.respond(JobAnswer(choice=choice))
    except ChannelAcquired:
        return False
    return True


@dialogs.add("d", "a question stands for an administrator who comes late, and its answer counts")
async def late(stage: Stage) -> str:
    tell, (host, *_) = stage.tell, stage.hosts
    sim = await asyncio.to_thread(host.add_sim, "laser-3", wrapped=True)
    alice = await (await stage.listener("alice")).listen(HERE, JobQuestion, asks=True)
    bob = await (await stage.listener("bob")).listen(HERE, JobQuestion, asks=True)
    job = await put_job(host, sim, "annual report")
    hers = await alice.asked(job=job)
    tell("alice", f"is asked: {hers.payload.text}")
    helpdesk = await stage.listener("helpdesk", administers=[HERE])
    await helpdesk.listen(HERE, JobQuestion, everybody=True, asks=True)
    offer = await helpdesk.asked(job=job)
    tell("helpdesk", f"comes later, and is asked: {offer.payload.text}")
    await offer.respond(JobAnswer(choice="continue", note="paper is coming"))
    await until(lambda: hers.is_lost, "alice to be told")
    tell("alice", "is told that it was answered")
    state = await obeyed(host, sim, job, "continue")
    tell("laser-3", f"job {job} is {state}")
    assert not bob.offers, "bob was asked about a job of alice's"
    return "the late one answered, the owner was told, the job went on; a stranger was not asked"


@dialogs.add("h", "what is asked before printing holds the job, not the queue")
async def before(stage: Stage) -> str:
    tell, (host, *_) = stage.tell, stage.hosts
    sim = await asyncio.to_thread(host.add_sim, "laser-3", wrapped=True)
    alice = await (await stage.listener("alice")).listen(HERE, JobQuestion, asks=True)
    job = await asyncio.to_thread(host.lp, "laser-3", title="flyer", copies=60)
    offer = await alice.asked(job=job, question="many")
    tell("alice", f"is asked: {offer.payload.text}")
    await asyncio.to_thread(host.await_job, job, "held")
    other = await asyncio.to_thread(host.lp, "laser-3", title="letter")
    await asyncio.to_thread(host.await_job, other, "completed")
    tell("laser-3", f"job {job} is held meanwhile, and job {other} printed")
    await offer.respond(JobAnswer(choice="continue"))
    await asyncio.to_thread(host.await_job, job, "completed")
    assert sim.printed == [other, job], sim.printed
    assert _asked(alice, job) == 1
    tell("laser-3", f"job {job} is released, and printed")
    return "the job was held for the answer, another one printed meanwhile, the answer released it"


def _asked(listener: Listener, job: int) -> int:
    """How often it was asked about a job."""
    return sum(offer.payload.job == job for offer in listener.offers)
