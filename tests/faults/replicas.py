"""Those who work for others, and are struck: replicas of a pool, and a reaper."""

from __future__ import annotations

from typing import Any, ClassVar

from broker import BIDIRECTIONAL
from broker.results import S_OK
from tests.conformance.actors import die
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.faults.others import (
    POOLED,
    Asking,
    Handler,
    Hearer,
    asked,
    released,
)
from tests.faults.strokes import Manner, Part, Step, fenced
from tests.redis.pooling import ALERTS, POOL, QUESTIONS, Member, counted, keys_of
from tests.redis.scenes import stand


def has_taken(part: Part, pending: dict[str, Any] | None) -> bool:
    """Whether it has what it took; not where it was struck meanwhile, and took nothing."""
    return pending is None or "take" not in part.words or bool(pending.get("taken"))


async def taken_anew(part: Part, many: int) -> list[dict[str, Any]]:
    """What it takes when it has woken up; that call may be the first to hear that it lapsed."""
    found = await part.puppet.asked("take", many)
    if found.get("error") == "SessionLapsed":
        found = await part.puppet.does("take", many)
    assert "error" not in found, found
    taken: list[dict[str, Any]] = found["taken"]
    return taken


class Replica(Part):
    """Takes alerts of a pool; finishes one, hands one back, puts one aside."""

    who = "replica"
    promise = "what it had in hand goes to another, marked; what it finished does not"
    settings = POOLED
    steps: tuple[Step, ...] = (
        Step("connected", ("connect",), ("hello",)),
        Step("joined", ("join", 1), ("create_pool", "join")),
        Step("took", ("take", 4), ("fetch",)),
        Step("finished", ("done", 0), ("finish",)),
        Step("handed back", ("back", 1), ("hand_back",)),
        Step("put aside", ("bury", 2), ("dead_letter",)),
    )

    async def set(self) -> None:
        self.source = await self.broker()
        await self.source.pools.create(POOL, ALERTS)
        self.feed = await self.source.open_channel(PRINTER, TYPE)
        for number in range(6):
            assert await self.feed.send(str(number)) == S_OK

    async def play(self) -> None:
        for step in self.steps:
            await self.step(step.name)

    async def judge(self) -> None:
        gone = {"0"} if self.did("finished") else set()
        gone |= {"2"} if self.did("put aside") else set()
        left = {str(number) for number in range(6)} - gone
        had = {"0", "1", "2", "3"} if self.did("took") else set()
        self.heir = await Member.of(await self.broker())
        taken = await self.heir.take(len(left))
        await self.noted()
        marked = {one.notification.text: one.redelivered for one in taken}
        assert len(marked) == len(taken), f"twice at one replica: {taken}"
        assert marked == {number: number in had for number in left}, f"{marked}; it had {had}"
        self.kept = next(one for one in taken if one.notification.text == "3")
        for one in taken:
            if one is not self.kept:
                await one.done()
        await self.buried()
        await counted(self.source, 0, 1)
        letters = await self.farm.client.xlen(keys_of(self.farm).dead)
        assert letters == self.did("put aside"), f"{letters} dead letters"
        self.report.checked["notifications"] += 6

    async def wake(self, pending: dict[str, Any] | None) -> None:
        if self.did("took") and has_taken(self, pending):
            fenced(await self.puppet.asked("done", 3))
        await self.kept.done()
        await self.heir.replica.leave()
        await self.puppet.does("connect")
        if self.stroke.step == "joined" and pending is not None and "error" in pending:
            await self.puppet.does("join", 1)
        if self.stroke.step == "connected":
            await self.puppet.does("join", 1)
        for number in range(6, 10):
            assert await self.feed.send(str(number)) == S_OK
        taken = await taken_anew(self, 4)
        assert [(one["body"], one["times"]) for one in taken] == [(str(n), 1) for n in range(6, 10)]
        await self.puppet.does("finish", 4)
        await counted(self.source, 0, 0)


class PoolOwner(Part):
    """A replica that answers for its pool, in two turns."""

    who = "pool's owner"
    promise = "another replica carries the dialog on; the source hears each answer once"
    settings = POOLED
    is_marked: ClassVar = False
    """Whether another replica had the dialog before it."""
    steps: tuple[Step, ...] = (
        Step("joined", ("join", 0), ("create_pool", "join")),
        Step("took", ("take", 1), ("fetch",)),
        Step("answered", ("respond", 0, "a1"), ("respond", "finish"), 0),
        Step("heard on", ("spoken", 0)),
        Step("ended its turn", ("ends", 0, "a2"), ("respond",)),
        Step("heard again", ("spoken", 0)),
        Step("closed", ("over", 0, "bye"), ("listener_close",)),
    )

    async def set(self) -> None:
        await self.puppet.does("connect")
        self.source = await self.broker()
        await self.source.pools.create(POOL, QUESTIONS)
        self.asking = Asking(await asked(self.source))

    async def play(self) -> None:
        for step in self.steps:
            await self.step(step.name)

    async def judge(self) -> None:
        handler = Handler(await Member.of(await self.broker(), QUESTIONS))
        await self.asking.over()
        await self.noted()
        await self.buried()
        assert len(handler.redelivered) == (not self.did("closed"))
        assert all(is_marked == self._is_marked() for is_marked in handler.redelivered)
        await handler.stop()
        await counted(self.source, 0, 0, BIDIRECTIONAL)
        self.report.checked["dialogs"] += 1

    def _is_marked(self) -> bool:
        return self.is_marked or self.did("took")

    async def wake(self, pending: dict[str, Any] | None) -> None:
        if self.did("took") and has_taken(self, pending):
            fenced(await self.puppet.asked("respond", 0, "late"))
        assert self.asking.heard == ["a1", "a2", "bye"]
        await self.puppet.does("connect")
        if self.stroke.step == "joined" and pending is not None and "error" in pending:
            await self.puppet.does("join", 0)
        again = Asking(await asked(self.source))
        taken = await taken_anew(self, 1)
        assert [(one["body"], one["times"]) for one in taken] == [("q", 1)]
        await self.puppet.does("carry")
        await again.over()


