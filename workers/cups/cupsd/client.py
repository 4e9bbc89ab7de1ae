"""A client of cupsd and of printers: IPP over HTTP.

::

    async with Client("/run/cups/cups.sock") as cups:
        for printer in await cups.printers():
            print(printer.name, printer.state)

The client says who it is. Who says so of himself on cupsd's UNIX socket is believed (``PeerCred``);
any other name cupsd believes where its policies ask for no authentication: Debian's own do not, to
read jobs, to hold, to release and to cancel them.
"""

from __future__ import annotations

import itertools
import os
import pwd
import ssl
from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

import aiohttp

from workers.cups.cupsd import ipp
from workers.cups.cupsd.facts import (
    OF_JOBS,
    JobFacts,
    PrinterFacts,
    SubscriptionFacts,
    job_in,
    printer_in,
    subscription_in,
)
from workers.cups.cupsd.ipp import Attributes, Group, Message, Tag
from workers.cups.cupsd.operations import (
    FIRST_REFUSAL,
    FORBIDDEN,
    Forbidden,
    IppError,
    Misspoken,
    NotFound,
    Operation,
    Refused,
    Unreachable,
    refusal,
)

__all__ = [
    "Client",
    "Forbidden",
    "IppError",
    "JobFacts",
    "Misspoken",
    "NotFound",
    "Operation",
    "PrinterFacts",
    "Refused",
    "SubscriptionFacts",
    "Unreachable",
]

MOST = 33_554_432
"""Bytes of an answer: all events that a cupsd keeps, or all its printers."""
TIMEOUT = 20.0
IDLE = 15.0
"""Seconds that a connection is kept: less than cupsd's own KeepAliveTimeout, 30."""
LOCAL = "http://localhost/"
"""What is asked for over a UNIX socket."""
_DEFAULT_PORTS = {"ipp": 631, "ipps": 631, "http": 80, "https": 443}


