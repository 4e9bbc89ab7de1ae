"""A URL says where Redis is; one that cannot be read is refused at once, and shows no password."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from broker import Broker
from broker._address import Address, Dialer, Form, Node, shown_node, without_password
from broker.errors import InvalidUrl, RedisUnreachable
from broker.settings import Settings
from tests.certificates import Certificates
from workers.embedded import free_port

SETTINGS = Settings(connect_timeout=3.0)
LOCAL = ("localhost", 6379)


def parse(url: Any) -> Address:
    return Address.parse(url, SETTINGS)


class Meant(NamedTuple):
    """What a URL means."""

    form: Form = Form.SINGLE
    nodes: tuple[Node, ...] = (LOCAL,)
    master: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None


def read(address: Address) -> Meant:
    options = address.redis.options
    return Meant(
        address.form,
        address.nodes,
        address.master,
        options.get("db", 0),
        options.get("username"),
        options.get("password"),
    )


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("redis://", Meant()),
        ("redis://localhost", Meant()),
        ("redis://localhost/", Meant()),
        ("redis://localhost?", Meant()),
        ("redis://print-redis.example:6380/2", Meant(nodes=(("print-redis.example", 6380),), db=2)),
        ("redis://localhost?db=2", Meant(db=2)),
        ("redis://:secret@localhost", Meant(password="secret")),
        ("redis://print01:secret@localhost/1", Meant(db=1, username="print01", password="secret")),
        ("redis://localhost?password=secret", Meant(password="secret")),
        ("redis://:p%40ss%2Fw%3Frd%23@localhost", Meant(password="p@ss/w?rd#")),
        ("redis://:two:parts@localhost", Meant(password="two:parts")),
        ("redis://[::1]", Meant(nodes=(("::1", 6379),))),
        ("redis://[fe80::1%25eth0]:6380", Meant(nodes=(("fe80::1%eth0", 6380),))),
        ("rediss://localhost:6380", Meant(nodes=(("localhost", 6380),))),
        ("unix:///run/redis.sock", Meant(nodes=())),
        ("unix:///run/redis.sock?db=2", Meant(nodes=(), db=2)),
        ("unix://:secret@/run/redis.sock", Meant(nodes=(), password="secret")),
        (
            "redis+sentinel://one/farm",
            Meant(Form.SENTINEL, (("one", 26379),), "farm"),
        ),
        (
            "redis+sentinel://print01:secret@one:5000,[::1],two/farm%20one/3",
            Meant(
                Form.SENTINEL,
                (("one", 5000), ("::1", 26379), ("two", 26379)),
                "farm one",
                3,
                "print01",
                "secret",
            ),
        ),
        ("rediss+sentinel://one/farm", Meant(Form.SENTINEL, (("one", 26379),), "farm")),
        ("redis+cluster://", Meant(Form.CLUSTER)),
        (
            "redis+cluster://:secret@one:7000,two,one:7000",
            Meant(Form.CLUSTER, (("one", 7000), ("two", 6379)), password="secret"),
        ),
        ("redis+cluster://one/0", Meant(Form.CLUSTER, (("one", 6379),))),
        ("rediss+cluster://one", Meant(Form.CLUSTER, (("one", 6379),))),
    ],
)
def test_a_url_says_where_redis_is(url: str, meant: Meant) -> None:
    assert read(parse(url)) == meant
    Broker.connect(url, user="alice")


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://one", Connection),
        ("redis+cluster://one", Connection),
        ("redis+sentinel://one/farm", Connection),
        ("rediss://one", SSLConnection),
        ("rediss+cluster://one", SSLConnection),
        ("rediss+sentinel://one/farm", SSLConnection),
        ("unix:///run/redis.sock", UnixDomainSocketConnection),
    ],
)
def test_the_scheme_says_how_to_speak(url: str, kind: type) -> None:
    address = parse(url)
    for dialer in filter(None, (address.redis, address.sentinel)):
        assert type(dialer.connection()) is kind


def test_connections_go_where_they_are_told_and_are_neither_impatient_nor_stubborn() -> None:
    address = parse("redis+cluster://print01:secret@one:7000,two:7001")
    for node, reached in ((None, ("one", 7000)), (("three", 7002), ("three", 7002))):
        connection = address.redis.connection(node)
        assert isinstance(connection, Connection)
        assert (connection.host, connection.port) == reached
        assert (connection.username, connection.password) == ("print01", "secret")
        assert connection.socket_timeout is None
        assert connection.socket_connect_timeout == SETTINGS.connect_timeout
        assert connection.retry.get_retries() == 0
        assert connection.protocol == 2
        assert str(connection.client_name).startswith("tympan-")


def test_sentinels_have_credentials_of_their_own(tmp_path: Path) -> None:
    ca = Certificates(tmp_path).ca
    address = parse(
        f"rediss+sentinel://print01:secret@one/farm/3?ssl_ca_certs={ca}"
        "&sentinel_username=watch&sentinel_password=p%2Fw"
    )
    assert address.sentinel is not None
    told = address.sentinel.options
    assert (told["username"], told["password"]) == ("watch", "p/w")
    assert told.get("db", 0) == 0, "Sentinels have no databases"
    assert told["ssl_ca_certs"] == str(ca)
    assert {"sentinel_username", "sentinel_password"}.isdisjoint(address.redis.options)
    plain = parse("redis+sentinel://print01:secret@one/farm").sentinel
    assert isinstance(plain, Dialer)
    assert {"username", "password"}.isdisjoint(plain.options), "Redis's are not for Sentinels"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        pytest.param("", "write redis://", id="nothing"),
        pytest.param("localhost", "write redis://", id="no scheme"),
        pytest.param("localhost:6379", "write redis://", id="host and port"),
        pytest.param("http://localhost", "write redis://", id="another scheme"),
        pytest.param("REDIS//localhost", "write redis://", id="no colon"),
        pytest.param("redis+ring://localhost", "write redis://", id="another form"),
        pytest.param("unix+cluster:///run/redis.sock", "write redis://", id="a form of a socket"),
        pytest.param("redis://localhost#0", "write redis://", id="a fragment"),
        pytest.param(" redis://localhost", "write redis://", id="a space before"),
        pytest.param(b"redis://localhost", "write redis://", id="bytes"),
        pytest.param(5, "write redis://", id="a number"),
        pytest.param(None, "write redis://", id="none"),
        pytest.param("redis://localhost:port", "'localhost:port' is no host", id="a port in words"),
        pytest.param("redis://localhost:99999", "a port is 1 to 65535", id="a port out of range"),
        pytest.param("redis://localhost:0", "a port is 1 to 65535", id="port 0"),
        pytest.param("redis://localhost:-1", "is no host", id="a negative port"),
        pytest.param("redis://[::1", "is no host", id="a bracket that is not closed"),
        pytest.param("redis://::1", "is no host", id="a bare IPv6 address"),
        pytest.param("redis://one two", "is no host", id="a space between"),
        pytest.param("redis://one,two", "several hosts", id="several hosts of one Redis"),
        pytest.param("redis+cluster://one,,two", "'' is no host", id="a host left out"),
        pytest.param("redis+cluster://one,two:x", "'two:x' is no host", id="one host is off"),
        pytest.param("redis+cluster://one/1", "one database, 0", id="a database of a Cluster"),
        pytest.param("redis+cluster://one?db=1", "one database, 0", id="the same in the query"),
        pytest.param("redis+sentinel://one", "name the primary", id="no name of a primary"),
        pytest.param("redis+sentinel://one//0", "name the primary", id="an empty name"),
        pytest.param("redis+sentinel://one/farm/x", "a database is a number", id="its database"),
        pytest.param(
            "redis://localhost/printers", "a database is a number", id="database in words"
        ),
        pytest.param("redis://localhost/1/2", "a database is a number", id="two databases"),
        pytest.param("redis://localhost?db=printers", "'db'", id="a database in words, asked for"),
        pytest.param("redis://localhost?db", "db", id="an option without a value"),
        pytest.param("redis://localhost?colour=blue", "colour", id="an option that does not exist"),
        pytest.param("redis://one?sentinel_password=x", "sentinel_password", id="no Sentinel"),
        pytest.param("redis://one?ssl_ca_certs=/ca.pem", "ssl_ca_certs", id="TLS without TLS"),
        pytest.param("redis://one?socket_timeout=1", "setting reply_timeout", id="a setting"),
        pytest.param("redis://one?protocol=3", "protocol", id="another protocol"),
        pytest.param("redis://:a/b@one", "%2F", id="a slash in a password"),
        pytest.param("redis://:a?b@one", "%3F", id="a question mark in a password"),
        pytest.param("rediss://one?ssl_cert_reqs=maybe", "maybe", id="certificates wanted perhaps"),
        pytest.param("rediss://one?ssl_ca_certs=/no/ca.pem", "no file /no/ca.pem", id="no CA file"),
        pytest.param(
            "rediss+sentinel://one/farm?ssl_ca_certs=/no/ca.pem", "no file /no", id="of Sentinels"
        ),
        pytest.param("rediss://one?ssl_certfile=/no/c.pem", "no file /no/c.pem", id="no own file"),
        pytest.param("rediss://one?ssl_keyfile=/no/k.pem", "no file /no/k.pem", id="no key file"),
    ],
)
def test_anything_else_is_refused_when_the_broker_is_made(url: Any, why: str) -> None:
    with pytest.raises(InvalidUrl) as refused:
        parse(url)
    assert why in str(refused.value)
    if url:  # nothing means TYMPAN_URL, or this host
        with pytest.raises(InvalidUrl):
            Broker.connect(url, user="alice")


def test_files_that_hold_no_certificates_are_refused(tmp_path: Path) -> None:
    made = Certificates(tmp_path)
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    for query in (
        f"ssl_ca_certs={garbage}",
        f"ssl_certfile={made.good.chain}&ssl_keyfile={made.expired.key}",
        f"ssl_keyfile={made.good.key}",
    ):
        with pytest.raises(InvalidUrl, match="TLS"):
            parse(f"rediss://localhost?{query}")
    parse(f"rediss://localhost?ssl_certfile={made.good.chain}&ssl_keyfile={made.good.key}")


@pytest.mark.parametrize(
    "query", ["ssl_cert_reqs=none", "ssl_cert_reqs=optional", "ssl_check_hostname=no"]
)
def test_tls_that_verifies_less_warns(query: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tympan"):
        parse("rediss://:secret@localhost")
        assert caplog.messages == []
        parse(f"rediss://:secret@localhost?{query}")
    (warning,) = caplog.messages
    assert "anybody on the way" in warning
    assert query.partition("=")[0] in warning
    assert "secret" not in warning


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://alice:secret@localhost/1", "redis://alice:***@localhost/1"),
        ("redis+cluster://:secret@one,two?db=0", "redis+cluster://:***@one,two?db=0"),
        ("redis://:secr@secret@localhost", "redis://:***@localhost"),
        ("redis://:se/cret@localhost", "redis://:***@localhost"),
        ("redis://one?db=0&password=secret&x=1", "redis://one?db=0&password=***&x=1"),
        ("redis://one?PASSWORD=secret", "redis://one?PASSWORD=***"),
        ("redis+sentinel://one/farm?sentinel_password=secret", None),
        ("rediss://one?ssl_password=secret", "rediss://one?ssl_password=***"),
        ("redis://one?password=sec@ret", "redis://***"),
        ("redis://:sec?ret@one", "redis://***"),
        ("alice:secret@localhost", "alice:***@localhost"),
        ("redis:/alice:secret@localhost", "redis:***@localhost"),
        ("redis://a:x://secret@localhost", "redis://a:***@localhost"),
    ],
)
def test_what_is_shown_of_a_url_holds_no_password(url: str, shown: str | None) -> None:
    assert without_password(url) == (shown or url.replace("secret", "***"))


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://alice:secret@localhost", id="another scheme"),
        pytest.param("alice:secret@localhost", id="no scheme"),
        pytest.param("redis://alice:secret@localhost:port", id="in front of the host"),
        pytest.param("redis://alice:secr@secret@localhost:port", id="with an at sign"),
        pytest.param("redis://alice:se/secret@localhost", id="with a slash"),
        pytest.param("redis://:secret?x@localhost", id="with a question mark"),
        pytest.param("redis://:secret#x@localhost", id="with a hash"),
        pytest.param("redis+sentinel://:secret@one", id="of a URL without a primary"),
        pytest.param("redis+cluster://:secret@one,two:x", id="of a Cluster"),
        pytest.param("redis://localhost:port?password=secret", id="in the query"),
        pytest.param("redis://localhost:port?db=0&password=secret&x=1", id="amid the query"),
        pytest.param("redis+sentinel://one?sentinel_password=secret", id="of Sentinels"),
        pytest.param("rediss://one?ssl_password=secret&ssl_ca_certs=/no", id="of a key"),
    ],
)
def test_no_password_is_shown_by_a_refusal(url: str) -> None:
    with pytest.raises(InvalidUrl) as refused:
        Broker.connect(url, user="alice")
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__, "nor by what led to it"


@pytest.mark.parametrize(
    "url",
    [
        "redis://alice:secret@127.0.0.1:{port}",
        "redis://127.0.0.1:{port}?password=secret",
        "redis+cluster://alice:secret@127.0.0.1:{port}",
        "redis+sentinel://alice:secret@127.0.0.1:{port}/farm?sentinel_password=secret",
    ],
)
async def test_no_password_is_shown_when_nobody_is_there(url: str) -> None:
    broker = Broker.connect(url.format(port=free_port()), user="alice")
    with pytest.raises(RedisUnreachable) as refused:
        await broker.start()
    assert "secret" not in str(refused.value)
    assert "127.0.0.1" in str(refused.value)


def test_nodes_are_shown_as_a_url_has_them() -> None:
    assert shown_node(("one", 7000)) == "one:7000"
    assert shown_node(("::1", 7000)) == "[::1]:7000"


def test_the_version_of_redis_py_is_read_once() -> None:
    """It is in a file of its package; to read that costs more than all else of a connection."""
    first, second = [parse("redis://localhost").redis.connection() for _ in range(2)]
    assert first.driver_info is second.driver_info
