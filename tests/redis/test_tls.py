"""TLS: whom a certificate does not show to be ours is told nothing, and that is no weather."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker import Broker
from broker.errors import CertificateRefused, RedisError, RedisRefused, RedisUnreachable
from broker.results import S_OK
from tests.certificates import Certificates
from tests.cluster import RedisCluster
from tests.farm import PATIENCE, PRINTER, TYPE, Farm, RedisBackend
from tests.redis.scenes import QUIET, Scene, anew, heard, until
from tests.sentinels import Sentinels
from tests.servers import RedisServer
from workers.embedded import HOST

SLACK = 3.0
"""Seconds by which a bound may be passed on a loaded machine; far below the operation timeout."""
LATE: dict[str, Any] = QUIET | {"operation_timeout": 30.0, "connect_timeout": 1.0}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secure(certificates: Certificates) -> Iterator[RedisServer]:
    """A server with a good certificate, for clients that have a good one, too, or none."""
    with RedisServer(tls=certificates.tls()) as server:
        yield server


async def refused(url: str) -> RedisError:
    """The error with which a broker does not start, soon."""
    start = time.monotonic()
    with pytest.raises(RedisError) as found:
        async with Broker.connect(url, user="alice", **LATE):
            pass
    assert time.monotonic() - start < 1.0 + SLACK
    return found.value


# Whom to trust ----------------------------------------------------------------------------------


async def test_a_farm_speaks_tls(secure: RedisServer) -> None:
    """A dialog, its bells, and a body on the lane for large ones."""
    async with Farm(RedisBackend(secure)) as farm:
        scene = await Scene.set(farm, **QUIET)
        assert await scene.question.respond(b"yes") == S_OK
        assert (await scene.asked.response(PATIENCE)).data == b"yes"
        assert await scene.answered.send(b"x" * 100_000) == S_OK
        assert (await scene.owned.follow_up(PATIENCE)).data == b"x" * 100_000
        assert await scene.used.send(b"page") == S_OK
        assert await heard(scene.one_way) == b"page"


async def test_a_name_that_the_certificate_holds_is_as_good(
    secure: RedisServer, certificates: Certificates
) -> None:
    url = f"rediss://localhost:{secure.port}?ssl_ca_certs={certificates.ca}"
    async with Broker.connect(url, user="alice") as broker:
        assert await broker.channels() == []


async def test_an_authority_that_nobody_named_is_not_trusted(secure: RedisServer) -> None:
    error = await refused(f"rediss://{HOST}:{secure.port}")
    assert isinstance(error, CertificateRefused)
    assert "name the authority that signed it" in str(error)
    assert "ssl_ca_certs=" in str(error)
    assert not error.retryable


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (lambda made: made.stranger, "name the authority that signed it"),
        (lambda made: made.self_signed, "name the authority that signed it"),
        (lambda made: made.expired, "renew it there, and look at the clocks"),
        (lambda made: made.wrong_host, "its certificate is for another host"),
    ],
    ids=["another authority's", "self-signed", "expired", "another host's"],
)
async def test_a_certificate_that_cannot_be_trusted_is_refused(
    certificates: Certificates, shown: Callable[[Certificates], Any], says: str
) -> None:
    with RedisServer(tls=certificates.tls(shown(certificates))) as server:
        error = await refused(server.url)
        assert isinstance(error, CertificateRefused)
        assert f"{HOST}:{server.port}" in str(error)
        assert says in str(error)


async def test_who_verifies_nothing_reaches_anybody_and_is_warned(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(tls=certificates.tls(certificates.wrong_host)) as server:
        url = f"rediss://{HOST}:{server.port}?ssl_cert_reqs=none"
        async with Broker.connect(url, user="alice") as broker:
            assert await broker.channels() == []
    assert "with ssl_cert_reqs=none anybody on the way can read and answer" in caplog.text


# Who is trusted ---------------------------------------------------------------------------------


async def test_a_server_may_want_certificates_of_its_clients(certificates: Certificates) -> None:
    ours = "ssl_certfile={0.chain}&ssl_keyfile={0.key}"
    with RedisServer(tls=certificates.tls(clients="yes")) as server:
        async with Broker.connect(server.url, user="alice") as broker:
            assert await broker.channels() == []
        bare = f"rediss://{HOST}:{server.port}?ssl_ca_certs={certificates.ca}"
        bad = (certificates.expired, certificates.stranger, certificates.self_signed)
        for query in ("", *("&" + ours.format(one) for one in bad)):
            error = await refused(bare + query)
            # The server may hang up before we have read why.
            assert type(error) in (RedisRefused, RedisUnreachable)
            assert "ssl_certfile=" in str(error)


# The wrong port ---------------------------------------------------------------------------------


async def test_a_plain_port_spoken_to_in_tls_is_said(redis_server: RedisServer) -> None:
    error = await refused(f"rediss://{HOST}:{redis_server.port}")
    assert isinstance(error, RedisUnreachable)
    assert "where it does not speak TLS, write redis://" in str(error)


async def test_a_tls_port_spoken_to_plainly_is_said(secure: RedisServer) -> None:
    error = await refused(f"redis://{HOST}:{secure.port}")
    assert isinstance(error, RedisUnreachable)
    assert "where it speaks TLS, write rediss://" in str(error)


# Certificates that go bad -----------------------------------------------------------------------


async def test_a_running_broker_says_so_at_once_and_goes_on_when_it_is_mended(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis comes back with a certificate that ran out; later with a good one."""
    always = {"appendfsync": "always"}
    with RedisServer(appendonly=True, config=always, tls=certificates.tls()) as server:
        async with Farm(RedisBackend(server)) as farm:
            scene = await Scene.set(farm, **LATE)
            server._tls = certificates.tls(certificates.expired)
            await asyncio.to_thread(server.restart)
            start = time.monotonic()
            for call in (
                scene.used.send(b"page"),
                scene.answered.send(b"sure?"),
                scene.listener.register(PRINTER, TYPE, user="bob"),
            ):
                with pytest.raises(CertificateRefused):
                    await call
            assert time.monotonic() - start < SLACK
            assert "no bells are heard" in caplog.text
            assert caplog.text.count("no bells are heard") <= 2, "once for each process"

            server._tls = certificates.tls()
            await asyncio.to_thread(server.restart)
            await anew(farm)
            assert await scene.used.send(b"page") == S_OK
            assert await heard(scene.one_way) == b"page"

            async def is_subscribed() -> bool:
                return len(await farm.client.pubsub_channels()) >= 4

            await until(is_subscribed)
            assert await scene.question.respond(b"yes") == S_OK
            assert (await scene.asked.response(PATIENCE)).data == b"yes"
            assert await scene.used.send(b"page") == S_OK
            assert await heard(scene.one_way) == b"page"