class Client:
    """Asks one cupsd, and any number of printers; errors are IppErrors.

    Args:
        address: of cupsd: the path of its UNIX socket, or ``host:port``.
        user: who asks; default who runs this.
        timeout: seconds for one answer.
    """

    def __init__(self, address: str, *, user: str | None = None, timeout: float = TIMEOUT) -> None:
        self.address = address
        self.user = user or _who_runs_this()
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._ids = itertools.count(1)
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            await session.close()

    # Subscriptions ------------------------------------------------------------------------------

    async def subscriptions(self) -> list[SubscriptionFacts]:
        """All on the server as a whole; what a policy keeps from this client is empty."""
        asked: Attributes = {"requested-attributes": (Tag.KEYWORD, ["all"])}
        try:
            found = await self.ask(Operation.GET_SUBSCRIPTIONS, asked)
        except NotFound:
            return []
        return [subscription_in(group) for group in found.of(Tag.SUBSCRIPTION)]

    async def subscribe(
        self, recipient: str, events: Sequence[str], user_data: bytes, lease: int
    ) -> int:
        """Have events of the server and all its printers pushed; returns the subscription's id.

        ``lease``: seconds; ``user_data``: up to 63 bytes.
        """
        template: Attributes = {
            "notify-recipient-uri": (Tag.URI, recipient),
            "notify-events": (Tag.KEYWORD, list(events)),
            "notify-user-data": (Tag.OCTETS, user_data),
            "notify-lease-duration": (Tag.INTEGER, lease),
        }
        made = await self.ask(
            Operation.CREATE_PRINTER_SUBSCRIPTION, {}, (Tag.SUBSCRIPTION, template), retries=0
        )
        group = made.first(Tag.SUBSCRIPTION)
        number = group.one("notify-subscription-id", int)
        if number is None:
            status = group.one("notify-status-code", int) or made.code
            raise Refused(f"{self.address} made no subscription (status {status:#06x})", status)
        return number

    async def renew(self, subscription: int, lease: int) -> None:
        """Begin its lease anew. Raises NotFound where it is gone."""
        template: Attributes = {"notify-lease-duration": (Tag.INTEGER, lease)}
        await self.ask(
            Operation.RENEW_SUBSCRIPTION, _numbered(subscription), (Tag.SUBSCRIPTION, template)
        )

    async def unsubscribe(self, subscription: int) -> None:
        """End it; one that is gone will do."""
        try:
            await self.ask(Operation.CANCEL_SUBSCRIPTION, _numbered(subscription))
        except NotFound:
            return

    async def notifications(self, subscription: int, first: int) -> list[Group]:
        """Events that cupsd still has of a subscription, from that number on, in order.

        Raises NotFound where the subscription is gone.
        """
        asked: Attributes = {
            "notify-subscription-ids": (Tag.INTEGER, [subscription]),
            "notify-sequence-numbers": (Tag.INTEGER, [first]),
        }
        return (await self.ask(Operation.GET_NOTIFICATIONS, asked)).of(Tag.EVENT)

    # Printers -----------------------------------------------------------------------------------

    async def printers(self) -> list[PrinterFacts]:
        """The queues and classes of cupsd, with all their attributes but the drivers' options."""
        names = ("all", "device-uri", "printer-id")
        asked: Attributes = {"requested-attributes": (Tag.KEYWORD, list(names))}
        try:
            found = await self.ask(Operation.CUPS_GET_PRINTERS, asked)
        except NotFound:
            return []
        return [
            printer_in(group)
            for group in found.of(Tag.PRINTER)
            if "printer-name" in group.attributes
        ]

    async def printer_at(self, uri: str, names: Sequence[str] = ("all",)) -> PrinterFacts:
        """What a printer says of itself, at ``ipp://``, ``ipps://``, ``http://`` or ``https://``.

        Of ``ipps`` the certificate is not checked: printers have none that could be. Nothing that
        is asked or told is a secret.
        """
        try:
            parts = urlsplit(uri)
            port = parts.port or _DEFAULT_PORTS[parts.scheme]
        except (KeyError, ValueError):
            raise Unreachable(f"{uri} is no address of an IPP printer") from None
        scheme = {"ipp": "http", "ipps": "https"}.get(parts.scheme, parts.scheme)
        host = parts.hostname or ""
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path or '/'}"
        operation: Attributes = {
            **_beginning(uri),
            "requesting-user-name": (Tag.NAME, self.user),
            "requested-attributes": (Tag.KEYWORD, list(names)),
        }
        session = self._session("printers")
        groups = [(Tag.OPERATION, operation)]
        answer = await self._post(session, url, Operation.GET_PRINTER_ATTRIBUTES, groups, {})
        return printer_in(answer.first(Tag.PRINTER))

    # Jobs ---------------------------------------------------------------------------------------

    async def job(self, job: int) -> JobFacts:
        """A job, also one that is over while cupsd remembers it. Raises NotFound."""
        asked: Attributes = {"requested-attributes": (Tag.KEYWORD, list(OF_JOBS))}
        answer = await self.ask(Operation.GET_JOB_ATTRIBUTES, asked, job=job)
        return job_in(answer.first(Tag.JOB), job)

    async def jobs(self, first: int, many: int) -> list[JobFacts]:
        """So many jobs at the most, those that are over too, from that number on."""
        asked: Attributes = {
            "requested-attributes": (Tag.KEYWORD, list(OF_JOBS)),
            "which-jobs": (Tag.KEYWORD, "all"),
            "first-job-id": (Tag.INTEGER, first),
            "limit": (Tag.INTEGER, many),
        }
        try:
            found = await self.ask(Operation.GET_JOBS, asked)
        except NotFound:
            return []
        return [job_in(group) for group in found.of(Tag.JOB)]

    async def hold_job(self, job: int) -> None:
        """Hold it until it is released."""
        asked: Attributes = {"job-hold-until": (Tag.KEYWORD, "indefinite")}
        await self.ask(Operation.HOLD_JOB, {}, (Tag.JOB, asked), job=job)

    async def release_job(self, job: int) -> None:
        """Let a held job print."""
        await self.ask(Operation.RELEASE_JOB, {}, job=job)

    async def cancel_job(self, job: int) -> None:
        """Cancel it."""
        await self.ask(Operation.CANCEL_JOB, {}, job=job)

    # Asking -------------------------------------------------------------------------------------

    async def ask(
        self,
        operation: IntEnum,
        asked: Attributes,
        *groups: tuple[int, Attributes],
        job: int | None = None,
        retries: int = 1,
    ) -> Message:
        """One question to cupsd. ``retries``: on a connection that was closed meanwhile."""
        about: Attributes = {} if job is None else {"job-id": (Tag.INTEGER, job)}
        mine: Attributes = {
            **_beginning("ipp://localhost/"),
            **about,
            "requesting-user-name": (Tag.NAME, self.user),
            **asked,
        }
        is_local = self.address.startswith("/")
        session = self._session(self.address if is_local else "")
        is_himself = is_local and self.user == _who_runs_this()
        headers = {"Authorization": f"PeerCred {quote(self.user)}"} if is_himself else {}
        url = LOCAL if is_local else f"http://{self.address}/"
        whole = [(Tag.OPERATION, mine), *groups]
        for left in range(retries, -1, -1):
            try:
                return await self._post(session, url, operation, whole, headers)
            except Unreachable as error:
                stale = isinstance(error.__cause__, aiohttp.ServerDisconnectedError)
                if not (left and stale):
                    raise
        raise AssertionError("unreachable")

    def _session(self, where: str) -> aiohttp.ClientSession:
        if where not in self._sessions:
            connector: aiohttp.BaseConnector
            if where.startswith("/"):
                connector = aiohttp.UnixConnector(where, keepalive_timeout=IDLE)
            else:
                trusting = ssl.create_default_context()
                trusting.check_hostname = False
                trusting.verify_mode = ssl.CERT_NONE
                # Printers hang up as they like, and are asked rarely.
                kept = {"force_close": True} if where == "printers" else {"keepalive_timeout": IDLE}
                connector = aiohttp.TCPConnector(ssl=trusting, **kept)
            self._sessions[where] = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._sessions[where]

    async def _post(
        self,
        session: aiohttp.ClientSession,
        url: str,
        operation: IntEnum,
        groups: Sequence[tuple[int, Attributes]],
        headers: dict[str, str],
    ) -> Message:
        number = next(self._ids) & 0x7FFFFFFF
        body = ipp.encode(operation, number, groups)
        sent = {"Content-Type": "application/ipp", **headers}
        what = f"{operation.name} at {self.address if url == LOCAL else url}"
        try:
            async with session.post(
                url, data=body, headers=sent, allow_redirects=False
            ) as response:
                if response.status != 200:
                    kind = Forbidden if response.status in FORBIDDEN else Refused
                    raise kind(f"{what}: HTTP status {response.status}", response.status)
                data = await _read(response)
        # A host whose name has an empty label, or a long one, is a UnicodeError of the resolver.
        except (aiohttp.ClientError, OSError, TimeoutError, UnicodeError) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"{what}: {reason}") from error
        try:
            answer = ipp.decode(data, most=MOST)
        except ipp.Fault as error:
            raise Misspoken(f"{what}: what answered speaks no IPP: {error}") from None
        if answer.code >= FIRST_REFUSAL:
            raise refusal(what, answer)
        return answer


@cache
def _who_runs_this() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid-{os.geteuid()}"


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Raises Misspoken for an answer that is too long."""
    data = bytearray()
    async for part in response.content.iter_chunked(65_536):
        data += part
        if len(data) > MOST:
            raise Misspoken(f"{response.url} answered more than {MOST} bytes")
    return bytes(data)


def _beginning(uri: str) -> Attributes:
    return {
        "attributes-charset": (Tag.CHARSET, "utf-8"),
        "attributes-natural-language": (Tag.LANGUAGE, "en"),
        "printer-uri": (Tag.URI, uri),
    }


def _numbered(subscription: int) -> Attributes:
    return {"notify-subscription-id": (Tag.INTEGER, subscription)}
