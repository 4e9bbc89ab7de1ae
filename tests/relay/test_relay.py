"""Relays as processes: what was sent is told, also after a kill, an outage or a drain."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Broker
from tests.cli.commands import Place, Process, Tympan
from tests.redis.scenes import until
from tests.relay.alerts import START, status
from tests.relay.receiver import Receiver, Reply
from tests.relay.smtp import MUTE, MailServer
from tests.servers import RedisServer
from workers.cups.types import JobQuestion, PrinterStatus

LEASE = 2.0
QUICK = ("--set", f"lease={LEASE}", "--set", "resync=0.2", "--settle", "0", "--as", "desk")


class Host:
    """A print host with one printer; its relay's pool is the test's own."""

    def __init__(self, place: Place, tympan: Tympan, source: Broker) -> None:
        self.place = place
        self.tympan = tympan
        self.source = source
        self._count = 0

    async def webhook(self, receiver: Receiver, *words: str) -> Process:
        """A relay that serves."""
        words = ("relay", "webhook", "--to", receiver.url, *self._words, *QUICK, *words)
        process = await self.tympan.start(*words)
        await process.note("is served")
        return process

    async def by_mail(self, server: MailServer, *words: str) -> Process:
        """The same by mail."""
        where = ("--server", "127.0.0.1", "--port", str(server.port), "--security", "none")
        who = ("--from", "tympan@farm.example", "--to", "desk@farm.example")
        words = ("relay", "mail", *where, *who, *self._words, *QUICK, *words)
        process = await self.tympan.start(*words)
        await process.note("is served")
        return process

    @property
    def _words(self) -> tuple[str, ...]:
        return ("--on", self.place.server, "--pool", self.place.server.strip("\\"))

    async def says(self, *reasons: str, printer: str = "", **fields: Any) -> None:
        """A status of the printer, to everybody."""
        self._count += 1
        name = rf"{self.place.server}\{printer}" if printer else self.place.printer
        await self.source.grant(name, self.source.user, "administer")
        async with await self.source.open_channel(
            name, PrinterStatus, user_filter=ALL_USERS
        ) as channel:
            await channel.send(status(self._count, *reasons, **fields))

    async def backlog(self) -> int:
        """What the pool has not finished."""
        facts = await self.source.pools.on_server(self.place.server)
        return sum(one.backlog for one in facts)

    async def is_done(self) -> None:
        """Wait until the pool has nothing more to tell."""

        async def nothing() -> bool:
            return await self.backlog() == 0

        await until(nothing)


@pytest.fixture
async def source(redis_server: RedisServer) -> AsyncIterator[Broker]:
    """The print host's broker; it sweeps up after the dead as soon as the relays do."""
    async with Broker.connect(redis_server.url, user="spooler", lease=LEASE, resync=0.2) as made:
        yield made


@pytest.fixture
async def host(place: Place, tympan: Tympan, source: Broker) -> Host:
    await source.server(place.server)
    return Host(place, tympan, source)


async def test_a_printer_in_trouble_by_mail(host: Host, mail: MailServer) -> None:
    await host.by_mail(mail)
    await host.says("media-empty-error", text="Load tray 2")
    await mail.took(1)
    await host.is_done()
    await host.says("media-empty-error", text="Load tray 2")
    await host.is_done()
    await host.says(cleared=["media-empty-error"])
    trouble, clear = await mail.took(2)
    assert trouble.subject == rf"[tympan] {host.place.printer}: media empty"
    assert "Load tray 2" in trouble.text
    assert clear.subject == rf"[tympan] {host.place.printer}: all clear"
    assert "was said once more meanwhile" in clear.text
    assert clear.message["References"] == trouble.message["References"]
    await host.is_done()
    assert len(mail.letters) == 2


