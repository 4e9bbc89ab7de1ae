"""Ends of channels that are struck: a source, a listener, an owner."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from broker import Broker, Channel, Offer
from broker.errors import ChannelAlreadyClosed
from broker.results import S_OK
from tests.conformance.actors import eventually
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.faults.others import (
    SETTINGS,
    Hearer,
    answered,
    asked,
    closed,
    converses,
    lost,
    refused,
    released,
)
from tests.faults.strokes import Moment, Part, Step, fenced
from tests.redis.scenes import stand


class Source(Part):
    """Opens a channel, asks, asks on, and closes it."""

    who = "source"
    promise = "its listeners are told once, nobody hears more of it, and hear the next question"
    settings = SETTINGS
    steps: tuple[Step, ...] = (
        Step("connected", ("connect",), ("hello",)),
        Step("opened", ("open",), ("open",)),
        Step("asked", ("send", "q"), ("offer",)),
        Step("heard", ("response",)),
        Step("asked on", ("send", "q2"), ("follow_up",)),
        Step("heard again", ("response",)),
        Step("closed", ("end", "enough"), ("source_close",)),
    )

    async def set(self) -> None:
        self.hearers = [await Hearer.of(await self.broker()) for _ in range(2)]
        self.other = await self.broker()
        await self.other.server(PRINTER)
        self.has_owner = False

    async def play(self) -> None:
        await self.step("connected")
        channel = (await self.step("opened"))["channel"]
        await self.step("asked")
        owner, other = [await hearer.offered(channel) for hearer in self.hearers]
        await owner.respond("a1")
        self.has_owner = True
        await lost(other)
        await self.step("heard")
        await self.step("asked on")
        assert (await owner.follow_up(PATIENCE)).text == "q2"
        await owner.respond("a2")
        await self.step("heard again")
        await self.step("closed")

    async def judge(self) -> None:
        for hearer in self.hearers if self.did("asked") else ():
            await eventually(lambda: bool(hearer.offers), "the question")  # noqa: B023
        for hearer in self.hearers:
            for offer in hearer.offers:
                await self._is_over(offer, is_owner=hearer is self.hearers[0])
        await self.noted()
        await self.buried()
        for hearer in self.hearers:
            assert len(hearer.offers) == self.did("asked")
            for offer in hearer.offers:
                await refused(offer)
        await converses(self.other, self.hearers)
        for hearer in self.hearers:
            hearer.offers.clear()

    async def _is_over(self, offer: Offer[Any], *, is_owner: bool) -> None:
        if self.has_owner and not is_owner:
            await lost(offer)
        elif self.did("closed"):
            assert (await closed(offer)).reason.text == "enough"
        else:
            await released(offer)
        self.report.checked["ends"] += 1

    async def wake(self, pending: dict[str, Any] | None) -> None:
        if self.did("opened"):
            fenced(await self.puppet.asked("send", "late"))
        if not (pending is not None and self.is_late and "channel" in pending):
            await self.puppet.does("open")
        await self.puppet.does("send", "again")
        await eventually(lambda: all(hearer.offers for hearer in self.hearers), "a new question")
        assert [[each.notification.text for each in h.offers] for h in self.hearers] == [
            ["again"],
            ["again"],
        ]
        await self.hearers[1].offers[0].respond("here")
        assert (await self.puppet.does("response"))["body"] == "here"
        await self.puppet.does("end", "enough")


class Listener(Part):
    """Hears an alert and a question, and leaves the question to the others."""

    who = "listener"
    promise = "its question stays with the others, who miss nothing; nothing of it is left"
    settings = SETTINGS
    steps: tuple[Step, ...] = (
        Step("connected", ("connect",), ("hello",)),
        Step("registered", ("register", 0), ("register",)),
        Step("registered for alerts", ("register", 1), ("register",)),
        Step("heard an alert", ("hear",)),
        Step("heard a question", ("offer",)),
        Step("declined", ("decline", 0), ("listener_close",)),
    )

    async def set(self) -> None:
        self.source = await self.broker()
        self.hearer = await Hearer.of(await self.broker())
        self.feed = await self.source.open_channel(PRINTER, TYPE)
        self.channel: Channel | None = None
        self.sent: list[str] = []

    async def _alert(self) -> None:
        self.sent.append(str(len(self.sent)))
        assert await self.feed.send(self.sent[-1]) == S_OK

    async def play(self) -> None:
        await self.step("connected")
        await self.step("registered")
        await self.step("registered for alerts")
        await self._alert()
        await self.step("heard an alert")
        self.channel = await asked(self.source)
        await self.step("heard a question")
        await self.step("declined")

    async def judge(self) -> None:
        await self._alert()
        self.channel = self.channel or await asked(self.source)
        offer = await self.hearer.offered(self.channel.id)
        if self.stroke.moment is Moment.AFTER:  # the dead one's lease runs yet
            await self._goes_on(offer)
        await self.buried()
        await self.noted()
        if self.stroke.moment is not Moment.AFTER:
            await self._goes_on(offer)
        await stand(self.farm, 2)
        await self._alert()
        await eventually(lambda: self.hearer.heard == self.sent, f"{self.sent}")
        self.report.checked["notifications"] += len(self.sent)

    async def _goes_on(self, offer: Offer[Any]) -> None:
        """The question is open, for whoever is left."""
        assert self.channel is not None
        assert self.channel.closing is None, "a listener that owns nothing ended a dialog"
        await offer.respond("b")
        await answered(self.channel, "b")
        assert self.channel.owner == self.hearer.two_way.id
        await self.channel.close("enough")
        assert (await closed(offer)).reason.text == "enough"
        self.report.checked["ends"] += 2

    async def wake(self, pending: dict[str, Any] | None) -> None:
        if self.did("heard a question"):
            fenced(await self.puppet.asked("answer", 0, "late"))
        await self.puppet.does("connect")
        has_alerts = self.did("registered for alerts") or _stands(pending)
        if not self.did("registered") and not (has_alerts and self.stroke.step == "registered"):
            await self.puppet.does("register", 0)
        await stand(self.farm, 4 if has_alerts and self.stroke.step != "registered" else 3)
        await hears(self.puppet, self.source)


def _stands(pending: dict[str, Any] | None) -> bool:
    """Whether its broken registration came to stand."""
    return pending is not None and "registration" in pending


async def hears(puppet: Any, source: Broker) -> None:
    """A process hears a new question, and its answer is heard."""
    channel = await asked(source, "again")
    offer = await puppet.does("offer")
    assert (offer["channel"], offer["body"]) == (channel.id, "again")
    await puppet.does("answer", offer["number"], "here")
    await answered(channel, "here")
    await channel.close()


class Owner(Part):
    """Answers first, hears on, answers again, and closes."""

    who = "owner"
    promise = "the source heard what was said, is told, and asks others; unowned, others answer"
    settings = SETTINGS
    steps: tuple[Step, ...] = (
        Step("heard a question", ("offer",)),
        Step("answered", ("answer", 0, "a1"), ("respond",)),
        Step("heard on", ("follow_up", 0)),
        Step("answered again", ("answer", 0, "a2"), ("respond",)),
        Step("closed", ("close", 0, "done"), ("listener_close",)),
    )

    async def set(self) -> None:
        self.source = await self.broker()
        self.hearer = await Hearer.of(await self.broker())
        await self.puppet.does("connect")
        self.registration = (await self.puppet.does("register"))["registration"]
        self.channel = await asked(self.source)
        self.heard: list[str] = []
        self.hearing: asyncio.Task[None] = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        async for response in self.channel.responses():
            self.heard.append(response.text)
            if response.text == "a1":
                with contextlib.suppress(ChannelAlreadyClosed):
                    await self.channel.send("q2")

    async def play(self) -> None:
        offer = await self.hearer.offered(self.channel.id)
        await self.step("heard a question")
        await self.step("answered")
        await lost(offer)
        await self.step("heard on")
        await self.step("answered again")
        await self.step("closed")

    async def judge(self) -> None:
        offer = await self.hearer.offered(self.channel.id)
        steps = {"answered": "a1", "answered again": "a2", "closed": "done"}
        said = [body for step, body in steps.items() if self.did(step)]
        if said:
            closing = await closed(self.channel)
            assert closing.reason.is_release != self.did("closed"), f"the source was told {closing}"
            await lost(offer)
        else:
            await self.buried()
            assert self.channel.closing is None, "it ended with a listener that owned nothing"
            await offer.respond("b")
            said = ["b"]
            await eventually(lambda: self.heard == said, "the other's answer")
            await self.channel.close()
        await self.noted()
        await self.buried()
        await self.hearing
        assert self.heard == said, f"the source heard {self.heard}, and {said} was said"
        await refused(self.channel)
        await refused(offer)
        self.report.checked["ends"] += 2
        await stand(self.farm, 2)
        await converses(self.source, [self.hearer])

    async def wake(self, pending: dict[str, Any] | None) -> None:
        del pending
        if self.did("heard a question"):
            fenced(await self.puppet.asked("answer", 0, "late"))
        await self.puppet.does("connect")
        await stand(self.farm, 3)
        await hears(self.puppet, self.source)
        assert self.heard[-1] in ("b", "a1", "a2", "done")
