"""The broker: where print components open channels, and listeners register."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload
from uuid import UUID

from broker import _calls, inventory
from broker._batches import batches
from broker._directory import Directory
from broker._dispatch import Dispatcher
from broker._keys import directory, grant_field
from broker._place import Wish
from broker._pools import give_up_unknown
from broker._revocation import end_ungranted
from broker._rundown import end_channel
from broker._server import Server
from broker._sessions import Follower, Sessions
from broker._standing import Standing
from broker.callback import Callback, check_callback
from broker.channel import Channel
from broker.conversation import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    UNIDIRECTIONAL,
    Style,
    UserFilter,
    parse_style,
    parse_user_filter,
)
from broker.dead_letter import DeadLetters
from broker.deletion import Deletion, delete_printer
from broker.errors import (
    BrokerClosed,
    InvalidArgument,
    OutcomeUnknown,
    TympanError,
)
from broker.farm import FarmRegistration
from broker.inventory import ChannelFacts, Grant, RegistrationFacts, ServerFacts, Utterance
from broker.names import Name, parse_server, parse_user
from broker.notification import model_of
from broker.notification_type import check_style
from broker.observer import Observer, guarded
from broker.pool import Pools
from broker.pooled_offer import PooledOffer
from broker.registration import Registration
from broker.rights import Right, RightsSource, parse_right
from broker.survey import Survey, read_surveys

if TYPE_CHECKING:
    from broker._bells import Gap, Ring
    from broker._topology import Topology
    from broker.payload import Payload
    from broker.settings import Settings

P = TypeVar("P", bound="Payload")
F = TypeVar("F", ChannelFacts, RegistrationFacts, Grant)


def login_name() -> str:
    """Who runs this process; a number where the system knows no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


End = Callable[[], Awaitable[object]]


async def _leave(registration: Registration[Any]) -> None:
    """End a registration of a broker that closes, with what was offered to it."""
    try:
        await registration.unregister()
    finally:
        registration.broker_closed()