async def test_the_rest_is_one_digest(host: Host, receiver: Receiver) -> None:
    """One may go out a second: what came meanwhile is told together, and then acknowledged."""
    await host.webhook(receiver, "--most", "3600", "--burst", "1")
    for number in range(20):
        await host.says("media-jam-error", printer=f"p{number:02}")
    while sum(post.json["count"] for post in receiver.taken) < 20:
        await receiver.took(len(receiver.taken) + 1)
    assert len(receiver.taken) < 10
    names = sorted(one["printer"] for post in receiver.taken for one in post.json["alerts"])
    assert names == [f"p{number:02}" for number in range(20)]
    await host.is_done()


async def test_a_kill_between_the_alert_and_its_message(host: Host, receiver: Receiver) -> None:
    receiver.answers.append(Reply(is_mute=True))
    first = await host.webhook(receiver)
    await host.says("media-jam-error")
    (before,) = await receiver.posted(1)
    await host.says("door-open-error", printer="other")
    first.signal(signal.SIGKILL)
    await host.webhook(receiver)
    again = await receiver.took(2)
    printers = {one["printer"] for post in again for one in post.json["alerts"]}
    assert printers == {"laser-3", "other"}
    ids = [post.headers["Idempotency-Key"] for post in again]
    assert before.headers["Idempotency-Key"] in ids, "who got it already can see it"
    await host.is_done()


async def test_a_drain_hands_back_what_waits_for_its_turn(host: Host, receiver: Receiver) -> None:
    first = await host.webhook(receiver, "--most", "1")
    await host.says("media-jam-error")
    await receiver.took(1)
    await host.says("door-open-error", printer="other")

    async def is_in_hand() -> bool:
        facts = await host.source.pools.on_server(host.place.server)
        return sum(one.in_hand for one in facts) == 1

    await until(is_in_hand)
    first.signal(signal.SIGTERM)
    assert await first.ended() == 0, "it does not wait for the hour to be over"
    assert await host.backlog() == 1
    await host.webhook(receiver)
    _, other = await receiver.took(2)
    assert other.json["alerts"][0]["printer"] == "other"
    await host.is_done()


@pytest.mark.slow
async def test_a_receiver_that_is_away(host: Host, receiver: Receiver) -> None:
    receiver.answers.append(Reply(503, {"Retry-After": "0"}))
    relay = await host.webhook(receiver)
    await host.says("media-jam-error")
    (post,) = await receiver.took(1)
    assert post.json["alerts"][0]["headline"] == "media jam"
    await relay.note("takes messages again")
    await host.is_done()


async def test_what_is_refused_for_good_is_a_dead_letter(host: Host, receiver: Receiver) -> None:
    receiver.answers.append(Reply(400, body=b"no such desk"))
    await host.webhook(receiver)
    await host.says("media-jam-error")
    await receiver.posted(1)

    async def is_buried() -> bool:
        return bool(await host.source.dead_letters.on_server(host.place.server))

    await until(is_buried)
    (letter,) = await host.source.dead_letters.on_server(host.place.server)
    assert "400 Bad Request: no such desk" in letter.reason


async def test_a_mail_server_that_hangs(host: Host, mail: MailServer) -> None:
    mail.says("MAIL", MUTE)
    relay = await host.by_mail(mail, "--timeout", "0.5")
    await host.says("media-jam-error")
    await relay.note("takes no messages")
    assert await host.backlog() == 1, "it is still the pool's"


async def test_an_open_question_is_told_and_left_to_others(host: Host, receiver: Receiver) -> None:
    await host.source.grant(host.place.server, "desk", "administer")
    await host.webhook(receiver, "--questions", "--all-users")
    question = JobQuestion(
        host="print01",
        event="print01/1/1/1",
        at=START,
        printer="laser-3",
        job=7,
        owner="alice",
        question="paper",
        text="Continue on A3?",
        choices=["continue", "cancel"],
        until=START,
        otherwise="cancel",
    )
    async with await host.source.open_channel(
        host.place.printer, JobQuestion, user="alice", style=BIDIRECTIONAL
    ) as channel:
        await channel.send(question)
        (post,) = await receiver.took(1)
        (told,) = post.json["alerts"]
        assert told["headline"] == "a question about job 7 of alice is open"
        await host.is_done()
        (facts,) = await host.source.channels(host.place.server)
        assert facts.state == "offered", "others may answer it"