# Several processes ------------------------------------------------------------------------------


async def test_sentinels_and_their_primary_speak_tls(certificates: Certificates) -> None:
    with Sentinels(
        replicas=0, sentinels=1, quorum=1, sentinel_password="other", tls=certificates.tls()
    ) as watched:
        async with Broker.connect(watched.url, user="alice") as broker:
            channel = await broker.open_channel(PRINTER, TYPE)
            assert (await channel.send(b"page")).succeeded
        blind = watched.url.replace(f"ssl_ca_certs={certificates.ca}&", "")
        assert isinstance(await refused(blind), CertificateRefused)


async def test_the_nodes_of_a_cluster_speak_tls(certificates: Certificates) -> None:
    with RedisCluster(tls=certificates.tls()) as cluster:
        about = {"user": "alice", "namespace": "tls"} | QUIET
        async with (
            Broker.connect(cluster.url, **about) as source,
            Broker.connect(cluster.url, **about) as listener,
        ):
            for name in cluster.server_names(3):
                printer = rf"\\{name}\laser"
                registration = await listener.register(printer, TYPE)
                channel = await source.open_channel(printer, TYPE)
                assert await channel.send(b"page") == S_OK
                assert await heard(registration) == b"page"
                target = next(
                    node for node in cluster.masters if node is not cluster.node_of(f"{{{name}}}")
                )
                await asyncio.to_thread(cluster.migrate, f"{{{name}}}", target)
                for _ in range(2):
                    assert await channel.send(b"page") == S_OK
                    assert await heard(registration) == b"page"
        blind = cluster.url.partition("?")[0]
        assert isinstance(await refused(blind), CertificateRefused)
