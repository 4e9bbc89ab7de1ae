"""Drafts: calls of the scripts as one printer, one user and one type would make them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from benchmarks.caller import Caller
from broker import _calls
from broker._calls import Handle, Place, Route, Stowed
from broker._keys import channel_audiences, subject
from broker._plan import PoolPlan, RegistrationPlan
from broker._scripts import Arg, Call
from broker.conversation import BIDIRECTIONAL, PER_USER, Style
from broker.names import Name
from broker.settings import Settings

TYPE = uuid.UUID("5a1f6f0e-3c0b-4f0e-8f55-6a4d2f0d9a01")
PRINTER = Name("print01", "laser-3")
SETTINGS = Settings()
SMALL = Stowed("body", b"x" * 256, None)
LARGEST = Stowed("body", b"x" * SETTINGS.body_by_reference, None)
KEEP_MS = 600_000


def plan_of(style: Style, printer: Name = PRINTER, user: str = "alice") -> RegistrationPlan:
    """What one listener asks for."""
    return RegistrationPlan(printer, TYPE, style, user, PER_USER, printers=False, needed=0)


class Drafts:
    """What a caller could ask for."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._keys = caller.keys

    def open(self, channel: str, style: Style, limit: int = SETTINGS.max_channels) -> Call:
        """A channel to one user."""
        what = subject(PRINTER, TYPE, style, "alice")
        where = (self._keys, self._caller.session, channel, what, style.word, "spooler")
        return _calls.open_channel(*where, "", 0, limit)

    def route(
        self, channel: str, style: Style, pools: Sequence[PoolPlan] = (), listed: str = ""
    ) -> Route:
        """Where its notifications go; by the list from before the first pool, if none is named."""
        audiences = channel_audiences(PRINTER, TYPE, style, "alice")
        place = (self._keys, channel, PRINTER.printer, "alice")
        return Route.of(*place, audiences, pools, listed or f"{self._caller.epoch}-0")

    def register(self, id_: str, plan: RegistrationPlan, buffer: int | None = None) -> Call:
        """A registration; unidirectional ones with so many unread."""
        record = PoolPlan("", plan, 0).record() | {"session": self._caller.session}
        size = "" if plan.style is BIDIRECTIONAL else buffer or SETTINGS.buffer
        return _calls.register(
            self._keys, self._caller.session, id_, plan, record, SETTINGS.max_registrations, size
        )

    def unregister(self, id_: str, plan: RegistrationPlan) -> Call:
        """Its end."""
        return _calls.unregister(self._keys, id_, plan, "unregister", self._caller.session)

    def send(self, route: Route, op: int, body: Stowed = SMALL) -> Call:
        """One unidirectional notification."""
        return _calls.uni_send(self._keys, route, op, body, "", KEEP_MS, lossless=False)

    def offer(self, channel: str, body: Stowed = SMALL) -> Call:
        """The question of a channel."""
        return _calls.offer(self._keys, self.route(channel, BIDIRECTIONAL), 1, body, "")

    def offer_again(self, channel: str) -> Call:
        """Look for it on its boards."""
        return _calls.offer_again(self._keys, self.route(channel, BIDIRECTIONAL))

    def handle(self, channel: str, registration: str = "listener") -> Handle:
        """A listener's end of it."""
        session, route = self._caller.session, self.route(channel, BIDIRECTIONAL)
        return Handle(registration, "alice", session, session, route, None)

    def respond(self, channel: str, body: Stowed = SMALL, registration: str = "listener") -> Call:
        """A listener's answer."""
        return _calls.respond(self._keys, self.handle(channel, registration), 1, KEEP_MS, body)

    def follow_up(self, channel: str, token: str, body: Stowed = SMALL) -> Call:
        """The source's next notification in a dialog."""
        return _calls.follow_up(self._keys, channel, 2, token, self._caller.session, body, "")

    def source_close(self, channel: str, op: int, *, is_owned: bool, body: Stowed) -> Call:
        """The source ends a dialog with a reason."""
        session = self._caller.session
        route = self.route(channel, BIDIRECTIONAL)
        owner = session if is_owned else ""
        return _calls.source_close(
            self._keys, route, op, "close", session, owner, KEEP_MS, None, body
        )

    def listener_close(self, channel: str, op: int, body: Stowed) -> Call:
        """A listener ends a dialog with a reason."""
        return _calls.listener_close(self._keys, self.handle(channel), op, "close", KEEP_MS, body)

    def letter(self, place: Place, body: Stowed, after: str) -> Call:
        """A dead letter of a notification in hand, where letters since ``after`` are compared."""
        letter: dict[str, Arg] = {
            "pool": "pool",
            "registration": place.pool.id,
            "type": str(TYPE),
            "stream": place.audience.field,
            "entry": place.entry,
            "reason": "RuntimeError: the printer is on fire",
            "times": 1,
            "body": body.arg,
        }
        most = SETTINGS.dead_letters
        return _calls.dead_letter(self._keys, place, None, most, KEEP_MS, letter, after)
