"""Mail: a destination that takes messages by SMTP."""

from __future__ import annotations

import asyncio
import contextlib
import email.policy
import email.utils
import ipaddress
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from enum import StrEnum
from typing import Any

import aiosmtplib

from workers.alert import one_line
from workers.relay.destination import NotNow, Refused, trust
from workers.relay.pile import Batch
from workers.relay.wording import id_of, text_of, thread_of, title_of

log = logging.getLogger("tympan")

FOOT = "-- \nSent by tympan relay mail. Nobody reads answers."
GOODBYE = 5.0
"""Seconds that a server may take to let us go."""
PERMANENT = 500
"""Answers from here on are the same another time."""
PORTS = {"none": 25, "starttls": 587, "tls": 465}


class Security(StrEnum):
    """How the connection is kept from others."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"

    @property
    def port(self) -> int:
        """Where servers usually listen for it."""
        return PORTS[self]


@dataclass(frozen=True, slots=True)
class MailServer:
    """Who takes mail."""

    host: str
    port: int
    security: Security
    user: str | None = None
    password: str | None = None
    ca: str | None = None
    """A file of certificates to trust in the place of the system's."""

    def __post_init__(self) -> None:
        if self.user and self.security is Security.NONE and not _is_loopback(self.host):
            raise ValueError(
                f"the password would cross the network to {self.host} in clear: use starttls or tls"
            )


def parse_address(text: str) -> str:
    """An address, or a name with one, as it was given. Raises ValueError."""
    _, address = email.utils.parseaddr(text)
    try:
        found = Address(addr_spec=address)
    except (HeaderParseError, ValueError, IndexError):
        found = Address()
    if not found.username or not found.domain or one_line(text) != text:
        raise ValueError(
            f"{text!r} is no mail address: write print@farm.example, or Print <print@farm.example>"
        )
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Mail:
    """Mail to the same people.

    Args:
        server: who takes it.
        sender: an address, or a name with one: ``Tympan <tympan@farm.example>``.
        recipients: addresses, likewise.
        prefix: what each subject begins with.
        timeout: seconds that the server may take for one answer.
    """

    def __init__(
        self,
        server: MailServer,
        sender: str,
        recipients: Sequence[str],
        prefix: str = "[tympan]",
        timeout: float = 30.0,
    ) -> None:
        self._server = server
        self._sender = sender
        self._recipients = tuple(recipients)
        self._prefix = prefix
        self._timeout = timeout
        self._leaving: set[asyncio.Task[None]] = set()
        self._domain = email.utils.parseaddr(sender)[1].partition("@")[2] or "localhost"
        self._tls = None if server.security is Security.NONE else trust(server.ca)

    @property
    def name(self) -> str:
        """Host and port."""
        return f"{self._server.host}:{self._server.port}"

    def message(self, batch: Batch[Any]) -> EmailMessage:
        """The mail for a batch. The same batch has the same Message-ID."""
        made = EmailMessage(policy=email.policy.SMTP)
        made["From"] = self._sender
        made["To"] = ", ".join(self._recipients)
        made["Subject"] = f"{self._prefix} {title_of(batch)}".strip()
        made["Date"] = email.utils.localtime()
        made["Message-ID"] = f"<{id_of(batch)}@{self._domain}>"
        thread = thread_of(batch)
        if thread is not None:
            # The first of a thread does not exist: readers gather all that refer to it.
            made["In-Reply-To"] = made["References"] = f"<thread.{thread}@{self._domain}>"
        made["Auto-Submitted"] = "auto-generated"
        made["X-Auto-Response-Suppress"] = "All"
        made.set_content(f"{text_of(batch)}\n\n{FOOT}\n", cte="quoted-printable")
        return made

    async def send(self, batch: Batch[Any]) -> None:
        """See :class:`workers.relay.destination.Destination`."""
        server = self._server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            local_hostname=self._domain,
            timeout=self._timeout,
            use_tls=server.security is Security.TLS,
            start_tls=server.security is Security.STARTTLS,
            tls_context=self._tls,
        )
        try:
            await self._connect(client)
            await self._offer(client, self.message(batch))
        except BaseException:
            client.close()
            raise
        # It is handed over, however long they take to say goodbye.
        leaving = asyncio.create_task(_leave(client), name="tympan-quit")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _connect(self, client: aiosmtplib.SMTP) -> None:
        """What is refused here is not about a message: none was offered yet."""
        try:
            await client.connect()
        except aiosmtplib.SMTPAuthenticationError as error:
            who = self._server.user
            raise NotNow(f"the password of {who} was refused: {_answer(error)}") from None
        except aiosmtplib.SMTPResponseException as error:
            raise NotNow(_answer(error)) from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise NotNow(f"{type(error).__name__}: {error}") from None

    @staticmethod
    async def _offer(client: aiosmtplib.SMTP, message: EmailMessage) -> None:
        try:
            refused, _ = await client.send_message(message)
        except aiosmtplib.SMTPRecipientsRefused as error:
            each = "; ".join(f"{one.recipient}: {_answer(one)}" for one in error.recipients)
            if all(one.code >= PERMANENT for one in error.recipients):
                raise Refused(f"all recipients were refused: {each}") from None
            raise NotNow(f"no recipient was taken: {each}") from None
        except aiosmtplib.SMTPResponseException as error:
            if error.code >= PERMANENT:
                raise Refused(_answer(error)) from None
            raise NotNow(_answer(error)) from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise NotNow(f"{type(error).__name__}: {error}", perhaps=True) from None
        for recipient, (code, answer) in refused.items():
            log.warning("mail is not taken for %s: %d %s", recipient, code, one_line(answer))

    async def close(self) -> None:
        """Wait for what is being said goodbye to."""
        if self._leaving:
            await asyncio.wait(self._leaving)


async def _leave(client: aiosmtplib.SMTP) -> None:
    with contextlib.suppress(aiosmtplib.SMTPException, OSError):  # they have what they are to have
        await client.quit(timeout=GOODBYE)
    client.close()


def _answer(error: aiosmtplib.SMTPResponseException) -> str:
    return one_line(f"{error.code} {error.message}")