async def test_from_the_environment_and_files(
    place: Place, receiver: Receiver, tmp_path: Path, redis_server: RedisServer, source: Broker
) -> None:
    url, secret = tmp_path / "url", tmp_path / "secret"
    url.write_text(f"{receiver.url}\n")
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    environment = {
        "TYMPAN_WEBHOOK_TO_FILE": str(url),
        "TYMPAN_WEBHOOK_SECRET_FILE": str(secret),
        "TYMPAN_WEBHOOK_ON": place.server,
        "TYMPAN_WEBHOOK_POOL": place.server.strip("\\"),
        "TYMPAN_WEBHOOK_FORM": "text",
    }
    command = Tympan(redis_server.url, environment=environment)
    try:
        process = await command.start("relay", "webhook")
        await process.note("is served")
        await Host(place, command, source).says("media-jam-error")
        (post,) = await receiver.took(1)
        assert list(post.json) == ["text"]
        assert post.headers["webhook-signature"].startswith("v1,")
    finally:
        await command.clean_up()


async def test_another_users_pool_of_that_name(host: Host, receiver: Receiver) -> None:
    first = await host.webhook(receiver)
    await first.note(f"sends to 127.0.0.1:{receiver.port}")
    first.signal(signal.SIGTERM)
    assert await first.ended() == 0
    second = await host.webhook(receiver, "--as", "carol")
    pool = host.place.server.strip("\\")
    await second.note(f"pool {pool} of desk collects on")
    await second.note(f"tympan pool delete {pool}")


async def test_as_a_worker_from_the_environment(
    place: Place, receiver: Receiver, redis_server: RedisServer, source: Broker
) -> None:
    """As the chart's pools of workers run it."""
    environment = {
        "TYMPAN_WEBHOOK_TO": receiver.url,
        "TYMPAN_WEBHOOK_ON": place.server,
        "TYMPAN_WEBHOOK_POOL": place.server.strip("\\"),
        "TYMPAN_WEBHOOK_MOST": "1",
    }
    command = Tympan(redis_server.url, environment=environment)
    words = ("worker", "workers.cli.relay:webhook_worker", "--drain", "60")
    try:
        process = await command.start(*words)
        await process.note("is served: cups-printer, cups-server")
        host = Host(place, command, source)
        await host.says("media-jam-error")
        await receiver.took(1)
        await host.says("door-open-error", printer="other")

        async def is_in_hand() -> bool:
            facts = await source.pools.on_server(place.server)
            return sum(one.in_hand for one in facts) == 1

        await until(is_in_hand)
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0, "it hands back what waits for its turn"
        assert await host.backlog() == 1
    finally:
        await command.clean_up()


async def test_a_worker_without_its_environment(tympan: Tympan) -> None:
    refused = await tympan.run("worker", "workers.cli.relay:mail_worker", status=2)
    assert "TYMPAN_MAIL_SERVER" in refused.notes


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("webhook",), "--to, or --to-file"),
        (("webhook", "--to", "https://a", "--ca", "README.md"), "README.md holds no certificates"),
        (("webhook", "--to", "nowhere"), "is no address to post to"),
        (("webhook", "--to", "http://a", "--secret-file", "/dev/null"), "has to hold one line"),
        (("mail", "--server", "a", "--from", "x", "--to", "b@c"), "is no mail address"),
        (
            ("mail", "--server", "a", "--from", "a@b", "--to", "b@c", "--user", "u"),
            "belong together",
        ),
        (("mail", "--from", "a@b", "--to", "b@c"), "--server"),
    ],
)
async def test_wrong_usage(tympan: Tympan, words: tuple[str, ...], why: str) -> None:
    refused = await tympan.run("relay", *words, status=2)
    assert why in refused.notes
