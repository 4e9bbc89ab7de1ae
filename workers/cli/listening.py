"""Listening: a registration at the command line, and what comes to it, told as it comes."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Coroutine
from typing import Any

from rich.text import Text

from broker import (
    Closing,
    FarmRegistration,
    Name,
    Notification,
    Offer,
    Payload,
    Registration,
    Result,
    inventory,
)
from broker.async_ui import AsyncUIReply
from broker.errors import (
    ChannelAcquired,
    ChannelAlreadyClosed,
    PayloadInvalid,
    SessionLapsed,
)
from broker.notification_type import describe_type
from broker.results import S_OK
from workers.cli.answering import Answering, Silence, settled
from workers.cli.output import Output, body_record, body_shown, clock, printable, result_record
from workers.cli.payloads import payload_record, payload_shown
from workers.cli.replies import reply_to

TOLD_WITHIN = 1.0
"""Seconds that a refused answer waits for the news why; the refusal itself says the most of it."""


async def _owner_of(offer: Offer[Payload]) -> str | None:
    """Who answered first; None where Redis does not know it any more."""
    facts = await inventory.read_channel(offer.registration.server, offer.id)
    return facts.owner if facts is not None else None


class Listening:
    """The news of a registration, on one server or on all, until enough was heard."""

    def __init__(
        self,
        registration: Registration[Payload] | FarmRegistration[Payload],
        output: Output,
        answering: Answering,
        count: int | None,
    ) -> None:
        self.heard = 0
        """Notifications; or, of a bidirectional registration, dialogs that ended here."""
        self._registration = registration
        self._output = output
        self._answering = answering
        self._count = count
        self._tasks: set[asyncio.Task[None]] = set()
        self._enough: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def until_enough(self) -> None:
        """Listen until ``count`` is reached, or else for ever. Raises what ends the listening."""
        self._run(self._hear())
        try:
            await self._enough
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not self._enough.done():
            self._enough.set_exception(error)

    async def _hear(self) -> None:
        while not self._enough.done():
            item = await self._registration.fetch()
            if isinstance(item, Offer):
                self._run(self._follow(item))
            elif item is not None and item.is_release:
                self._tell_release(item)
            elif item is not None:
                self._tell_notification(item)
                self._count_one()

    def _count_one(self) -> None:
        self.heard += 1
        if self.heard == self._count and not self._enough.done():
            self._enough.set_result(None)

    # Dialogs -----------------------------------------------------------------------------------

    async def _follow(self, offer: Offer[Payload]) -> None:
        """One question, and the dialog that follows where our answer is the first."""
        question: Notification[Payload] | None = offer.notification
        while question is not None:
            self._tell_notification(question, is_question=True)
            answer = await self._fitting_answer(offer, question)
            if answer is not Silence.LEAVE and await self._is_over(offer, answer):
                break
            question = await offer.next_told()
        else:
            self._tell_closed(offer, offer.closing)
        self._count_one()

    async def _fitting_answer(
        self, offer: Offer[Payload], question: Notification[Payload]
    ) -> bytes | AsyncUIReply | Silence:
        """An answer that the question takes, asked for until it is one."""
        while True:
            answer = await self._answering.answer(offer, question)
            if not isinstance(answer, str):
                return answer
            try:
                return reply_to(question, answer)
            except PayloadInvalid as error:
                if not self._answering.can_think_again:
                    self._output.note(f"not answered, {error}", "yellow")
                    return Silence.DECLINE
                self._output.note(f"not answered, {error}; answer again", "yellow")

    async def _is_over(self, offer: Offer[Payload], answer: bytes | AsyncUIReply | Silence) -> bool:
        """Answer or decline; whether that was the end of it, and is told."""
        try:
            if isinstance(answer, bytes):
                result = await settled(lambda: offer.respond(answer), self._warn)
                self._tell_answer(offer, "responded", result)
                return False
            if isinstance(answer, AsyncUIReply):
                result = await settled(lambda: offer.close(answer), self._warn)
                self._tell_answer(offer, "responded", result)
                if result == S_OK or offer.is_lost:
                    self._tell_closed(offer, offer.closing)
                else:
                    owner = await settled(lambda: _owner_of(offer), self._warn)
                    self._tell_closed(offer, None, owner)
                return True
            was_mine = offer.is_mine
            result = await settled(offer.close, self._warn)
            if was_mine:
                self._tell_closed(offer, offer.closing)
            else:
                self._tell_answer(offer, "declined", result)
            return True
        except SessionLapsed:
            return False  # the end of the dialog is told to it, as to all that this process held
        except (ChannelAcquired, ChannelAlreadyClosed) as error:
            if not isinstance(answer, Silence):
                self._tell_answer(offer, "responded", error.result)
            closing = await offer.wait_closed(TOLD_WITHIN)
            by = error.by if isinstance(error, ChannelAcquired) else None
            self._tell_closed(offer, closing, by)
            return True

    def _warn(self, text: str) -> None:
        self._output.note(text, "yellow")

    # Telling -----------------------------------------------------------------------------------

    def tell_registered(self) -> None:
        """It can be reached from now on."""
        registration = self._registration
        if not isinstance(registration, FarmRegistration):
            plan = registration.plan
            place = {"registration": registration.id, "name": str(plan.name)}
            self._tell_registered(plan, place, f"on {plan.name}")
            return
        reached = [str(Name(server)) for server in registration.reached]
        missing = {str(Name(name)): str(error) for name, error in registration.missing.items()}
        farm = {"everywhere": True, "names": reached, "missing": missing}
        result = result_record(registration.result)
        where = f"on {', '.join(reached) or 'no server yet'}"
        self._tell_registered(registration.wish, {**farm, **result}, where)
        for error in missing.values():
            self._output.note(f"not everywhere: {error}", "yellow")

    def _tell_registered(self, asked: Any, place: dict[str, Any], where: str) -> None:
        user = printable(asked.user)
        whose = "anybody" if asked.user_filter else user
        printers = " with all printers" if asked.printers else ""
        record = {
            "event": "registered",
            **place,
            "type": str(asked.type),
            "style": asked.style.word,
            "user": asked.user,
            "all_users": bool(asked.user_filter),
            "printers": asked.printers,
        }
        self._output.tell(
            record,
            Text(
                f"{user} listens {where}{printers} to what is for {whose}: "
                f"{describe_type(asked.type)}, {asked.style.word} (Ctrl-C ends)",
                "dim",
            ),
        )

    def _tell_notification(self, told: Notification[Any], *, is_question: bool = False) -> None:
        record = {
            "event": "notification",
            "channel": told.channel,
            "name": str(told.name),
            "type": str(told.type),
            "user": told.user,
            "at": told.at,
            **payload_record(told.data, told.model),
        }
        if is_question and self._answering.shows_questions:
            self._output.tell(record)
            return
        body = payload_shown(told.data, told.type, told.model)
        body = f"\n{textwrap.indent(body, '  ')}" if "\n" in body else f" {body}"
        line = self._line(told, "asks" if is_question else "to", told.user or "all users")
        self._output.tell(record, line.append(body))

    @staticmethod
    def _line(told: Notification[Any], verb: str, user: str) -> Text:
        return Text.assemble(
            (clock(told.at), "dim"),
            f"  {told.name} ",
            (f"{verb} ", "dim"),
            (printable(user), "cyan"),
            ":",
        )

    def _tell_release(self, told: Notification[Any]) -> None:
        record = {"event": "deleted", "name": str(told.name), "at": told.at}
        words = f"          {told.name}: the printer was deleted; we hear of one that comes again"
        self._output.tell(record, Text(words, "yellow"))

    def _tell_answer(self, offer: Offer[Payload], event: str, result: Result) -> None:
        record = {"event": event, "channel": offer.id, **result_record(result)}
        words = f"{event} ({result.name})"
        if result == S_OK and event == "responded":
            words = "our answer was the first: the dialog is ours"
        elif result == S_OK:
            words = "declined: the question is left to the others"
        style = "green" if result == S_OK else "yellow"
        self._output.tell(record, Text(f"          {offer.name}: {words}", style))

    def _tell_closed(
        self, offer: Offer[Payload], closing: Closing | None, by: str | None = None
    ) -> None:
        """``by``: who acquired it, where only the refusal said so."""
        reason = closing.reason.data if closing is not None else None
        acquired = closing.acquired if closing is not None else by is not None
        closer = closing.by if closing is not None else by
        if closer == offer.registration.id:
            closer = offer.registration.plan.user
        record = {
            "event": "closed",
            "channel": offer.id,
            **body_record(reason, "reason"),
            "by": closer,
            "acquired": acquired,
        }
        if acquired:
            words = f"{closer} answered first: the question is withdrawn"
        elif closer is None:
            words = "over: the other end, or Redis's memory of it or of this process, is gone"
        else:
            words = f"closed by {closer}"
        if reason is not None:
            words = f"{words}: {body_shown(reason, offer.type)}"
        self._output.tell(record, Text(f"          {offer.name}: {printable(words)}", "yellow"))
