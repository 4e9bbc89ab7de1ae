"""A Redis URL that cannot be read is refused at once, and no password is ever shown."""

from __future__ import annotations

from typing import Any

import pytest

from broker import Broker
from broker.errors import InvalidUrl, RedisUnreachable
from workers.embedded import free_port


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6380/2",
        "redis://:secret@localhost",
        "redis://print01:secret@localhost:6380/2",
        "redis://[::1]:6379/0",
        "rediss://localhost:6380?ssl_cert_reqs=required",
        "unix:///run/redis.sock",
        "unix:///run/redis.sock?db=2",
        "redis://localhost?db=2",
    ],
)
def test_urls_of_redis_are_read(url: str) -> None:
    Broker.connect(url, user="alice")


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("localhost", id="no scheme"),
        pytest.param("localhost:6379", id="host and port"),
        pytest.param("http://localhost", id="another scheme"),
        pytest.param("REDIS//localhost", id="no colon"),
        pytest.param("redis://localhost:port", id="a port that is no number"),
        pytest.param("redis://localhost:99999", id="a port out of range"),
        pytest.param("redis://localhost:-1", id="a negative port"),
        pytest.param("redis://[::1", id="a bracket that is not closed"),
        pytest.param("redis://localhost/printers", id="a database that is no number"),
        pytest.param(
            "redis://localhost?db=printers", id="a database that is no number, in the query"
        ),
        pytest.param("redis://localhost?colour=blue", id="an option that does not exist"),
        pytest.param(" redis://localhost", id="a space before"),
        pytest.param(b"redis://localhost", id="bytes"),
        pytest.param(5, id="a number"),
    ],
)
def test_anything_else_is_refused_when_the_broker_is_made(url: Any) -> None:
    with pytest.raises(InvalidUrl, match="redis://"):
        Broker.connect(url, user="alice")


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://alice:secret@localhost", id="another scheme"),
        pytest.param("redis://alice:secret@localhost:port", id="in front of the host"),
        pytest.param("redis://alice:secr@secret@localhost:port", id="with an at sign"),
        pytest.param("redis://localhost:port?password=secret", id="in the query"),
        pytest.param("redis://localhost:port?db=0&password=secret&x=1", id="amid the query"),
    ],
)
def test_no_password_is_shown_by_a_refusal(url: str) -> None:
    with pytest.raises(InvalidUrl) as refused:
        Broker.connect(url, user="alice")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["redis://alice:secret@127.0.0.1:{port}", "redis://127.0.0.1:{port}?password=secret"]
)
async def test_no_password_is_shown_when_nobody_is_there(url: str) -> None:
    broker = Broker.connect(url.format(port=free_port()), user="alice")
    with pytest.raises(RedisUnreachable) as refused:
        await broker.start()
    assert "secret" not in str(refused.value)
    assert "127.0.0.1" in str(refused.value)