class Broker:
    r"""A client of the farm, for one Redis.

    ::

        async with Broker.connect("redis://localhost", user="alice") as broker:
            async with await broker.register(r"\\print01\laser-3", OutOfPaper) as registration:
                async for offer in registration:
                    await offer.respond(Answer(proceed=True))

    One broker object serves a whole process: its channels and registrations share its
    connections, and one lease for each print server. It lives in one event loop; for code
    without one there is :class:`broker.sync.Broker`.

    What is promised: every change is one atomic step in Redis, so a dialog has one owner, and a
    send's answer counts exactly those who listen at that instant. Delivery to a living
    listener's process happens once and in the order of its channel; what a success survives is
    the ``durability`` setting's matter.
    """

    def __init__(
        self,
        topology: Callable[[Settings, Ring, Gap], Topology],
        settings: Settings,
        *,
        user: str | None = None,
        server: str | None = None,
        rights: RightsSource | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.settings = settings
        self._observer = guarded(observer)
        self._standing = Standing(rights)
        self._user = parse_user(user or login_name())
        self._default_server = server
        self._topology = topology(settings, self._rang, self._heard_again)
        self._directory = Directory(self._topology.link(directory(settings.namespace)), settings)
        self._sessions = Sessions(self._directory, settings, self._new_server, self._hear)
        self._servers = self._sessions.servers
        self.pools = Pools(self._at, self._glance, lambda: self._user)
        """Registrations that outlive the processes which serve them."""
        self.dead_letters = DeadLetters(self._at, self._glance)
        """What pools could not handle."""
        self._state = "new"

    @classmethod
    def connect(
        cls,
        url: str | None = None,
        *,
        user: str | None = None,
        server: str | None = None,
        settings: Settings | None = None,
        rights: RightsSource | None = None,
        observer: Observer | None = None,
        **options: Any,
    ) -> Self:
        r"""A broker on the Redis at ``url``; enter it to connect.

        Args:
            url: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` or
                ``redis+cluster://``; default ``TYMPAN_URL``, else this host.
            user: who this client acts as, asserted by whoever holds the credentials; default the
                login name.
            server: the print server that an empty name means (R21).
            settings: see :class:`Settings`.
            rights: who says what a user may do, in the place of the grants in Redis; see
                :class:`broker.rights.RightsSource`.
            observer: who counts what happens; see :class:`broker.observer.Observer`.
            **options: instead of settings, single ones.

        Raises InvalidUrl, InvalidSettings, InvalidName, InvalidArgument.
        """
        if settings is not None and options:
            raise InvalidArgument("give settings or single settings, not both")
        from broker._topology import topology_at  # redis-py and pydantic: who never connects
        from broker.settings import Settings, default_url  # does not wait for them

        settings = settings or Settings.of(**options)
        topology = partial(topology_at, url or default_url())
        return cls(topology, settings, user=user, server=server, rights=rights, observer=observer)

    # Life ---------------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Connect.

        Raises RedisUnreachable, RedisRefused, RedisTooOld, DurabilityUnavailable, and InvalidUrl
        where the URL is of another form than what answers.
        """
        if self._state != "new":
            raise BrokerClosed("a broker object starts once")
        try:
            await self._topology.start()
        except BaseException:
            await self._topology.close()
            raise
        self._state = "open"
        return self

    async def close(self) -> None:
        """End everything that is held here: channels, dialogs, registrations, sessions.

        Servers are left side by side, many things at a time. A Redis that answers nothing for a
        reply timeout is waited for no longer, and for the sessions' ends once more as long: what
        is held there then ends with its lease.
        """
        if self._state != "open":
            return
        await self._sessions.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.reply_timeout) as bound:
                servers = list(self._servers.values())
                await asyncio.gather(*(self._end_held(server, bound) for server in servers))
        self._state = "closed"
        await asyncio.gather(*(server.close() for server in self._servers.values()))
        await self._topology.close()

    @staticmethod
    async def _end_held(server: Server, bound: asyncio.Timeout) -> None:
        """Best effort: what cannot be ended now is run down after the lease.

        Each answer puts the bound off. A pool's dialogs wait for another replica.
        """
        loop = asyncio.get_running_loop()
        dialogs = [one for one in server.dialogs.values() if not isinstance(one, PooledOffer)]

        async def end_one(end: End) -> None:
            with contextlib.suppress(TympanError):  # what is over already is as good
                await end()
                if not bound.expired():
                    bound.reschedule(loop.time() + server.settings.reply_timeout)

        async def end(ends: Iterable[End]) -> None:
            for some in batches(ends):
                await asyncio.gather(*map(end_one, some))

        try:
            await server.stop_registering()
            await end(replica.leave for replica in list(server.replicas.values()))
            if server.serves:
                await end([partial(give_up_unknown, server)])
            registrations = list(server.listening.registrations.values())
            await end(partial(_leave, registration) for registration in registrations)
            await end([server.listening.settle_doubts])
            opened = [*server.channels, *server.doubtful]
            for channel in list(server.channels.values()):
                channel.broker_closed()  # before Redis tells it what this process does itself
            await end(
                partial(end_channel, server, id_, "abandon", server.session) for id_ in opened
            )
            for offer in dialogs:
                offer.broker_closed()
            await end(offer.abandon for offer in dialogs)
        finally:
            for replica in list(server.replicas.values()):
                replica.broker_closed()
            for registration in [*server.listening.registrations.values(), *server.renewing]:
                registration.broker_closed()
            for channel in list(server.channels.values()):
                channel.broker_closed()
            for offer in list(server.dialogs.values()):
                offer.broker_closed()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def user(self) -> str:
        """Who this client acts as now. What is registered keeps the user that it had (R14)."""
        return self._user

    @user.setter
    def user(self, user: str) -> None:
        self._user = parse_user(user)

    def _rang(self, channel: str, payload: bytes) -> None:
        server = self._server_of(channel)
        if server is not None:
            server.ring(channel, payload)
        elif channel == self._directory.key:
            self._sessions.rang()

    def _heard_again(self, channel: str) -> None:
        server = self._server_of(channel)
        if server is not None:
            server.heard_again()
        elif channel == self._directory.key:
            self._sessions.rang()

    def _server_of(self, channel: str) -> Server | None:
        """The server whose hash tag the channel carries."""
        return self._servers.get(channel.partition("{")[2].partition("}")[0])

    def _new_server(self, name: str) -> Server:
        server = Server(name, self._topology, self.settings, self._observer)
        server.listening.standing = self._standing
        return server

    async def _hear(self, channel: str) -> None:
        """Bells that no server rings: every node of a Cluster hears them."""
        await self._topology.bells.subscribe(channel)

    async def server(self, name: str | Name | None = None) -> Server:
        """This process's session on a print server, begun when it is first needed.

        The server's aliases will do (D2); its own name is ``.name``.
        """
        return (await self._at(name))[0]

    async def _at(self, name: str | Name | None) -> tuple[Server, Name]:
        """The session, and the name with its aliases resolved."""
        self._refuse_closed()
        parsed = self._name(name)
        server = await self._sessions.at(parsed.server)
        return server, Name(server.name, parsed.printer)

    def _refuse_closed(self) -> None:
        if self._state != "open":
            raise BrokerClosed("this broker is not open: async with Broker.connect(...) as broker")

    def _name(self, name: str | Name | None) -> Name:
        return Name.parse(name, self._default_server)

    # Sources ------------------------------------------------------------------------------------

    async def channel(
        self,
        name: str | Name | None,
        type: str | UUID | type[Payload],
        *,
        user: str | None = None,
        user_filter: UserFilter = PER_USER,
        style: Style = UNIDIRECTIONAL,
    ) -> Channel:
        """A channel object, not open yet. Arguments and errors as :meth:`open_channel`."""
        guid, model = model_of(type)
        style, user_filter = parse_style(style), parse_user_filter(user_filter)
        check_style(guid, style)
        if user_filter is ALL_USERS and user is not None:
            raise InvalidArgument("a channel is for one user or for all users, not for both")
        target = None if user_filter is ALL_USERS else parse_user(user or self._user)
        server, resolved = await self._at(name)
        return Channel(server, resolved, guid, model, style, target, self._user)

    async def open_channel(
        self,
        name: str | Name | None,
        type: str | UUID | type[Payload],
        *,
        user: str | None = None,
        user_filter: UserFilter = PER_USER,
        style: Style = UNIDIRECTIONAL,
        callback: Callback | None = None,
    ) -> Channel:
        r"""Open a channel on a printer or server.

        Args:
            name: ``\\server\printer`` or ``\\server``, by its own name or an alias; None for
                the client's own server.
            type: a GUID, a known alias, or a model, whose type it is.
            user: whom it is for; default the broker's user.
            user_filter: ALL_USERS speaks to everybody who listens there; the broker's user must
                administer the name (R9).
            style: BIDIRECTIONAL to be answered.
            callback: called with responses; without one, await :meth:`Channel.response` (R11).
                Ignored for a unidirectional channel (R10).

        Raises InvalidName, InvalidType, AccessDenied, MaxChannelCountExceeded, RedisError, and
        InvalidArgument for what is no callback.
        """
        if callback is not None:
            check_callback(callback)
        channel = await self.channel(name, type, user=user, user_filter=user_filter, style=style)
        try:
            await channel.open()
        except (OutcomeUnknown, asyncio.CancelledError):
            channel.doubt()
            raise
        if callback is not None and channel.style is BIDIRECTIONAL:
            Dispatcher(callback).follow(channel)
        return channel

    # Listeners ----------------------------------------------------------------------------------

    @overload
    async def registration(self, name: str | Name | None, model: type[P]) -> Registration[P]: ...
    @overload
    async def registration(
        self, name: str | Name | None, model: None = None
    ) -> Registration[Payload]: ...
    async def registration(
        self, name: str | Name | None = None, model: type[Payload] | None = None
    ) -> Registration[Any]:
        """A registration object, not registered yet."""
        return Registration(*await self._at(name), model)

    @overload
    async def register(
        self,
        name: str | Name | None,
        type: type[P],
        *,
        user: str | None = None,
        user_filter: UserFilter = PER_USER,
        style: Style = UNIDIRECTIONAL,
        printers: bool = False,
        buffer: int | None = None,
    ) -> Registration[P]: ...
    @overload
    async def register(
        self,
        name: str | Name | None,
        type: str | UUID,
        *,
        user: str | None = None,
        user_filter: UserFilter = PER_USER,
        style: Style = UNIDIRECTIONAL,
        printers: bool = False,
        buffer: int | None = None,
    ) -> Registration[Payload]: ...
    async def register(
        self,
        name: str | Name | None,
        type: str | UUID | type[Payload],
        *,
        user: str | None = None,
        user_filter: UserFilter = PER_USER,
        style: Style = UNIDIRECTIONAL,
        printers: bool = False,
        buffer: int | None = None,
    ) -> Registration[Any]:
        r"""Register as a listener, and iterate over what comes.

        Args:
            name: ``\\server\printer`` or ``\\server``, by its own name or an alias; None for
                the client's own server.
            type: a GUID, a known alias, or a model, by which payloads are validated.
            user: who listens; default the broker's user.
            user_filter: ALL_USERS hears everybody's; the user must administer the name (R17, R18).
            style: which channels to hear; a registration hears one style (R40).
            printers: with a server's name, hear all its printers too (D1).
            buffer: unread notifications held for each audience; default the setting.

        Raises InvalidName, InvalidType, AccessDenied, MaxRegistrationCountExceeded, RedisError.
        """
        guid, model = model_of(type)
        registration: Registration[Any] = Registration(*await self._at(name), model)
        await registration.register(
            guid,
            user=parse_user(user or self._user),
            user_filter=parse_user_filter(user_filter),
            style=parse_style(style),
            printers=printers,
            buffer=buffer,
        )
        return registration

    async def listen(
        self,
        name: str | Name | None,
        type: str | UUID | type[Payload],
        callback: Callback,
        *,
        user: str | None = None,
        user_filter: UserFilter = PER_USER,
        style: Style = UNIDIRECTIONAL,
        printers: bool = False,
        buffer: int | None = None,
    ) -> Registration[Any]:
        """Register with a callback. Without one it raises InvalidArgument (R13)."""
        if callback is None:
            raise InvalidArgument("a listener needs a callback; to iterate instead, use register()")
        check_callback(callback)
        guid, model = model_of(type)
        registration: Registration[Any] = await self.register(
            name,
            guid,
            user=user,
            user_filter=user_filter,
            style=style,
            printers=printers,
            buffer=buffer,
        )
        registration.model = model
        dispatcher = Dispatcher(callback)
        is_dialog = registration.plan.style is BIDIRECTIONAL
        registration.dispatch_to(dispatcher.listen if is_dialog else dispatcher.hear)
        return registration

    async def register_everywhere(
        self,
        type: str | UUID | type[Payload],
        *,
        user: str | None = None,
        user_filter: UserFilter = PER_USER,
        style: Style = UNIDIRECTIONAL,
        printers: bool = False,
        buffer: int | None = None,
    ) -> FarmRegistration[Any]:
        """Register on every server of the farm, on those added later too, and on the own one.

        Arguments as of :meth:`register`. It succeeds where one server accepts, or may accept later;
        its ``result``, ``reached`` and ``missing`` say how far it came (R137). Raises what the
        servers refuse with where every one does: AccessDenied, InvalidArgument; and RedisError
        where the directory cannot be read.
        """
        self._refuse_closed()
        guid, model = model_of(type)
        check_style(guid, parse_style(style))
        wish = Wish(
            model,
            guid,
            parse_user(user or self._user),
            parse_user_filter(user_filter),
            parse_style(style),
            printers,
            buffer,
        )
        own = None
        if self._default_server is not None:
            own = await self._directory.resolve(self._name(None).server)
        registration: FarmRegistration[Any] = FarmRegistration(
            self._sessions, self.settings, wish, own
        )
        await registration.register()
        return registration

    async def listen_everywhere(
        self, type: str | UUID | type[Payload], callback: Callback, **options: Any
    ) -> FarmRegistration[Any]:
        """The same with a callback; ``options`` as of :meth:`register_everywhere`."""
        if callback is None:
            raise InvalidArgument("a listener needs a callback; or use register_everywhere()")
        check_callback(callback)
        registration = await self.register_everywhere(type, **options)
        registration.dispatch_to(Dispatcher(callback).listen)
        return registration

    # Rights -------------------------------------------------------------------------------------

    async def grant(self, name: str | Name, user: str, right: str | Right) -> Right:
        """Give a user a right on a printer or server; returns all that the user has there now.

        Raises InvalidArgument where the right does not apply to that kind of name.
        """
        return await self._change_rights(name, user, right, give=True)

    async def revoke(self, name: str | Name, user: str, right: str | Right) -> Right:
        """Take a right away; registrations that stood on it end. Returns what is left.

        Channels for all users that the user has opened go on: their source was asked when it
        opened them (D4). What stands on a rights source of somebody's own is that source's matter.
        """
        left = await self._change_rights(name, user, right, give=False)
        await end_ungranted(*await self._at(name), "revoke", parse_user(user))
        return left

    async def _change_rights(
        self, name: str | Name, user: str, right: str | Right, *, give: bool
    ) -> Right:
        parsed = self._name(name)
        mask = parse_right(right, parsed)
        field = grant_field(parsed.printer, parse_user(user))
        server, _ = await self._at(parsed)
        _, now = await server.ask_anew(
            lambda: _calls.grant(server.keys, field, int(mask), give=give)
        )
        return Right(int(now))

    # Printers -----------------------------------------------------------------------------------

    async def delete_printer(self, name: str | Name) -> Deletion:
        """A printer is gone: end what is open on it, and tell who listens (R65).

        Its channels are closed by the server, and both ends are told NOTIFICATION_RELEASE. Its
        unidirectional registrations are told likewise, behind what was sent before, and stay. Its
        grants are removed; what stood on them ends. Registrations for all printers of the server
        (``printers=True``) go on untold. A printer of that name may come again at once.

        Doing it again does no harm: it finishes what was broken off, and a listener that was told,
        and heard nothing since, is not told again. As with :meth:`grant`, whoever holds
        credentials that may give rights may do it.

        Raises InvalidArgument for a server's name, RedisError.
        """
        self._refuse_closed()
        resolved = await self._resolved(name)
        if not resolved.printer:
            raise InvalidArgument(f"{resolved} is a server; only a printer can be deleted")
        if resolved.server not in await self.servers():
            return Deletion(resolved, 0, 0, 0, 0)
        return await delete_printer(*await self._at(resolved))

    # Looking ------------------------------------------------------------------------------------

    async def servers(self) -> list[str]:
        """The print servers of the farm, by their own names."""
        self._refuse_closed()
        return await self._sessions.names()

    async def follow(self, follower: Follower) -> None:
        """Tell it the farm's servers: now, when one comes or goes, and now and then.

        Raises RedisError where the directory cannot be read.
        """
        self._refuse_closed()
        await self._sessions.follow(follower)

    def unfollow(self, follower: Follower) -> None:
        """Tell it no more."""
        self._sessions.unfollow(follower)

    async def leave(self, name: str | Name) -> None:
        """End this process's session on a server, unless something of it stands there."""
        await self._sessions.leave((await self._resolved(name)).server)

    async def overview(self) -> list[ServerFacts]:
        """The same with their aliases, and how much stands on each.

        A server that cannot be read says why in ``unread``.
        """
        self._refuse_closed()
        return await self._sessions.overview()

    async def _known(self, name: str | Name | None) -> list[str]:
        """The servers of the farm, or the one that is asked for; none where nobody knows it."""
        self._refuse_closed()
        if name is None:
            return await self.servers()
        server = (await self._resolved(name)).server
        is_known = server in self._servers or await self._directory.find(server) == server
        return [server] if is_known else []

    async def _glance(self, name: str | Name | None) -> tuple[Server, Name]:
        """A server to read from, with the name resolved; no session is begun for it."""
        self._refuse_closed()
        resolved = await self._resolved(name)
        return self._sessions.glance(resolved.server), resolved

    async def _resolved(self, name: str | Name | None) -> Name:
        """The name with its aliases resolved; no session is begun for it."""
        parsed = self._name(name)
        return Name(await self._directory.resolve(parsed.server), parsed.printer)

    async def survey(self, name: str | Name | None = None) -> list[Survey]:
        """What stands on each print server, or on one, as of now: for whoever watches the farm.

        No session is begun for it. A server that cannot be read says why in ``unread``. Raises
        RedisUnreachable where not even the directory can be read.
        """
        self._refuse_closed()
        asked = None if name is None else (await self._resolved(name)).server
        return await read_surveys(
            [one for one in await self._sessions.glances() if asked in (None, one[0].name)]
        )

    async def clock(self, name: str | Name | None = None) -> float:
        """Seconds of the clock by which the facts of a print server are dated."""
        return await inventory.read_clock((await self._glance(name))[0])

    async def channels(self, name: str | Name | None = None) -> list[ChannelFacts]:
        """Open channels: of one printer, of one server with its printers, or of all servers.

        No session is begun, here and below. Of all servers each has to be read: where one may be
        away, ask for each of :meth:`servers`.
        """
        return await self._found(name, inventory.read_channels)

    async def registrations(self, name: str | Name | None = None) -> list[RegistrationFacts]:
        """Registrations, likewise."""
        return await self._found(name, inventory.read_registrations)

    async def grants(self, name: str | Name | None = None) -> list[Grant]:
        """Grants, likewise."""
        return await self._found(name, inventory.read_grants)

    async def _found(
        self, name: str | Name | None, read: Callable[[Server], Awaitable[list[F]]]
    ) -> list[F]:
        servers = [self._sessions.glance(server) for server in await self._known(name)]
        each = await inventory.together(*(read(server) for server in servers))
        found = [facts for some in each for facts in some]
        if name is None:
            return found
        asked = await self._resolved(name)
        return [facts for facts in found if asked in (facts.name, facts.name.of_server)]

    async def show(self, channel: str) -> tuple[ChannelFacts, list[Utterance]] | None:
        """One channel and what was said on it; None where no server knows it.

        Raises what keeps a server from being read, where none of the others knows it.
        """
        servers = [self._sessions.glance(server) for server in await self._known(None)]
        each = await asyncio.gather(
            *(inventory.read_channel(server, channel) for server in servers),
            return_exceptions=True,
        )
        for server, facts in zip(servers, each, strict=True):
            if isinstance(facts, ChannelFacts):
                return facts, await inventory.read_conversation(server, channel)
        for error in each:
            if isinstance(error, BaseException):
                raise error
        return None

    # Names --------------------------------------------------------------------------------------

    async def aliases(self) -> dict[str, str]:
        """The aliases of servers, and the server that each stands for."""
        self._refuse_closed()
        return await self._directory.aliases()

    async def add_alias(self, alias: str | Name, server: str | Name) -> str:
        r"""Have a name stand for a server: ``add_alias(r"\\10.1.2.3", r"\\print01")`` (D2).

        Every process follows within ``resync`` seconds. The server need not be in use yet; where
        it is an alias itself, the server behind it is meant. Returns the server.

        Raises AliasTaken where the name stands for another server, or is one; InvalidName.
        """
        self._refuse_closed()
        return await self._directory.alias(parse_server(alias), parse_server(server))

    async def remove_alias(self, alias: str | Name) -> str:
        """Take an alias away; returns the server that it stood for. Raises NotInDirectory."""
        self._refuse_closed()
        return await self._directory.unalias(parse_server(alias))

    async def forget_server(self, name: str | Name) -> list[str]:
        """Remove a server that is gone, and its aliases, which are returned.

        Rights that were given there stay, should it come back. Farm-wide registrations do not hold
        it. Raises NotInDirectory, InvalidArgument for an alias, and ServerInUse where sessions,
        other registrations or channels stand there.
        """
        self._refuse_closed()
        return await self._sessions.forget(parse_server(name))

    # The dead -----------------------------------------------------------------------------------

    async def run_down(self, name: str | Name | None = None) -> int:
        """End what dead processes left on a server, or on all; how many sessions were buried.

        Every broker does this now and then by itself; any number may do it at once.
        """
        servers = [await self.server(Name(server)) for server in await self._known(name)]
        return sum([await server.run_down() for server in servers])
