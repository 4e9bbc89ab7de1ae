"""Mail: what is handed over is whole and marked as a machine's, and what is not is told apart."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from broker import Name
from tests.certificates import Certificates
from tests.relay.alerts import PRINTER, alert, batch_of
from tests.relay.smtp import MUTE, MailServer
from workers.relay import mail as mails
from workers.relay.destination import NotNow, Refused
from workers.relay.mail import Mail, Security, parse_address

OTHER = Name("print02", "büro 1")


@pytest.fixture
def server(mail: MailServer) -> MailServer:
    return mail


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def shown(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.good.chain, certificates.good.key)
    return context


def to(server: MailServer, security: Security = Security.NONE, **fields: Any) -> Mail:
    known = mails.MailServer("127.0.0.1", server.port, security, **fields)
    people = ["desk@farm.example", "Duty <duty@farm.example>"]
    return Mail(known, "Print farm <tympan@farm.example>", people, timeout=10.0)


async def test_a_mail_is_taken(server: MailServer) -> None:
    sender = to(server)
    await sender.send(batch_of(alert(1, lines=("Load tray 2 … jetzt",))))
    await sender.close()
    (letter,) = await server.took(1)
    assert letter.sender == "tympan@farm.example"
    assert letter.recipients == ["desk@farm.example", "duty@farm.example"]
    assert letter.subject == rf"[tympan] {PRINTER}: media empty"
    assert "Load tray 2 … jetzt" in letter.text
    assert "at 2026-11-21 10:00:01 UTC (cups-printer, error)" in letter.text
    head = letter.message
    assert head["Auto-Submitted"] == "auto-generated"
    assert head["X-Auto-Response-Suppress"] == "All"
    assert head["Date"]
    assert "QUIT" in server.heard


async def test_mails_of_one_printer_are_a_thread(server: MailServer) -> None:
    sender = to(server)
    for batch in (
        batch_of(alert(1)),
        batch_of(alert(2, "")),
        batch_of(alert(3, name=OTHER)),
        batch_of(alert(1)),
        batch_of(alert(4), alert(5, name=OTHER)),
    ):
        await sender.send(batch)
    one, clear, other, again, digest = [letter.message for letter in server.letters]
    assert one["References"] == clear["References"] == one["In-Reply-To"] != other["References"]
    assert one["Message-ID"] != clear["Message-ID"]
    assert one["Message-ID"] == again["Message-ID"], "what is sent twice can be told"
    assert one["Message-ID"].endswith("@farm.example>")
    assert digest["References"] is None
    await sender.close()


async def test_a_digest_says_how_many(server: MailServer) -> None:
    sender = to(server)
    many = [alert(n, name=Name("print01", f"p{n}")) for n in range(1, 131)]
    await sender.send(batch_of(*many))
    (letter,) = server.letters
    assert letter.subject == "[tympan] 130 alerts of 130 printers and servers"
    assert r"error    \\print01\p100: media empty" in letter.text
    assert "p101" not in letter.text
    assert "… and 30 more alerts" in letter.text
    await sender.close()


async def test_a_hostile_text_makes_no_headers(server: MailServer) -> None:
    sender = to(server)
    hostile = alert(1, headline="x" * 500, lines=(".", "..", "From me", "Subject: other"))
    await sender.send(batch_of(hostile))
    (letter,) = server.letters
    assert letter.recipients == ["desk@farm.example", "duty@farm.example"]
    assert len(letter.subject) < 250
    assert ".\n..\nFrom me\nSubject: other\n" in letter.text.replace("\r\n", "\n")
    await sender.close()


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
async def test_with_tls_and_a_password(certificates: Certificates, security: Security) -> None:
    made = MailServer(shown(certificates), is_tls=security is Security.TLS)
    async with made as server:
        ca = str(certificates.ca)
        sender = to(server, security, user="tympan", password="open", ca=ca)
        await sender.send(batch_of(alert(1)))
        (letter,) = server.letters
        assert (letter.was_tls, letter.login) == (True, "tympan")
        server.says("AUTH", "535 no")
        with pytest.raises(NotNow, match="the password of tympan was refused: 535 no"):
            await sender.send(batch_of(alert(2)))
        await sender.close()


async def test_a_certificate_that_nobody_vouches_for(certificates: Certificates) -> None:
    async with MailServer(shown(certificates)) as server:
        sender = to(server, Security.STARTTLS, ca=str(certificates.unknown_ca))
        with pytest.raises(NotNow, match=r"(?i)certificate"):
            await sender.send(batch_of(alert(1)))
        assert not server.letters


async def test_no_tls_where_it_was_asked_for(server: MailServer) -> None:
    with pytest.raises(NotNow, match="STARTTLS"):
        await to(server, Security.STARTTLS).send(batch_of(alert(1)))
    assert "MAIL" not in server.heard, "nothing was said in clear"


def test_a_password_does_not_cross_the_network_in_clear() -> None:
    for host in ("smtp.farm.example", "127.farm.example", "10.0.0.1"):
        with pytest.raises(ValueError, match="in clear"):
            mails.MailServer(host, 25, Security.NONE, "tympan", "open")
    for host in ("127.0.0.2", "::1", "localhost"):
        assert mails.MailServer(host, 25, Security.NONE, "tympan", "open").user


@pytest.mark.parametrize(
    ("verb", "answer", "error"),
    [
        ("+", "421 too busy", NotNow),
        ("+", "554 go away", NotNow),
        ("MAIL", "451 later", NotNow),
        ("MAIL", "553 not you", Refused),
        ("RCPT", "450 greylisted", NotNow),
        ("DATA", "452 full", NotNow),
        (".", "451 cannot scan", NotNow),
        (".", "550 spam", Refused),
        (".", "552 too large", Refused),
    ],
)
async def test_answers(server: MailServer, verb: str, answer: str, error: type[Exception]) -> None:
    server.says(verb, *[answer] * 2)
    sender = to(server)
    with pytest.raises(error, match=answer):
        await sender.send(batch_of(alert(1)))
    assert not server.letters
    server.answers.clear()
    await sender.send(batch_of(alert(1)))
    assert len(server.letters) == 1, "the next one is a new connection"
    await sender.close()


async def test_all_recipients_refused_for_good(server: MailServer) -> None:
    server.says("RCPT", "550 who?", "550 nobody")
    with pytest.raises(Refused, match=r"desk@farm.example: 550 who\?; duty@farm.example: 550"):
        await to(server).send(batch_of(alert(1)))


async def test_one_recipient_refused(server: MailServer, caplog: pytest.LogCaptureFixture) -> None:
    server.says("RCPT", "550 who?")
    sender = to(server)
    await sender.send(batch_of(alert(1)))
    assert server.letters[0].recipients == ["duty@farm.example"]
    assert "mail is not taken for desk@farm.example: 550 who?" in caplog.text
    await sender.close()


async def test_a_server_that_never_says_goodbye_has_the_mail(
    server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mails, "GOODBYE", 0.05)
    server.says("QUIT", MUTE)
    sender = to(server)
    await sender.send(batch_of(alert(1)))
    assert len(server.letters) == 1
    await sender.close()


async def test_nobody_there(server: MailServer) -> None:
    sender = to(server)
    await server.stop()
    with pytest.raises(NotNow, match="Connect"):
        await sender.send(batch_of(alert(1)))


@pytest.mark.parametrize("text", ["a@farm.example", "Ä Büro <a@farm.example>", '"A, B" <a@b>'])
def test_addresses(text: str) -> None:
    assert parse_address(text) == text


@pytest.mark.parametrize("text", ["", "a", "a@", "@b", "a@b\r\nBcc: c@d", "a b@c"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="is no mail address"):
        parse_address(text)