class Heir(PoolOwner):
    """A replica that carries on what another one began."""

    who = "pool's heir"
    is_marked = True
    steps: tuple[Step, ...] = (
        Step("adopted", ("take", 1), ("fetch", "adopt")),
        Step("repeated", ("respond", 0, "a1")),
        Step("heard on", ("spoken", 0)),
        Step("ended its turn", ("ends", 0, "a2"), ("respond",)),
        Step("heard again", ("spoken", 0)),
        Step("closed", ("over", 0, "bye"), ("listener_close",)),
    )

    async def set(self) -> None:
        await super().set()
        first = await Member.of(await self.broker(), QUESTIONS)
        offer = await first.offer()
        assert (await offer.ask("a1", PATIENCE)).text == "q2"
        await first.replica.leave()
        await self.puppet.does("join", 0)

    async def wake(self, pending: dict[str, Any] | None) -> None:
        if self.did("adopted") and has_taken(self, pending):
            await self.puppet.asked("respond", 0, "a1")  # said before: it is not asked for again
            fenced(await self.puppet.asked("respond", 0, "late"))
        await super().wake(None)


class Reaper(Part):
    """Ends what another process held that died with one of everything."""

    who = "reaper"
    promise = "another one ends the rest; everybody is told, each handle is dropped once"
    settings: ClassVar = {"lease": 60.0, "resync": 60.0}
    is_leased = False
    steps: tuple[Step, ...] = (
        Step(
            "ran down",
            ("run_down",),
            (
                "sweep", "source_close", "source_close", "unregister", "unregister",
                "listener_close", "disown", "disown", "orphan", "bury",
            ),
        ),
    )  # fmt: skip

    async def set(self) -> None:
        self.other, dying = await self.broker(), await self.broker()
        await self.puppet.does("connect")
        self.hearer = await Hearer.of(self.other)
        self.channels = [await asked(dying) for _ in range(2)]
        for channel in self.channels:
            await self.hearer.offered(channel.id)
        await self.hearer.offers[0].respond("a")
        # As an owner, as a listener, and for a pool.
        mine = await Hearer.of(dying)
        self.dialog = await asked(self.other)
        await (await mine.offered(self.dialog.id)).respond("a")
        for wish in (ALERTS, QUESTIONS):
            await self.other.pools.create(POOL, wish)
        self.feed = await self.other.open_channel(PRINTER, TYPE)
        for number in range(3):
            await self.feed.send(str(number))
        self.asking = Asking(await asked(self.other))
        alerts, questions = await Member.of(dying), await Member.of(dying, QUESTIONS)
        await alerts.take(2)
        while (offer := await questions.offer()).id != self.asking.channel.id:
            await offer.hand_back(3600)
        assert (await offer.ask("a1", PATIENCE)).text == "q2"
        self.sessions = [(await dying.server(PRINTER)).session]
        await die(self.farm, dying)
        await self._declared_dead()

    async def _declared_dead(self) -> None:
        await self.farm.client.zadd(keys_of(self.farm).leases, dict.fromkeys(self.sessions, 0))

    async def play(self) -> None:
        assert (await self.step("ran down"))["buried"] == 1

    async def judge(self) -> None:
        if self.stroke.manner is Manner.KILLED:
            self.sessions.append(self.puppet.session)
            await self._declared_dead()
        await self.other.run_down(PRINTER)
        for offer in self.hearer.offers[:2]:
            await released(offer)
        await released(self.dialog)
        heir = await Member.of(self.other)
        taken = {one.notification.text: one.redelivered for one in await heir.take(3)}
        assert taken == {"0": True, "1": True, "2": False}
        handler = Handler(await Member.of(self.other, QUESTIONS))
        await self.asking.over()
        await handler.stop()
        await heir.drain()
        await heir.replica.leave()
        left = await self._strangers()
        assert set(left) <= {self.puppet.session}, f"not buried: {left}"
        await stand(self.farm, 2)
        self.report.checked["ends"] += 3
        self.report.checked["notifications"] += 3
        self.report.checked["dialogs"] += 1

    async def wake(self, pending: dict[str, Any] | None) -> None:
        """What it did meanwhile was done, and is not done twice."""
        assert pending is None or "error" not in pending, pending
        assert (await self.puppet.does("run_down"))["buried"] == 0
        await self.handles()
