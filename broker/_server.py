"""One print server as one process sees it: its session, its lease, and what it holds there.

Everything that this process holds on a server hangs on one session. The lease of the session is
renewed from the event loop that does the work; when Redis says that it ran out, everything held
under it is over, and the registrations are made again under a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    wait_exponential,
)

from broker import _calls, _missing, _pools, _rundown
from broker._calls import NO_BODY, Stowed, inside
from broker._entries import Entry, EntryId
from broker._keys import LAYOUT, Keys, inbox_field
from broker._listening import Listening
from broker._plan import PoolPlan
from broker._reader import Reader, StreamReader
from broker._scripts import Arg, Call
from broker._waiting import LinkLost, telling, until_answered
from broker.errors import (
    AccessDenied,
    BrokerClosed,
    ForeignLayout,
    NoSuchPool,
    OutcomeUnknown,
    RedisError,
    RedisRefused,
    RedisUnreachable,
    SessionLapsed,
    TympanError,
)
from broker.observer import SILENT, Observer

if TYPE_CHECKING:
    from broker._topology import Topology
    from broker.channel import Channel
    from broker.offer import Offer
    from broker.registration import Registration
    from broker.replica import Replica
    from broker.settings import Settings

log = logging.getLogger("tympan")

Reply = list[Any]
T = TypeVar("T")
WORK = b"work "
"""A bell at an inbox that announces no entry, but work for a pool's replica."""
FORMER_PAUSE = 0.05
"""Seconds until a call that reached a former primary is made again."""
SELDOM = 5
"""Turns of looking for the dead of which a process that serves no pool takes one."""
PASSING = (RedisError, OutcomeUnknown, SessionLapsed)
"""Weather, to work that comes around again by the clock."""


def new_id() -> str:
    """An id of a channel, registration or body: 64 random bits."""
    return secrets.token_hex(8)


