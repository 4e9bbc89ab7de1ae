"""A mail server on loopback, which says what a test wants it to say."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email
import email.policy
import ssl
from collections import defaultdict, deque
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Self

PATIENCE = 30.0
MUTE = ""
"""In the place of an answer: nothing is said any more."""


@dataclass
class Letter:
    """One mail that was taken."""

    message: EmailMessage
    sender: str
    recipients: list[str]
    was_tls: bool
    login: str | None

    @property
    def subject(self) -> str:
        return str(self.message["Subject"])

    @property
    def text(self) -> str:
        return str(self.message.get_content())


@dataclass
class _Talk:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_tls: bool = False
    login: str | None = None
    sender: str = ""
    recipients: list[str] = field(default_factory=list)

    async def say(self, text: str) -> None:
        self.writer.write(text.encode() + b"\r\n")
        await self.writer.drain()

    async def line(self) -> str:
        return (await self.reader.readline()).decode().rstrip("\r\n")


class MailServer:
    """SMTP with STARTTLS and AUTH PLAIN, as RFC 5321, 3207 and 4954 have it.

    ``answers``: by verb, what is said next in the place of the usual answer.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, *, is_tls: bool = False) -> None:
        self.letters: list[Letter] = []
        self.answers: dict[str, deque[str]] = defaultdict(deque)
        self.connections = 0
        self.heard: list[str] = []
        self._tls = tls
        self._is_tls = is_tls
        self._news = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(
            self._begin, "127.0.0.1", port, ssl=self._tls if self._is_tls else None
        )

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def says(self, verb: str, *answers: str) -> None:
        """The next answers to a verb; ``.`` is the end of the data, ``+`` the greeting."""
        self.answers[verb].extend(answers)

    async def took(self, many: int) -> list[Letter]:
        """The mails, when there are so many."""
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: len(self.letters) >= many)
        return self.letters

    async def hears(self, verb: str, times: int = 1) -> None:
        """Wait until a verb was said so often."""
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: self.heard.count(verb) >= times)

    async def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await self._talk(_Talk(reader, writer, self._is_tls))
        finally:
            self._talks.discard(task)
            writer.close()

    async def _note(self, verb: str) -> None:
        async with self._news:
            self.heard.append(verb)
            self._news.notify_all()

    async def _answer(self, talk: _Talk, verb: str, usual: str) -> bool:
        """Say it; whether it was a yes."""
        text = self.answers[verb].popleft() if self.answers[verb] else usual
        await self._note(verb)
        if text == MUTE:
            await asyncio.Event().wait()
        await talk.say(text)
        return text[0] in "23"

    async def _talk(self, talk: _Talk) -> None:
        if not await self._answer(talk, "+", "220 mail.test ESMTP"):
            return
        while line := await talk.line():
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO":
                    await self._extensions(talk)
                case "STARTTLS":
                    await talk.say("220 go ahead")
                    await talk.writer.start_tls(self._tls)  # type: ignore[arg-type]
                    talk.is_tls = True
                case "AUTH":
                    _, user, _ = base64.b64decode(rest.split()[1]).decode().split("\0")
                    if await self._answer(talk, "AUTH", "235 welcome"):
                        talk.login = user
                case "QUIT":
                    await self._answer(talk, "QUIT", "221 bye")
                    return
                case other:
                    await self._envelope(talk, other, rest)

    async def _envelope(self, talk: _Talk, verb: str, rest: str) -> None:
        match verb:
            case "MAIL":
                talk.sender, talk.recipients = _address(rest), []
                await self._answer(talk, "MAIL", "250 ok")
            case "RCPT":
                if await self._answer(talk, "RCPT", "250 ok"):
                    talk.recipients.append(_address(rest))
            case "DATA":
                if await self._answer(talk, "DATA", "354 go on"):
                    await self._data(talk)
            case _:
                await self._answer(talk, verb, "250 ok")

    async def _extensions(self, talk: _Talk) -> None:
        known = ["mail.test", "8BITMIME"]
        if self._tls is not None and not talk.is_tls:
            known.append("STARTTLS")
        if talk.is_tls or self._tls is None:
            known.append("AUTH PLAIN")
        *most, last = known
        await talk.say("\r\n".join([*(f"250-{one}" for one in most), f"250 {last}"]))

    async def _data(self, talk: _Talk) -> None:
        lines = []
        while (line := await talk.reader.readline()) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        text = self.answers["."].popleft() if self.answers["."] else "250 taken"
        if text[:1] == "2":
            message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
            async with self._news:
                self.letters.append(
                    Letter(message, talk.sender, talk.recipients, talk.is_tls, talk.login)
                )
                self._news.notify_all()
        await self._note(".")
        if text == MUTE:
            await asyncio.Event().wait()
        await talk.say(text)


def _address(text: str) -> str:
    return text.partition("<")[2].partition(">")[0]
