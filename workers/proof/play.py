r"""The play: what ``tympan prove`` does on a Redis of the user's own, and what it saw.

Everything happens on one print server of a namespace of its own, which is cleared away afterwards.
Only what is the play's own is broken: its processes are killed, its connections cut. Redis itself
is left in peace. A lease is short here, so that its end can be waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    Broker,
    Durability,
    Name,
    Offer,
    Settings,
)
from broker.errors import AccessDenied, InvalidArgument, RedisRefused, TympanError
from broker.inventory import together
from broker.pool import Subscription
from broker.replica import Delivery, ReplicaListener
from broker.results import Result
from workers.proof import race
from workers.proof.audience import Audience
from workers.proof.child import Child, ChildEnded
from workers.proof.connections import Connections
from workers.proof.deaths import Deaths
from workers.proof.ground import Ground
from workers.proof.history import (
    History,
)
from workers.proof.invariants import PERMANENT
from workers.proof.party import Part
from workers.proof.patience import now, until
from workers.proof.race import Race
from workers.proof.shift import POOL, Shift
from workers.proof.talk import PRINTER, TYPE, Talk, Weather

LEASE = 3.0
"""Of every process: the longest one says how long Redis takes nobody for dead in the beginning."""
HEARD_WITHIN = 5.0
"""Seconds after a cut until every listener has heard again."""
PATIENCE = 15.0
"""Seconds after which something that must come is missing."""
RESPONDERS, PROCESSES = 32, 2
SOURCES, LISTENERS = 2, 3
REPLICAS = 3
PAIRS = 2
"""Owners, and sources, that are killed at the same time."""
SERVER = str(Name.parse(PRINTER).of_server)
OTHER_PRINTER = SERVER + r"\laser-4"
PRIVATE_TYPE = "5a1f6f0e-3c0b-4f0e-8f55-6a4d2f0d9a03"
OTHER_TYPE = "5a1f6f0e-3c0b-4f0e-8f55-6a4d2f0d9a04"
ROLES = ("source", "listener", "worker", "reaper", "operator")
"""Whose credentials the play needs, together."""
RIGHTS = (
    ("spooler", PRINTER),
    ("spooler", OTHER_PRINTER),
    ("carol", PRINTER),
    ("dave", OTHER_PRINTER),
)
"""Who administers what."""
LONGEST = 120.0
"""Seconds that the play may take beyond three times what it should."""


@dataclass
class Act:
    """One part of the play."""

    name: str
    did: str = ""
    """What was done, with numbers, for people."""
    recovered: list[float] = field(default_factory=list)
    """Seconds from each blow until all went on, or were told of the end."""


@dataclass
class Proof:
    """What was seen."""

    history: History
    acts: list[Act]
    keys_listed: bool
    """Whether all keys could be listed, not only those that are known by name."""
    remarks: list[str]
    seconds: float = 0.0


class NamespaceTaken(InvalidArgument):
    """Somebody works in the namespace that the play was to have for itself."""


class NothingComes(TympanError):
    """Not even one question reaches a listener in time."""

    result = Result.win32("TIMEOUT", 1460)


class Forbidden(RedisRefused):
    """This credential may not do what the play needs."""


class Play:
    """One play.

    Args:
        url: the Redis.
        settings: namespace, durability and time limits; the play has its own lease.
        seconds: about how long it goes on.
        tell: told what begins.
        patience: seconds after which something that must come is missing.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        seconds: float,
        tell: Callable[[str], None],
        patience: float = PATIENCE,
    ) -> None:
        self.history = History()
        self.acts: list[Act] = []
        self.remarks: list[str] = []
        self._url = url
        keep = max(settings.keep_closed, 4 * seconds + LONGEST)
        self._settings = settings.model_copy(update={"lease": LEASE, "keep_closed": keep})
        self._options = self._settings.model_dump(exclude_defaults=True)
        self._of_children = {k: v for k, v in self._options.items() if k != "namespace"}
        self._seconds = seconds
        self._tell = tell
        self._patience = patience
        self._seed = random.randrange(2**32)
        self._connections = Connections()

    async def run(self) -> Proof:
        """Play, judge, and clear away. Raises TympanError where it cannot be played here."""
        begun = now()
        async with Ground(self._url, self._settings) as ground:
            await self._begin(ground)
            try:
                await self._play_all(ground)
                await self._settle(ground)
            except BaseException:
                with contextlib.suppress(TympanError):  # what went wrong first is what is told
                    await self._clear(ground)
                raise
            await self._clear(ground)
            return Proof(self.history, self.acts, ground.is_scanned, self.remarks, now() - begun)

    async def _begin(self, ground: Ground) -> None:
        """See that it can be played here. Raises NamespaceTaken, Forbidden, RedisError."""
        try:
            if await ground.is_taken():
                raise NamespaceTaken(
                    f"namespace {ground.namespace} is in use on {ground.where}, and a play clears "
                    "all of its own away: name another one, or none"
                )
            await self._examine(ground)
            try:
                await self._rehearse(ground)
            except BaseException:
                with contextlib.suppress(TympanError):
                    await self._clear(ground)
                raise
        except (RedisRefused, AccessDenied) as error:
            raise Forbidden(
                f"{error}. What the play needs is printed by: tympan acl {' '.join(ROLES)} "
                rf"--all-users --server '{SERVER}' --namespace {ground.namespace}"
                + (f" --durability {self._settings.durability}" if self._is_lasting else "")
                + "; then name that --namespace here, too"
            ) from None

    async def _clear(self, ground: Ground) -> None:
        self._tell("clearing away")
        await ground.note_names(self.history)
        await ground.clear()

    async def _play_all(self, ground: Ground) -> None:
        share = self._seconds / 10
        try:
            async with asyncio.timeout(3 * self._seconds + LONGEST):
                await self._whole(self._race(3 * share))
                await ground.note_names(self.history)
                await self._whole(self._talk(4 * share, ground))
                async with self._caretaker():
                    await together(
                        self._whole(self._rights()),
                        self._whole(self._deaths(3 * share)),
                        self._whole(self._pool(3 * share)),
                        self._note_later(ground),
                    )
        except TimeoutError:
            self.history.faults.append(f"the play did not end: {[act.name for act in self.acts]}")

    async def _whole(self, act: Awaitable[None]) -> None:
        """What hangs, fails, or ends by itself breaks a promise, and the other acts go on."""
        try:
            await act
        except (TimeoutError, ChildEnded, TympanError) as error:
            self.history.faults.append(f"an act was not played to its end: {error!r}")

    async def _note_later(self, ground: Ground) -> None:
        """While pools and their replicas stand."""
        await asyncio.sleep(1.0)
        await ground.note_names(self.history)

    @property
    def _is_lasting(self) -> bool:
        return self._settings.durability is not Durability.MEMORY

    def _broker(self, user: str) -> Broker:
        return self._connections.broker(self._url, user=user, **self._options)

    def _act(self, name: str) -> Act:
        self._tell(name)
        self.acts.append(Act(name))
        return self.acts[-1]

    @contextlib.asynccontextmanager
    async def _caretaker(self) -> AsyncIterator[None]:
        """Somebody looks for the dead often, as a reaper does."""
        async with self._broker("reaper") as broker:
            (await broker.server(PRINTER)).sweeps_often = True
            yield

    # Before ---------------------------------------------------------------------------------------

    async def _examine(self, ground: Ground) -> None:
        """What this Redis may lose on its own; `tympan doctor` looks closer."""
        facts = await ground.info("persistence", "memory")
        if facts.get("aof_enabled") == "0":
            self.remarks.append(
                "this Redis has no append-only file: what is open may not survive its restart "
                "(`tympan doctor`)"
            )
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            self.remarks.append(
                f"this Redis evicts keys when it is full: {policy} (`tympan doctor`)"
            )

    async def _rehearse(self, ground: Ground) -> None:
        """All that the play needs, once, so that what is forbidden here is told at the start."""
        self._tell("trying what is needed")
        async with self._broker("spooler") as source, self._broker("carol") as listener:
            await source.grant(PRINTER, "spooler", "administer")
            await source.grant(PRINTER, "carol", "administer")
            everybody = await listener.register(
                PRINTER, TYPE, user_filter=ALL_USERS, style=BIDIRECTIONAL
            )
            channel = await source.open_channel(
                PRINTER, TYPE, user_filter=ALL_USERS, style=BIDIRECTIONAL
            )
            ground.know((ground.keys.channel(channel.id), ground.keys.log(channel.id)))
            await channel.send("rehearsal 0")
            offer = await everybody.fetch(self._patience)
            if not isinstance(offer, Offer):
                raise NothingComes(
                    f"{ground.where}: a question was not offered within {self._patience:g} s: try "
                    "--patience, and `tympan doctor`"
                )
            await offer.respond("rehearsal 0")
            await channel.response(self._patience)
            await channel.close()
            wish = Subscription(PRINTER, TYPE, user=POOL)
            replica = await listener.pools.join(POOL, wish, listener=ReplicaListener())
            feed = await source.open_channel(PRINTER, TYPE, user=POOL)
            ground.know([ground.keys.channel(feed.id)])
            await feed.send("rehearsal", lossless=True)
            for each in await replica.take(1):
                if isinstance(each, Delivery):
                    await each.done()
            await feed.close()
            await replica.leave()
            await listener.pools.delete(POOL, PRINTER)
            await listener.revoke(PRINTER, "carol", "administer")
            await everybody.unregister()

    # The race -------------------------------------------------------------------------------------

    async def _race(self, seconds: float) -> None:
        act = self._act("many respond at once")
        form = Race(10**9, RESPONDERS, PROCESSES, self._seed, self._of_children, self._patience)
        urls = [self._url] * (PROCESSES + 1)
        seen = await race.run(form, urls, self._settings.namespace, seconds=seconds)
        self.history.merge(seen)
        many = f"{len(seen.dialogs):,} questions"
        act.did = f"{many}, each to {RESPONDERS} listeners in {PROCESSES} processes"

    # The talk -------------------------------------------------------------------------------------

    async def _talk(self, seconds: float, ground: Ground) -> None:
        act = self._act("connections are cut under dialogs")
        weather = Weather()
        weather.patience = self._patience
        talk = Talk(
            self._settings.namespace,
            self._url,
            str(self._settings.durability),
            weather,
            self._seed,
            self.history,
            tuning=self._options | {"buffer": 10_000},
            connect=self._connections.broker,
            patience=self._patience,
        )
        before, due, cut = len(self.history.dialogs), now() + seconds, 0
        async with talk.goes_on(SOURCES, LISTENERS):
            while now() < due:
                aim = talk.finished + 5
                await until(lambda: talk.finished >= aim, "5 finished dialogs", self._patience)  # noqa: B023
                cut += self._connections.cut()
                weather.strikes()
                struck = now()
                with contextlib.suppress(TimeoutError):  # who does not hear again is told below
                    everybody = set(talk.listeners)
                    await until(lambda: everybody <= weather.heard.keys(), "all", 4 * HEARD_WITHIN)  # noqa: B023
                self._recovers(act, talk.listeners, weather.heard, struck)
                weather.passes()
            await ground.note_names(self.history)
        act.did = (
            f"{len(self.history.dialogs) - before:,} dialogs, {len(self.history.feeds)} feeds, "
            f"{LISTENERS} listeners; {cut} connections cut in {len(act.recovered)} blows"
        )

    def _recovers(
        self, act: Act, listeners: Sequence[str], heard: dict[str, float], struck: float
    ) -> None:
        after = max(heard.get(name, float("inf")) - struck for name in listeners)
        if after < float("inf"):
            act.recovered.append(after)
        if after > HEARD_WITHIN:
            when = f"after {after:.1f} s" if after < float("inf") else "no more"
            self.history.faults.append(f"{act.name}: the last listener heard again {when}")

    # Rights ---------------------------------------------------------------------------------------

    async def _rights(self) -> None:
        """Everybody's channels, to everybody's registrations, and one right that is taken away."""
        act = self._act("user filters and rights")
        audience, mine = Audience(self.history, self._patience), PRIVATE_TYPE
        async with contextlib.AsyncExitStack() as stack:
            users = ("alice", "bob", "carol", "dave", "spooler")
            brokers = {user: await stack.enter_async_context(self._broker(user)) for user in users}
            admin = brokers["spooler"]
            for user, place in RIGHTS:
                await admin.grant(place, user, "administer")
            for user, place, type_, wish in (
                ("alice", PRINTER, mine, PER_USER),
                ("alice", OTHER_PRINTER, mine, PER_USER),
                ("alice", SERVER, mine, PER_USER),
                ("bob", PRINTER, mine, PER_USER),
                ("bob", PRINTER, OTHER_TYPE, PER_USER),
                ("bob", PRINTER, mine, ALL_USERS),
                ("carol", PRINTER, mine, ALL_USERS),
                ("carol", OTHER_PRINTER, mine, ALL_USERS),
                ("carol", SERVER, mine, ALL_USERS),
                ("dave", OTHER_PRINTER, mine, ALL_USERS),
                ("dave", PRINTER, mine, ALL_USERS),
            ):
                may = wish is PER_USER or (user, place) in RIGHTS
                await audience.listen(brokers[user], place, type_, wish, has_right=may)
            for place in (PRINTER, OTHER_PRINTER):
                for user in ("alice", "bob", "erin", ""):
                    await audience.speak(admin, place, mine, user)
            await audience.refused(brokers["bob"], PRINTER, mine)
            await audience.hears_all()
            audience.being_denied("carol", PRINTER)
            await admin.revoke(PRINTER, "carol", "administer")
            audience.denied("carol", PRINTER)
            await audience.refused(brokers["carol"], PRINTER, mine)
            for user in ("alice", "bob", ""):
                await audience.speak(admin, PRINTER, mine, user)
            await audience.hears_all()
            await audience.end()
        act.did = (
            f"{audience.spoken} channels for one user or for all, {audience.listeners} listeners, "
            f"{len(self.history.attempts)} claims of rights, and a right taken away meanwhile"
        )

    # Deaths ---------------------------------------------------------------------------------------

    async def _deaths(self, seconds: float) -> None:
        act = self._act("owners and sources are killed")
        deaths = Deaths(self.history, self._broker, self._child, self._patience)
        due, rounds = now() + seconds, 0
        while not rounds or now() < due:
            rounds += 1
            users = [str(number) for number in range(PAIRS)]
            await together(
                *(deaths.of_an_owner(f"owner-{user}") for user in users),
                *(deaths.of_a_source(f"asked-{user}") for user in users),
            )
        act.recovered += deaths.told_after
        each = rounds * PAIRS
        act.did = f"kill -9 of {each} owners of a dialog, and of {each} sources with two questions"

    def _child(self, role: str, told: Callable[[dict[str, Any]], None], user: str) -> Child:
        place = (self._url, self._settings.namespace)
        return Child(asdict(Part(role, *place, settings=self._of_children, user=user)), told)

    # The pool -------------------------------------------------------------------------------------

    async def _pool(self, seconds: float) -> None:
        act = self._act("replicas of a pool are killed under lossless sends")
        shift = Shift(self.history, lambda told: self._child("replica", told, POOL))
        async with self._broker("spooler") as broker, contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(shift.end)
            await together(*(shift.begin() for _ in range(REPLICAS)))
            sending = asyncio.create_task(shift.send_on(broker))
            stack.callback(sending.cancel)
            due = now() + seconds
            while now() < due:
                await asyncio.sleep(min(1.0, seconds / 4))
                await shift.kill_one()
            shift.is_over = True
            await sending
            await shift.settle(broker)
            await shift.end()
            await broker.pools.delete(POOL, PRINTER)
        act.recovered += shift.recovered
        work = self.history.works[POOL]
        act.did = (
            f"{len(work.sends):,} lossless notifications to {REPLICAS} replicas, of which "
            f"{len(work.died)} were killed"
        )

    # After ----------------------------------------------------------------------------------------

    async def _settle(self, ground: Ground) -> None:
        """Redis's own word, and what is left when all leases are over."""
        self._tell("judging")
        await ground.look(self.history)
        due = now() + 3 * LEASE
        while True:
            async with self._broker("reaper") as broker:
                await broker.run_down(SERVER)
                await ground.note_names(self.history)
            self.history.keys = await ground.find()
            held = [key for key, left in self.history.keys.items() if left < 0]
            if all(key.rpartition(":")[2] in PERMANENT for key in held) or now() > due:
                return
            await asyncio.sleep(0.2)
