"""A pool on a bench, ``desk``: the listener and the other process are its replicas.

Calls of its scripts, made of their values, and scenes that they begin from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Style, _calls
from broker._calls import Handle, Place, Stowed
from broker._plan import PoolPlan
from broker._scripts import Arg, Call
from broker._server import Server
from tests.scripts.bench import KEEP, KEEP_POOLED, Bench

ID = "~desk"
"""The pool's registration, as the bench names it."""
GROUP = "T:alice:~desk"
OWN = "|T|uni|~desk"
"""The audience of its own stream."""
LETTER = {"pool": "desk", "registration": ID, "reason": "it burns", "times": "1"}


class Desk:
    """A pool: unidirectional, or on the boards."""

    def __init__(
        self,
        bench: Bench,
        style: Style = UNIDIRECTIONAL,
        *,
        buffer: int = 3,
        all_users: bool = False,
        source: str = "",
        name: str = "desk",
    ) -> None:
        self.bench = bench
        self.keys = bench.keys
        self.style = style
        self.plan = PoolPlan(name, bench.plan(style, all_users=all_users, source=source), buffer)

    @property
    def id(self) -> str:
        return self.plan.id

    def inbox(self, server: Server) -> str:
        return self.keys.inbox(server.session)

    # Calls ---------------------------------------------------------------------------------------

    def create(self, limit: int = 100, made: str = "") -> Call:
        return _calls.create_pool(self.keys, self.plan, limit, made)

    def delete(self) -> Call:
        return _calls.delete_pool(self.keys, self.plan)

    def join(self, who: Server | None = None) -> Call:
        return _calls.join(self.keys, (who or self.bench.listener).session, self.id)

    def fetch(self, most: int = 10, carried: int = 0, who: Server | None = None) -> Call:
        session = (who or self.bench.listener).session
        return _calls.fetch(self.keys, session, self.plan, most, carried)

    def place(self, number: int = 1, board: int = 0, times: int = 0) -> Place:
        """Where entry ``number`` lies: of its own stream, or of one of its boards."""
        id_ = f"{self.bench.source.epoch}-{number}"
        return Place(self.plan, self.plan.audiences[board], id_, times)

    def finish(self, *places: Place) -> Call:
        return _calls.finish(self.keys, places or [self.place()])

    def hand_back(self, *delays: tuple[Place, int]) -> Call:
        return _calls.hand_back(self.keys, delays or [(self.place(), 0)])

    def disown(self, holder: Server | None = None, most: int = 10) -> Call:
        session = (holder or self.bench.listener).session
        return _calls.disown(self.keys, self.plan, session, most)

    def orphan(self, holder: Server | None = None, channel: str = "c") -> Call:
        session = (holder or self.bench.listener).session
        return _calls.orphan(self.keys, channel, self.id, session)

    def adopt(self, who: Server | None = None, channel: str = "c") -> Call:
        session, source = (who or self.bench.other).session, self.bench.source.session
        return _calls.adopt(self.keys, session, channel, self.id, source)

    def dead_letter(
        self,
        place: Place | None,
        *,
        body: str | None = None,
        most: int = 10,
        letter: Mapping[str, Arg] = LETTER,
        after: str = "+",
    ) -> Call:
        return _calls.dead_letter(self.keys, place, body, most, KEEP_POOLED, letter, after)

    def replay(
        self,
        letter: str,
        place: Place | None = None,
        fields: Mapping[str, Arg] | None = None,
        *,
        call: str = "first",
    ) -> Call:
        fields = {"channel": "c", "body": "again"} if fields is None else fields
        return _calls.replay(self.keys, letter, place or self.place(), fields, call, KEEP)

    def drop(self, letter: str, *, call: str = "first") -> Call:
        return _calls.drop(self.keys, letter, call, KEEP)

    def send(self, op: int = 1, sent: Stowed | None = None, **options: Any) -> Call:
        """A notification by a source that knows this pool, and that it is the only one."""
        return self.bench.uni_send(op, sent, pools=(self.plan,), listed=self.listed(1), **options)

    def listed(self, changes: int) -> str:
        """The list of pools after so many changes."""
        return f"{self.bench.source.epoch}-{changes}"

    def handle(self, who: Server | None = None) -> Handle:
        """The pool's end of the dialog, as this process carries it."""
        session = (who or self.bench.listener).session
        return self.bench.handle(self.id, session)

    def respond(self, op: int = 1, who: Server | None = None, **options: Any) -> Call:
        return self.bench.respond(op, handle=self.handle(who), **options)

    def follow_up(self, op: int = 2, **options: Any) -> Call:
        return self.bench.follow_up(op, token=f"{self.bench.source.epoch}:{self.id}", **options)

    # Scenes --------------------------------------------------------------------------------------

    async def made(self) -> None:
        """The pool collects; the listener's process is a replica, and the source's channel open."""
        bench = self.bench
        await bench.done(
            (bench.listener, self.create()),
            (bench.listener, self.join()),
            (bench.source, bench.open(style=self.style)),
        )

    async def collected(self, many: int = 1) -> None:
        """It holds so many notifications, and nobody has them in hand."""
        await self.made()
        for op in range(1, many + 1):
            await self.bench.done((self.bench.source, self.send(op)))

    async def in_hand(self, many: int = 1) -> None:
        """The listener's process has so many notifications in hand."""
        await self.collected(many)
        await self.bench.done((self.bench.listener, self.fetch(many)))

    async def asked(self) -> None:
        """The listener's process has a question in hand; entry 1 of board 0."""
        await self.made()
        bench = self.bench
        await bench.done((bench.source, bench.offer()), (bench.listener, self.fetch(1)))

    async def carried(self) -> None:
        """The listener's process carries a dialog; the source's turn."""
        await self.asked()
        bench = self.bench
        await bench.done((bench.listener, self.respond()), (bench.listener, self.finish()))

    async def waiting(self) -> None:
        """The dialog waits for another replica."""
        await self.carried()
        await self.bench.done((self.bench.listener, self.orphan()))

    async def buried(self) -> str:
        """What the listener's process had in hand is a dead letter: its id."""
        await (self.asked() if self.style is BIDIRECTIONAL else self.in_hand())
        answer = await self.bench.ask(self.bench.listener, self.dead_letter(self.place()))
        letter: str = answer[1]
        return letter

    async def waits(self, server: Server, carried: int = 0) -> None:
        """This process's replica joined, and waits for work."""
        await self.bench.done((server, self.join(server)))
        await self.bench.done((server, self.fetch(10, carried, server)))