def new_session() -> str:
    """A session's id: readable, so that an operator sees which process holds what."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(6)}"


def _is_worth_another_try(error: BaseException) -> bool:
    """Of refusals only those for a right are final (R126); a cancellation is none of ours."""
    final = (AccessDenied, RedisRefused, BrokerClosed, NoSuchPool)
    return isinstance(error, Exception) and not isinstance(error, final)


def _is_weather(error: BaseException) -> bool:
    """Whether Redis could not answer now."""
    return isinstance(error, RedisError | OutcomeUnknown) and not isinstance(error, RedisRefused)


class Server:
    """One print server: asks Redis, keeps this process's lease, hears what concerns it."""

    def __init__(
        self, name: str, topology: Topology, settings: Settings, observer: Observer = SILENT
    ) -> None:
        self.name = name
        self.observer = observer
        self.keys = Keys(settings.namespace, name)
        self.settings = settings
        self.topology = topology
        self.link = topology.link(self.keys.meta)
        self.bell = topology.bell
        """By which command this server's bells are rung, as Redis knows it."""
        self.session = new_session()
        self.epoch = ""
        self.lapses = 0
        self._lost: str | None = None
        """The session before, while the present one has not begun: Redis refused it, or is away."""
        self._refused: set[str] = set()
        """Work by the clock that Redis refuses; each was told once."""
        self.answered = 0.0
        """When Redis answered last, by the event loop's clock."""
        self.ahead = 0.0
        """Seconds that Redis's clock is ahead of this process's, as of the last renewal."""
        self.channels: dict[str, Channel] = {}
        self.dialogs: dict[tuple[str, str], Offer[Any]] = {}
        """Offers that this process answered, or is answering: by channel and registration."""
        self.doubtful: set[str] = set()
        self.beginning: set[str] = set()
        """Channels and registrations of which Redis may know, and nothing else here does yet."""
        self.pools: tuple[PoolPlan, ...] = ()
        """The pools that collect here, as of :attr:`pools_listed`."""
        self.pools_listed = "0"
        self.replicas: dict[str, Replica[Any]] = {}
        """This process's parts in pools, by the pool's registration."""
        self.serves = False
        """Whether it ever had such a part under this session or an earlier one."""
        self.sweeps_often = False
        """Whether the dead are looked for several times in a lease, as a reaper does."""
        self.listening = Listening(self)
        self._inbox: StreamReader | None = None
        self._heard = 0
        """Number of the inbox's last entry that arrived."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._registering: set[asyncio.Task[Any]] = set()
        self.renewing: set[Registration[Any]] = set()
        """Registrations that stand nowhere until they are made again."""
        self._checking: asyncio.Task[Any] | None = None
        self._changing = asyncio.Lock()
        self._is_closing = False

    # Life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up a session. Raises ForeignLayout, RedisError."""
        await self._begin()
        self.spawn(self._keep_lease())
        self.spawn(self._keep_watch())
        self.spawn(self._keep_sweeping())

    async def close(self) -> None:
        """Stop all work and bury the session; what it still holds is run down after its lease."""
        self._is_closing = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.listening.close()
        await self._forget_inbox()
        with contextlib.suppress(TympanError, LinkLost, TimeoutError):
            async with asyncio.timeout(self.settings.reply_timeout):  # others connect before, too
                await self._bury()

    async def _bury(self) -> None:
        """Forget the own session; should it be a new epoch's, once more."""
        call = _calls.bury(self.keys, self.session)
        word, *rest = await self.link.run(call, (self.epoch, self.session))
        if word == b"EPOCH":
            await self.link.run(call, (rest[0], self.session))

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any] | None:
        """Run something beside; it ends with the server, and its failure is logged."""
        if self._is_closing:
            work.close()
            return None
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_ended)
        return task

    def _spawned_ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("server %s: work beside failed", self.name, exc_info=task.exception())

    async def _begin(self) -> None:
        """Say hello under the present session id, and follow its inbox."""
        inbox = StreamReader(
            self.keys.inbox(self.session),
            inbox_field(self.session),
            self.keys.streams,
            self.command,
            self._told,
            self.missed,
        )
        self._inbox, self._heard = inbox, 0
        await self.hear(inbox.key)
        lease = self._milliseconds(self.settings.lease)
        call = _calls.hello(self.keys, self.session, lease, self.topology.bell)
        word, *rest = await self._settled(lambda: self.link.run(call, ()))
        self.answered = asyncio.get_running_loop().time()
        if word == b"FOREIGN":
            raise ForeignLayout(
                f"{self.link.where}: {self.keys.meta} is {rest[0].decode()}; this version of "
                f"Tympan reads layout {LAYOUT}. Use another namespace, or the version that wrote it"
            )
        if word != b"OK":
            raise SessionLapsed(f"server {self.name}: Redis answered {word!r} to hello")
        self.epoch, bell = rest[0].decode(), rest[1].decode()
        if (listed := rest[2].decode()) != self.pools_listed:
            await self.list_pools(listed)
        inbox.position = EntryId(int(self.epoch), 0)
        if bell != self.bell:  # somebody said so before
            await self.hear_no_more(inbox.key)
            self.bell = bell
            await self.hear(inbox.key)

    async def _forget_inbox(self) -> None:
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            await inbox.close()
            await self.hear_no_more(inbox.key)

    async def _keep_lease(self) -> None:
        """Renew at a third of the lease, from the loop that does the work."""
        while True:
            await asyncio.sleep(self.settings.lease / 3)
            with self._by_the_clock("renewing its lease"):
                await self._renew()

    async def _renew(self) -> None:
        """Renew the lease, and compare clocks: the answer was given between the two instants."""
        before = time.time()
        _, now, *_ = await self.ask(self._renewal)
        self.ahead = int(now) / 1000 - (before + time.time()) / 2

    def _renewal(self) -> Call:
        unread = EntryId(0, 1)
        if self._inbox is not None:
            unread = self._inbox.position.next
            self._inbox.references_upto(self._inbox.position)  # these end by themselves
        lease = self._milliseconds(self.settings.lease)
        return _calls.renew(self.keys, self.session, lease, str(unread))

    async def _keep_watch(self) -> None:
        """Look although no bell rang; write positions; trim."""
        for turn in itertools.cycle(range(_missing.TURNS)):
            await asyncio.sleep(self.settings.resync)
            with self._by_the_clock("looking at what is held"):
                await self._check()
                await self.listening.keep_house()
                await self._audit()
                if self.doubtful:
                    await self._settle_doubts()
                    self.doubtful.clear()
                await _missing.find(self, turn)

    async def _keep_sweeping(self) -> None:
        """Look for the dead now and then; often where replicas wait for what they held."""
        passed = 0
        while True:
            await asyncio.sleep(self.settings.lease * random.uniform(0.2, 0.4))
            passed += 1
            if passed < SELDOM and not self.sweeps_often and not self.replicas:
                continue
            passed = 0
            with self._by_the_clock("looking for the dead"):
                await self.run_down()

    @contextlib.contextmanager
    def _by_the_clock(self, doing: str) -> Iterator[None]:
        """Of what comes around again, weather is waited out, and a lasting refusal told once."""
        try:
            yield
            self._refused.discard(doing)
        except RedisRefused as error:
            if doing not in self._refused:
                log.warning("server %s: %s is not possible: %s", self.name, doing, error)
            self._refused.add(doing)
        except PASSING:
            pass

    async def _audit(self) -> None:
        """Give up what this process has in hand for Redis, and nothing here knows of."""
        for replica in list(self.replicas.values()):
            await replica.audit()
        if self.serves:
            await _pools.give_up_unknown(self)

    async def list_pools(self, listed: str) -> None:
        """Read which pools there are; ``listed`` is what Redis called the list just before."""
        self.pools = await _pools.read(self)
        self.pools_listed = listed

    def another_id(self, id_: str) -> str:
        """For what begins under an id that a session had which is over."""
        self.beginning.discard(id_)
        made = new_id()
        self.beginning.add(made)
        return made

    def doubt(self, channel: str) -> None:
        """A channel that may have been opened although its source was broken off."""
        self.doubtful.add(channel)
        self.spawn(self._settle_doubts())

    async def _settle_doubts(self) -> None:
        """End it, now and until the next look: its request may still be on the way."""
        with contextlib.suppress(*PASSING):
            for channel in list(self.doubtful):
                await _rundown.end_channel(self, channel, "abandon", self.session)

    async def run_down(self) -> int:
        """End what the dead left, any process's; how many sessions were buried."""
        return await _rundown.run_down(self)

    @staticmethod
    def _milliseconds(seconds: float) -> int:
        return round(seconds * 1000)

    @property
    def keep(self) -> int:
        """Milliseconds that a closed channel still answers."""
        return self._milliseconds(self.settings.keep_closed)

    # Bells --------------------------------------------------------------------------------------

    async def hear(self, key: str) -> None:
        """Have the bells of a stream ring here. Raises RedisRefused, RedisUnreachable."""
        bells, patience = self.topology.bells, self.settings.operation_timeout
        with telling(self.link.where, patience, lambda: bells.trouble_of(key)):
            await bells.subscribe(key, self.bell)

    async def hear_no_more(self, key: str) -> None:
        """Stop that."""
        await self.topology.bells.unsubscribe(key)

    def look(self) -> None:
        """Have every reader look into Redis."""
        if self._inbox is not None:
            self._inbox.look()
        self.listening.look()
        for replica in list(self.replicas.values()):
            replica.look()

    async def _check(self) -> None:
        """Is this still the Redis that we know, and are we alive? Only then have everybody look."""
        await self._renew()
        self.look()

    def heard_again(self) -> None:
        """Bells were not heard for a while: perhaps Redis was away, and is another process now."""
        if self._checking is None or self._checking.done():
            self.missed()
            self._checking = self.spawn(self._check_quietly())

    def missed(self) -> None:
        """Bells rang that were not heard here."""
        self.observer.resynced(self.name)

    async def _check_quietly(self) -> None:
        with contextlib.suppress(*PASSING, BrokerClosed):
            await self._check()

    def ring(self, channel: str, payload: bytes) -> None:
        """A bell rang."""
        if payload.startswith(WORK):
            replica = self.replicas.get(payload[len(WORK) :].decode())
            if replica is not None:
                replica.look()
            return
        reader = self._reader(channel)
        if reader is not None:
            reader.ring(payload)

    def _reader(self, channel: str) -> Reader | None:
        if self._inbox is not None and channel == self._inbox.key:
            return self._inbox
        return self.listening.readers.get(channel)

    def _told(self, entry: Entry) -> None:
        """An entry of the inbox, for the end or the registration that it concerns."""
        if entry.id.number > self._heard + 1:  # somebody deleted those between
            self.spawn(self._lose_quietly(self.session))
        self._heard = entry.id.number
        channel, registration = entry.text("channel"), entry.text("registration")
        if entry.text("event") == "ended":
            self.listening.ended(registration, entry.text("why"))
            return
        end: Channel | Offer[Any] | None = self.channels.get(channel)
        if entry.text("to") == "owner":
            end = self.dialogs.get((channel, registration))
        if end is not None:
            end.told(entry)

    # Asking -------------------------------------------------------------------------------------

    async def command(self, *command: Arg, large: bool = False) -> Any:
        """A plain command that may be repeated; raises RedisUnreachable when nothing answers."""
        try:
            return await self.link.command(*command, large=large)
        except (LinkLost, RedisUnreachable):
            try:
                return await self._settled(lambda: self.link.command(*command, large=large))
            except OutcomeUnknown as error:
                raise RedisUnreachable(str(error)) from None

    async def ask(self, make: Callable[[], Call]) -> Reply:
        """Run a script until Redis answers it; the answer's word comes first, as text.

        Scripts answer a repeated call as they answered the first, so a lost reply is asked for
        again. Raises OutcomeUnknown or RedisUnreachable after the operation timeout, SessionLapsed
        where this process was declared dead.
        """
        return (await self.ask_durably(make, durable=False))[0]

    async def ask_durably(
        self, make: Callable[[], Call], *, durable: bool = True
    ) -> tuple[Reply, bool]:
        """The same, and whether replicas or disk hold what was done, as the settings ask."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self.settings.operation_timeout
        while True:
            if self._is_closing:
                raise BrokerClosed(f"server {self.name}: the broker is closed")
            if self._changing.locked() or self._lost is not None:
                async with self._changing:  # a new session or epoch is being taken up
                    await self._begin_anew()
            session, epoch = self.session, self.epoch
            call = make()
            asked = loop.time()
            try:
                reply, held = await self._answer(call, session, epoch, durable=durable)
            except TympanError as error:
                fault = type(error).__name__
                self.observer.script_ended(call.script.name, loop.time() - asked, fault)
                raise
            self.answered = loop.time()
            word = reply[0].decode()
            self.observer.script_ended(call.script.name, self.answered - asked, word)
            if word == "EPOCH" and int(reply[1]) < int(self.epoch):
                if self.answered > due:
                    raise RedisUnreachable(
                        f"{self.link.where} is a former primary that has not found out, for "
                        f"{self.settings.operation_timeout:g} s"
                    )
                await asyncio.sleep(FORMER_PAUSE)
            elif word == "EPOCH":
                await self._new_epoch(reply[1].decode())
            elif word == "LAPSED" or session != self.session:
                await self._lapsed(session)
                raise SessionLapsed(
                    f"server {self.name}: this process did not renew its lease in time, or Redis "
                    "lost its state; its channels and dialogs there are over"
                )
            elif epoch == self.epoch:
                return [word, *reply[1:]], held
            # Otherwise a Redis answered that another one has replaced since, as one does that was
            # frozen: perhaps nobody knows of it. The same call settles it.

    async def ask_aside(self, call: Call) -> Reply:
        """The same of a script that asks for no session, from a server that has none perhaps."""
        word, *rest = await self._settled(lambda: self.link.run(call, ()))
        return [word.decode(), *rest]

    async def ask_anew(
        self, make: Callable[[], Call], afresh: Callable[[], None] | None = None
    ) -> Reply:
        """The same for what hangs on no earlier session: after a lapse, under the new one.

        ``afresh`` is called before each further try: what the call makes, Redis may have made for
        the session that is over, with which it ends.
        """
        for _ in range(3):
            with contextlib.suppress(SessionLapsed):
                return await self.ask(make)
            if afresh is not None:
                afresh()
        return await self.ask(make)

    async def _answer(
        self, call: Call, session: str, epoch: str, *, durable: bool
    ) -> tuple[Reply, bool]:
        lead = (epoch, session)
        try:
            return await self._run(call, lead, durable=durable)
        except (LinkLost, RedisUnreachable) as error:
            once = partial(self._run, call, lead, durable=durable)
            return await self._settled(once, was_lost=isinstance(error, LinkLost))

    async def _run(self, call: Call, lead: Sequence[Arg], *, durable: bool) -> tuple[Reply, bool]:
        if durable:
            return await self.link.run_durably(call, lead)
        return await self.link.run(call, lead), True

    async def _settled(self, once: Callable[[], Awaitable[T]], *, was_lost: bool = False) -> T:
        """Ask again, with growing pauses, until an answer or the operation timeout."""
        timeout = self.settings.operation_timeout

        async def asked() -> T:
            nonlocal was_lost
            try:
                return await once()
            except LinkLost:
                was_lost = True
                raise

        try:
            return await until_answered(asked, self.link.where, timeout)
        except (LinkLost, RedisUnreachable) as error:
            if was_lost:
                raise OutcomeUnknown(
                    f"{self.link.where} gave no answer for {timeout:g} s ({error}); it may or may "
                    "not have happened: call the same method again to settle it"
                ) from None
            raise

    # Bodies -------------------------------------------------------------------------------------

    def is_large(self, data: bytes) -> bool:
        """Whether a body is kept under a key of its own."""
        return len(data) > self.settings.body_by_reference

    async def stow(self, data: bytes | None) -> Stowed:
        """Put a large body under a key of its own; a small one travels in the call."""
        if data is None:
            return NO_BODY
        if not self.is_large(data):
            return inside(data)
        key = self.keys.body(new_id())
        await self.store(key, data)
        return Stowed("ref", key, key)

    async def store(self, key: str, data: bytes) -> None:
        """Write a body's key; it ends by itself when nobody needs it."""
        keep = self._milliseconds(self.settings.keep_body)
        await self.command("SET", key, data, "PX", keep, large=True)

    async def discard(self, stowed: Stowed) -> None:
        """Nobody was told of the body."""
        if stowed.key is not None:
            await self.command("UNLINK", stowed.key)

    # New epochs and lapses ----------------------------------------------------------------------

    async def _new_epoch(self, epoch: str) -> None:
        """Redis is another process: check every position and token before acting again."""
        async with self._changing:
            if int(epoch) <= int(self.epoch):
                return
            log.warning("server %s: new epoch %s, checking what is held", self.name, epoch)
            self.epoch = epoch
            self.pools_listed = ""  # what it forgot, it may count again
            for reader in (self._inbox, *self.listening.readers.values()):
                if reader is not None:
                    reader.replaced(int(epoch))
            confirming = self._again(self._confirm_all())
        if confirming is not None:  # whoever asked may be cancelled; a lease has to be renewed
            await asyncio.wait({confirming}, timeout=self.settings.lease / 3)

    async def has_missed(self, number: int) -> bool:
        """Whether an entry of the inbox, up to this number, was deleted before it was read."""
        inbox = self._inbox
        if inbox is None or self._heard >= number:
            return False
        left = await self.command("XRANGE", inbox.key, f"({inbox.position}", "+", "COUNT", 1)
        return not left and inbox is self._inbox and self._heard < number

    async def lose(self) -> None:
        """What Redis tells this process is lost: what it holds is over, and begins again."""
        await self._lapsed(self.session)

    async def _lose_quietly(self, session: str) -> None:
        with contextlib.suppress(*PASSING, BrokerClosed):  # the next call begins a session
            await self._lapsed(session)

    async def _confirm_all(self) -> None:
        """Have everything that is held ask whether Redis knows it, until it answers."""
        asking: list[Callable[[], Awaitable[None]]] = [
            self.listening.resume,
            partial(_rundown.give_up_forgotten, self),
        ]
        asking += [channel.confirm for channel in self.channels.values()]
        asking += [offer.confirm for offer in self.dialogs.values()]
        with contextlib.suppress(SessionLapsed, BrokerClosed):
            await asyncio.gather(*(self._until_it_stands(each, _is_weather) for each in asking))
        self.look()

    async def _lapsed(self, session: str) -> None:
        """What this process held is over. Registrations are made again under a new session.

        Where Redis refuses even the new session for now, the next call begins it.
        """
        async with self._changing:
            if session != self.session:
                return
            self.lapses += 1
            self.observer.lease_lost(self.name)
            log.warning("server %s: session %s lapsed", self.name, session)
            self.session, self._lost = new_session(), session
            channels, self.channels = list(self.channels.values()), {}
            dialogs, self.dialogs = list(self.dialogs.values()), {}
            for channel in channels:
                channel.peer_died()
            for dialog in dialogs:
                dialog.peer_died()
            replicas = list(self.replicas.values())
            for replica in replicas:
                replica.lapsed()
            for registration in await self.listening.lapsed():
                self.register_again(registration)
            for replica in replicas:
                self.join_again(replica)
            await self._begin_anew()

    async def _begin_anew(self) -> None:
        """Take up the new session, if it has not begun."""
        if self._lost is None:
            return
        await self._forget_inbox()
        try:
            await self._begin()
        except SessionLapsed:  # Redis heard of it before, and took it for dead since
            self.session = new_session()
            raise
        lost, self._lost = self._lost, None
        with contextlib.suppress(*PASSING):
            await _missing.leave_to_others(self, lost)

    def register_again(self, registration: Registration[Any]) -> None:
        """Try until it stands, or is refused for good."""
        self.renewing.add(registration)
        if self._again(self._register_again(registration)) is None:
            registration.broker_closed()

    def join_again(self, replica: Replica[Any]) -> None:
        """Try until it has joined, or is refused for good."""
        self._again(self._join_again(replica))

    def _again(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        task = self.spawn(work)
        if task is not None:
            self._registering.add(task)
            task.add_done_callback(self._registering.discard)
        return task

    async def stop_registering(self) -> None:
        """Break off what is being registered again."""
        tasks = list(self._registering)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _register_again(self, registration: Registration[Any]) -> None:
        try:
            await self._until_it_stands(registration.renew)
        except TympanError as error:
            registration.ended(f"it could not be registered again: {error}", error)
        self.renewing.discard(registration)

    async def _join_again(self, replica: Replica[Any]) -> None:
        try:
            await self._until_it_stands(replica.rejoin)
        except TympanError as error:
            replica.ended(error)

    async def _until_it_stands(
        self,
        make: Callable[[], Awaitable[None]],
        is_passing: Callable[[BaseException], bool] = _is_worth_another_try,
    ) -> None:
        """R125, R126: with pauses from retry_least to retry_most; a refusal is final."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(is_passing),
            wait=wait_exponential(
                multiplier=self.settings.retry_least,
                min=self.settings.retry_least,
                max=self.settings.retry_most,
            ),
        ):
            with attempt:
                await make()
