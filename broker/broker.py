"""The broker: where print components open channels, and listeners register."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from uuid import UUID

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from broker import _calls, inventory
from broker._bells import Bells
from broker._connect import Connector, UrlConnector
from broker._dispatch import Dispatcher
from broker._keys import directory, grant_field
from broker._link import Link, LinkLost
from broker._rundown import end_channel, end_registration
from broker._server import Server
from broker.callback import Callback
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
from broker.errors import (
    BrokerClosed,
    InvalidArgument,
    OutcomeUnknown,
    RedisUnreachable,
    TympanError,
)
from broker.inventory import ChannelFacts, Grant, RegistrationFacts, Utterance
from broker.names import Name, parse_user
from broker.notification import Payload, model_of
from broker.registration import Registration
from broker.rights import Right, parse_right
from broker.settings import Settings, default_url

P = TypeVar("P", bound=Payload)


def login_name() -> str:
    """Who runs this process; a number where the system knows no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


async def _quietly(work: Awaitable[object]) -> None:
    """While closing: what is over already is as good, and the rest goes on."""
    with contextlib.suppress(TympanError):
        await work


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
        connector: Connector,
        settings: Settings,
        *,
        user: str | None = None,
        server: str | None = None,
    ) -> None:
        self.settings = settings
        self._user = parse_user(user or login_name())
        self._default_server = server
        self._connector = connector
        self._link = Link(connector, settings)
        self._bells = Bells(connector, settings, self._rang, self._heard_again)
        self._servers: dict[str, Server] = {}
        self._starting: dict[str, asyncio.Lock] = {}
        self._state = "new"

    @classmethod
    def connect(
        cls,
        url: str | None = None,
        *,
        user: str | None = None,
        server: str | None = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> Self:
        r"""A broker on the Redis at ``url``; enter it to connect.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``; default ``TYMPAN_URL``, else this host.
            user: who this client acts as, asserted by whoever holds the credentials; default the
                login name.
            server: the print server that an empty name means (R21).
            settings: see :class:`Settings`.
            **options: instead of settings, single ones.

        Raises InvalidUrl, InvalidSettings, InvalidName.
        """
        if settings is not None and options:
            raise InvalidArgument("give settings or single settings, not both")
        settings = settings or Settings.of(**options)
        return cls(UrlConnector(url or default_url(), settings), settings, user=user, server=server)

    # Life ---------------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Connect. Raises RedisUnreachable, RedisRefused, RedisTooOld, DurabilityUnavailable."""
        if self._state != "new":
            raise BrokerClosed("a broker object starts once")
        try:
            await self._link.command("PING")
            await self._link.check_durability()
        except LinkLost as error:
            await self._link.close()
            raise RedisUnreachable(f"{self._link.where} does not answer: {error}") from None
        except BaseException:
            await self._link.close()
            raise
        self._state = "open"
        return self

    async def close(self) -> None:
        """End everything that is held here: channels, dialogs, registrations, sessions."""
        if self._state != "open":
            return
        for server in list(self._servers.values()):
            await self._end_held(server)
        self._state = "closed"
        for server in list(self._servers.values()):
            await server.close()
        await self._bells.close()
        await self._link.close()

    @staticmethod
    async def _end_held(server: Server) -> None:
        """Best effort: what cannot be ended now is run down after the lease."""
        try:
            async with asyncio.timeout(server.settings.reply_timeout):
                await server.stop_registering()
                for registration in list(server.listening.registrations.values()):
                    await _quietly(registration.unregister())
                    registration.broker_closed()
                await _quietly(server.listening.settle_doubts())
                for opened in [*server.channels, *server.doubtful]:
                    await _quietly(end_channel(server, opened, "abandon", server.session))
                for offer in list(server.dialogs.values()):
                    await _quietly(offer.close())
        except TimeoutError:
            return
        finally:
            for registration in list(server.listening.registrations.values()):
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

    def _heard_again(self, channel: str) -> None:
        server = self._server_of(channel)
        if server is not None:
            server.heard_again()

    def _server_of(self, channel: str) -> Server | None:
        return self._servers.get(channel[channel.index("{") + 1 : channel.index("}")])

    async def server(self, name: str | Name | None = None) -> Server:
        """This process's session on a print server, begun when it is first needed."""
        if self._state != "open":
            raise BrokerClosed("this broker is not open: async with Broker.connect(...) as broker")
        parsed = self._name(name).server
        async with self._starting.setdefault(parsed, asyncio.Lock()):
            server = self._servers.get(parsed)
            if server is None:
                server = Server(parsed, self._link, self._bells, self.settings)
                self._servers[parsed] = server
                try:
                    await server.start()
                except BaseException:
                    del self._servers[parsed]
                    raise
            return server

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
        if user_filter is ALL_USERS and user is not None:
            raise InvalidArgument("a channel is for one user or for all users, not for both")
        target = None if user_filter is ALL_USERS else parse_user(user or self._user)
        server = await self.server(name)
        return Channel(server, self._name(name), guid, model, style, target, self._user)

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
            name: ``\\server\printer`` or ``\\server``; None for the client's own server.
            type: a GUID, a known alias, or a model, whose type it is.
            user: whom it is for; default the broker's user.
            user_filter: ALL_USERS speaks to everybody who listens there; the broker's user must
                administer the name (R9).
            style: BIDIRECTIONAL to be answered.
            callback: called with responses; without one, await :meth:`Channel.response` (R11).
                Ignored for a unidirectional channel (R10).

        Raises InvalidName, InvalidType, AccessDenied, MaxChannelCountExceeded, RedisError.
        """
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
        return Registration(await self.server(name), self._name(name), model)

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
            name: ``\\server\printer`` or ``\\server``; None for the client's own server.
            type: a GUID, a known alias, or a model, by which payloads are validated.
            user: who listens; default the broker's user.
            user_filter: ALL_USERS hears everybody's; the user must administer the name (R17, R18).
            style: which channels to hear; a registration hears one style (R40).
            printers: with a server's name, hear all its printers too (D1).
            buffer: unread notifications held for each audience; default the setting.

        Raises InvalidName, InvalidType, AccessDenied, MaxRegistrationCountExceeded, RedisError.
        """
        guid, model = model_of(type)
        registration: Registration[Any] = Registration(
            await self.server(name), self._name(name), model
        )
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
        registration.dispatch_to(Dispatcher(callback).listen)
        return registration

    # Rights -------------------------------------------------------------------------------------

    async def grant(self, name: str | Name, user: str, right: str | Right) -> Right:
        """Give a user a right on a printer or server; returns all that the user has there now.

        Raises InvalidArgument where the right does not apply to that kind of name.
        """
        return await self._change_rights(name, user, right, give=True)

    async def revoke(self, name: str | Name, user: str, right: str | Right) -> Right:
        """Take a right away; registrations that stood on it end. Returns what is left."""
        left = await self._change_rights(name, user, right, give=False)
        parsed, who = self._name(name), parse_user(user)
        server = await self.server(parsed)
        for facts in await inventory.read_registrations(server):
            if (facts.name, facts.user) == (parsed, who) and facts.needed & ~left:
                await end_registration(server, facts.id, "revoke", facts.session)
        return left

    async def _change_rights(
        self, name: str | Name, user: str, right: str | Right, *, give: bool
    ) -> Right:
        parsed = self._name(name)
        mask = parse_right(right, parsed)
        field = grant_field(parsed.printer, parse_user(user))
        server = await self.server(parsed)
        _, now = await server.ask_anew(
            lambda: _calls.grant(server.keys, field, int(mask), give=give)
        )
        return Right(int(now))

    # Looking ------------------------------------------------------------------------------------

    async def servers(self) -> list[str]:
        """The print servers that this Redis knows."""
        where = directory(self.settings.namespace)
        names: list[bytes] = []
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type((LinkLost, RedisUnreachable)),
                wait=wait_random_exponential(multiplier=0.02, max=1.0),
                stop=stop_after_delay(self.settings.operation_timeout),
                reraise=True,
            ):
                with attempt:
                    names = await self._link.command("SMEMBERS", where)
        except LinkLost as error:
            raise RedisUnreachable(f"{self._link.where} does not answer: {error}") from None
        return sorted(name.decode() for name in names)

    async def _each(self, name: str | Name | None) -> list[Server]:
        known = await self.servers()
        names = known if name is None else {self._name(name).server} & set(known)
        return [await self.server(Name(server)) for server in names]

    async def channels(self, name: str | Name | None = None) -> list[ChannelFacts]:
        """Open channels: of one printer, of one server with its printers, or of all servers."""
        found = [
            facts
            for server in await self._each(name)
            for facts in await inventory.read_channels(server)
        ]
        return [facts for facts in found if self._covers(name, facts.name)]

    async def registrations(self, name: str | Name | None = None) -> list[RegistrationFacts]:
        """Registrations, likewise."""
        found = [
            facts
            for server in await self._each(name)
            for facts in await inventory.read_registrations(server)
        ]
        return [facts for facts in found if self._covers(name, facts.name)]

    async def grants(self, name: str | Name | None = None) -> list[Grant]:
        """Grants, likewise."""
        found = [
            grant
            for server in await self._each(name)
            for grant in await inventory.read_grants(server)
        ]
        return [grant for grant in found if self._covers(name, grant.name)]

    def _covers(self, asked: str | Name | None, name: Name) -> bool:
        if asked is None:
            return True
        parsed = self._name(asked)
        return parsed == name or (not parsed.printer and parsed.server == name.server)

    async def show(self, channel: str) -> tuple[ChannelFacts, list[Utterance]] | None:
        """One channel and what was said on it; None where no server knows it."""
        for name in await self.servers():
            server = await self.server(Name(name))
            facts = await inventory.read_channel(server, channel)
            if facts is not None:
                return facts, await inventory.read_conversation(server, channel)
        return None

    # The dead -----------------------------------------------------------------------------------

    async def run_down(self, name: str | Name | None = None) -> int:
        """End what dead processes left on a server, or on all; how many sessions were buried.

        Every broker does this now and then by itself; any number may do it at once.
        """
        return sum([await server.run_down() for server in await self._each(name)])
