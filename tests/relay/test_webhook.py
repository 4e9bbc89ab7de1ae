"""Webhooks: a closed document, signed, and answers that are told apart."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from yarl import URL

from tests.packaging.test_documents import sample
from tests.relay.alerts import START, alert, batch_of, raw
from tests.relay.receiver import Receiver, Reply
from workers.alert import Severity, alert_of
from workers.relay.destination import NotNow, Refused
from workers.relay.folding import Said
from workers.relay.pile import Batch, Waiting
from workers.relay.webhook import (
    Form,
    Message,
    Webhook,
    message_of,
    parse_target,
    secret_of,
    signature_of,
)

KEY = b"0123456789abcdef0123456789abcdef"


class Sender:
    """A webhook that is closed in the end."""

    def __init__(self, receiver: Receiver, **how: Any) -> None:
        self.webhook = Webhook(URL(receiver.url), **how)

    async def __aenter__(self) -> Webhook:
        return self.webhook

    async def __aexit__(self, *_: object) -> None:
        await self.webhook.close()


@pytest.mark.parametrize("body", [b'"\\ud800"', b'{"a": "\\udfff"}', b"[" * 300 + b"]" * 300])
def test_json_that_cannot_be_written_again_keeps_nothing_back(body: bytes) -> None:
    found = alert_of(raw(body), "id", Severity.WARNING)
    assert found is not None
    assert found.data is None
    assert message_of(batch_of(found)).model_dump_json()


def test_json_as_deep_as_can_be_written_is_written() -> None:
    for depth in range(1, 300):
        found = alert_of(raw(b"[" * depth + b"]" * depth), "id", Severity.WARNING)
        assert found is not None
        assert message_of(batch_of(found)).model_dump_json()


async def test_a_message(receiver: Receiver) -> None:
    async with Sender(receiver) as webhook:
        await webhook.send(batch_of(alert(1, lines=("Load tray 2",), data={"reasons": ["x"]})))
    (post,) = receiver.posts
    read = Message.model_validate_json(post.body)
    assert post.headers["Content-Type"] == "application/json"
    assert post.headers["Idempotency-Key"] == post.headers["webhook-id"] == read.id
    assert abs(int(post.headers["webhook-timestamp"]) - time.time()) < 60
    assert "webhook-signature" not in post.headers
    assert "Authorization" not in post.headers
    told = post.json["alerts"][0]
    assert told == {
        "id": "event-1",
        "kind": "cups-printer",
        "server": "print01",
        "printer": "laser-3",
        "severity": "error",
        "is_over": False,
        "headline": "media empty",
        "lines": ["Load tray 2"],
        "at": "2026-11-21T10:00:01Z",
        "since": None,
        "count": 1,
        "repeats": 0,
        "data": {"reasons": ["x"]},
    }
    assert {key: post.json[key] for key in ("version", "is_digest", "title", "count")} == {
        "version": 1,
        "is_digest": False,
        "title": r"\\print01\laser-3: media empty",
        "count": 1,
    }


def test_what_went_before_is_told() -> None:
    before = Said("media-empty", 1.0, 0.0, START, repeats=3)
    item = Waiting(alert(9, ""), None, 0.0, count=2, before=before)
    message = message_of(Batch((item,)))
    (told,) = message.alerts
    assert (told.is_over, told.since, told.count, told.repeats) == (True, START, 2, 3)
    assert message.count == 2
    assert "since 2026-11-21 10:00:00 UTC\nwas said 3 times more meanwhile" in message.text


async def test_it_is_signed_as_the_specification_has_it(receiver: Receiver) -> None:
    async with Sender(receiver, secret=KEY, token="t0ken") as webhook:
        await webhook.send(batch_of(alert(1)))
    (post,) = receiver.posts
    signed = f"{post.headers['webhook-id']}.{post.headers['webhook-timestamp']}.".encode()
    digest = hmac.new(KEY, signed + post.body, hashlib.sha256).digest()
    assert post.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert post.headers["Authorization"] == "Bearer t0ken"


async def test_the_receiver_of_the_document_verifies_it(receiver: Receiver) -> None:
    known: dict[str, Any] = {}
    exec(sample("docs/listeners.md", "def is_verified"), known)
    async with Sender(receiver, secret=KEY) as webhook:
        await webhook.send(batch_of(alert(1)))
    (post,) = receiver.posts
    assert known["is_verified"](KEY, post.headers, post.body)
    assert not known["is_verified"](KEY, post.headers, post.body + b" ")
    assert not known["is_verified"](KEY[1:], post.headers, post.body)
    assert not known["is_verified"](KEY, post.headers, post.body, within=-1)


def test_a_signature_that_is_known() -> None:
    """An example of the specification's own libraries."""
    key = secret_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    found = signature_of(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_digest_and_a_chat(receiver: Receiver) -> None:
    many = batch_of(*(alert(n, subject=str(n)) for n in range(1, 41)))
    async with Sender(receiver, form=Form.TEXT) as webhook:
        await webhook.send(many)
        await webhook.send(batch_of(alert(1)))
    digest, one = (post.json for post in receiver.posts)
    assert list(digest) == ["text"]
    first, *lines = digest["text"].splitlines()
    assert first == r"40 alerts of \\print01\laser-3"
    assert len(lines) == 31
    assert lines[-1] == "… and 10 more alerts"
    assert one["text"].startswith(r"\\print01\laser-3: media empty")
    assert len(message_of(many).alerts) == 40, "programs are told all of it"


async def test_the_same_alerts_have_the_same_id(receiver: Receiver) -> None:
    async with Sender(receiver) as webhook:
        for batch in (
            batch_of(alert(1), alert(2)),
            batch_of(alert(2), alert(1)),
            batch_of(alert(1)),
        ):
            await webhook.send(batch)
    one, same, other = (post.headers["Idempotency-Key"] for post in receiver.posts)
    assert one == same != other


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, Refused), (404, Refused), (408, NotNow), (410, Refused), (429, NotNow), (500, NotNow)],
)
async def test_answers(receiver: Receiver, status: int, error: type[Exception]) -> None:
    receiver.answers.append(Reply(status, body=b"no\nsuch \x1b[2J desk" + b"x" * 10_000))
    async with Sender(receiver) as webhook:
        with pytest.raises(error, match=rf"^{status} .*: no such \[2J deskx{{100,200}}$"):
            await webhook.send(batch_of(alert(1)))
        await webhook.send(batch_of(alert(1)))
    assert len(receiver.taken) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(receiver: Receiver, status: int) -> None:
    receiver.answers.append(
        Reply(status, {"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"})
    )
    async with Sender(receiver) as webhook:
        with pytest.raises(Refused, match="redirects are not followed"):
            await webhook.send(batch_of(alert(1)))
    assert receiver.elsewhere == 0


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [("120", 120, 120), ("-1", None, None), ("soon", None, None), ("date", 50, 61)],
)
async def test_when_to_come_again(
    receiver: Receiver, said: str, least: float | None, most: float | None
) -> None:
    if said == "date":
        said = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    receiver.answers.append(Reply(503, {"Retry-After": said}))
    async with Sender(receiver) as webhook:
        with pytest.raises(NotNow) as found:
            await webhook.send(batch_of(alert(1)))
    after = found.value.after
    assert after is None if least is None or most is None else least <= (after or 0) <= most


