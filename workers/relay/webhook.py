"""Webhooks: a destination that takes messages as JSON by POST.

What is sent is a :class:`Message`, closed and versioned; or ``{"text": ...}``, as chat services
take it. Signatures are those of the Standard Webhooks specification, which libraries of most
languages verify: HMAC-SHA256 of ``id.timestamp.body``.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import hashlib
import hmac
import json
import re
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

import aiohttp
from pydantic import BaseModel, ConfigDict
from yarl import URL

from workers.alert import one_line
from workers.relay.destination import NotNow, Refused, trust
from workers.relay.pile import Batch, Waiting
from workers.relay.wording import id_of, text_of, title_of

MOST_TEXT_LINES = 30
"""Alerts that a chat is shown of a digest."""
AGAIN = (408, 425, 429)
"""Of the client's errors those that are none another time."""
SHOWN = 200
"""Characters of an answer that an error quotes."""
SECRET_PREFIX = "whsec_"
CONTEXT = re.compile(r" ?ssl:(<[^>]*>|default|True|False)")


class Form(StrEnum):
    """How the body is made."""

    TYMPAN = "tympan"
    TEXT = "text"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ToldAlert(_Part):
    """One alert of a message."""

    id: str
    """The same whenever this alert is sent again."""
    kind: str
    """The alias of its notification type, otherwise the GUID."""
    server: str
    printer: str
    """Empty for what concerns the server."""
    severity: Literal["report", "warning", "error"]
    is_over: bool
    """Whether it says that all is well again."""
    headline: str
    lines: list[str]
    at: datetime
    """When it happened, UTC."""
    since: datetime | None
    """Of what was told before and goes on, or is over now: when it began, UTC."""
    count: int
    """How many alerts it stands for: those that it replaced while it waited, and itself."""
    repeats: int
    """How often what was told before was said again since."""
    data: Any
    """The notification's payload; null where that is no JSON."""


class Message(_Part):
    """What is sent, with one alert or, as a digest, with several."""

    version: Literal[1] = 1
    id: str
    """The same whenever the same alerts are sent again; also the Idempotency-Key."""
    sent_at: datetime
    is_digest: bool
    title: str
    text: str
    count: int
    """How many alerts it stands for."""
    alerts: list[ToldAlert]


def message_of(batch: Batch[Any]) -> Message:
    """The message for a batch."""
    return Message(
        id=str(id_of(batch)),
        sent_at=datetime.now(UTC),
        is_digest=batch.is_digest,
        title=title_of(batch),
        text=text_of(batch),
        count=sum(item.count for item in batch.items),
        alerts=[_told(item) for item in batch.items],
    )


def _told(item: Waiting[Any]) -> ToldAlert:
    alert, before = item.alert, item.before
    goes_on = before is not None and (alert.is_clear or before.condition == alert.condition)
    return ToldAlert(
        id=alert.id,
        kind=alert.kind,
        server=alert.name.server,
        printer=alert.name.printer,
        severity=alert.severity.word,
        is_over=alert.is_clear,
        headline=alert.headline,
        lines=list(alert.lines),
        at=alert.at,
        since=before.since if before is not None and goes_on else None,
        count=item.count,
        repeats=before.repeats if before is not None else 0,
        data=alert.data,
    )


def parse_target(text: str) -> URL:
    """Where to POST. Raises ValueError."""
    try:
        found = URL(text.strip())
    except ValueError:
        found = URL()
    if found.scheme not in ("http", "https") or not found.host:
        raise ValueError(f"{text!r} is no address to post to: write https://host/path")
    return found


def secret_of(text: str) -> bytes:
    """The key that a secret stands for: base64 after ``whsec_``, otherwise its own characters.

    Raises ValueError where it is none, or too short to keep anybody out.
    """
    text = text.strip()
    key = text.encode()
    if text.startswith(SECRET_PREFIX):
        try:
            key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError(f"what follows {SECRET_PREFIX} is no base64") from None
    if len(key) < 16:
        raise ValueError(f"the secret has {len(key)} bytes: give it 24 to 64 random ones")
    return key


def signature_of(key: bytes, id_: str, timestamp: int, body: bytes) -> str:
    """``v1,`` and the signature in base64."""
    signed = f"{id_}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


class Webhook:
    """Messages to one address.

    Args:
        target: where to POST.
        form: how the body is made.
        secret: signs each message; None for none.
        token: is sent as ``Authorization: Bearer``; None for none.
        ca: a file of certificates to trust in the place of the system's.
        timeout: seconds for one message, connecting among it.
    """

    def __init__(
        self,
        target: URL,
        *,
        form: Form = Form.TYMPAN,
        secret: bytes | None = None,
        token: str | None = None,
        ca: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._target = target
        self._form = form
        self._secret = secret
        self._token = token
        self._tls = trust(ca)
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """Host and port: the rest of the address may be a secret."""
        return f"{self._target.host}:{self._target.port}"

    def body(self, batch: Batch[Any]) -> bytes:
        """What is posted."""
        if self._form is Form.TYMPAN:
            return message_of(batch).model_dump_json().encode()
        text = text_of(batch, MOST_TEXT_LINES)
        return json.dumps(
            {"text": f"{title_of(batch)}\n{text}" if batch.is_digest else text}
        ).encode()

    def headers(self, batch: Batch[Any], body: bytes) -> dict[str, str]:
        """Beside it; ids, and the signature."""
        id_, now = str(id_of(batch)), int(time.time())
        found = {
            "Content-Type": "application/json",
            "User-Agent": "tympan-relay",
            "Idempotency-Key": id_,
            "webhook-id": id_,
            "webhook-timestamp": str(now),
        }
        if self._secret is not None:
            found["webhook-signature"] = signature_of(self._secret, id_, now, body)
        if self._token is not None:
            found["Authorization"] = f"Bearer {self._token}"
        return found

    async def send(self, batch: Batch[Any]) -> None:
        """See :class:`workers.relay.destination.Destination`."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        body = self.body(batch)
        try:
            async with self._session.post(
                self._target,
                data=body,
                headers=self.headers(batch, body),
                allow_redirects=False,
                ssl=self._tls,
            ) as answer:
                status = answer.status
                if not 200 <= status < 300:
                    raise await _refusal(answer)
        except (aiohttp.ClientError, OSError) as error:
            why = f"{type(error).__name__}: {_without(self._target, error)}"
            is_reached = not isinstance(error, aiohttp.ClientConnectorError)
            raise NotNow(why, perhaps=is_reached) from None

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()


async def _refusal(answer: aiohttp.ClientResponse) -> Exception:
    """What an answer that is no success means."""
    status = answer.status
    said = one_line((await answer.content.read(SHOWN)).decode(errors="replace"))
    why = f"{status} {answer.reason or ''}".strip() + (f": {said}" if said else "")
    if 300 <= status < 400:
        return Refused(f"{why}: redirects are not followed; give the address that it leads to")
    if status >= 500 or status in AGAIN:
        return NotNow(why, _seconds(answer.headers.get("Retry-After")))
    return Refused(why)


def _seconds(text: str | None) -> float | None:
    """``Retry-After``: seconds, or a date."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        at = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, at.timestamp() - time.time())


def _without(target: URL, error: Exception) -> str:
    """What went wrong, without the address: it may be a secret."""
    said = CONTEXT.sub("", one_line(str(error)))
    return said.replace(str(target), target.host or "")