async def test_a_receiver_that_says_nothing(receiver: Receiver) -> None:
    receiver.answers.append(Reply(is_mute=True))
    async with Sender(receiver, timeout=0.2) as webhook:
        with pytest.raises(NotNow, match="Timeout"):
            await webhook.send(batch_of(alert(1)))


async def test_nobody_there_and_the_address_stays_a_secret() -> None:
    async with Receiver() as receiver:
        pass
    async with Sender(receiver) as webhook:
        with pytest.raises(NotNow) as found:
            await webhook.send(batch_of(alert(1)))
        assert "secret-path" not in str(found.value) + webhook.name


def test_the_document_is_closed() -> None:
    made = json.loads(message_of(batch_of(alert(1))).model_dump_json())
    with pytest.raises(ValueError, match="Extra inputs"):
        Message.model_validate(made | {"more": 1})


@pytest.mark.parametrize("text", ["ftp://a/b", "farm.example/x", "", "http://", "http://[::1"])
def test_no_targets(text: str) -> None:
    with pytest.raises(ValueError, match="is no address to post to"):
        parse_target(text)


@pytest.mark.parametrize(("text", "why"), [("whsec_!!", "base64"), ("short", "5 bytes")])
def test_no_secrets(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        secret_of(text)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_why_it_is_not_reached_has_no_objects_in_it(scheme: str) -> None:
    with socket.socket() as bound:  # nobody listens there
        bound.bind(("127.0.0.1", 0))
        made = Webhook(parse_target(f"{scheme}://127.0.0.1:{bound.getsockname()[1]}/secret"))
        with pytest.raises(NotNow) as found:
            await made.send(batch_of(alert(1)))
        await made.close()
    assert "Cannot connect to host 127.0.0.1" in str(found.value)
    assert "ssl" not in str(found.value)
    assert not found.value.perhaps
