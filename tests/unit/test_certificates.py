"""The certificates of the tests: good ones are good, and the others are bad in one way each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.certificates import Certificates
from tests.servers import Certificate, RedisServer
from workers.embedded import HOST


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def ping(url: str) -> bool:
    with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as client:
        return bool(client.ping())


def test_a_good_certificate_is_trusted(certificates: Certificates) -> None:
    with RedisServer(tls=certificates.tls()) as server:
        assert server.url == f"rediss://{HOST}:{server.port}/0?ssl_ca_certs={certificates.ca}"
        assert ping(server.url)
        assert ping(server.url.replace(HOST, "localhost"))
        with pytest.raises(redis.ConnectionError):
            ping(f"redis://{HOST}:{server.port}/0")
        with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
            ping(server.url.replace(str(certificates.ca), str(certificates.unknown_ca)))


@pytest.mark.parametrize(
    ("choose", "reason"),
    [
        (lambda them: them.wrong_host, "IP address mismatch"),
        (lambda them: them.expired, "certificate has expired"),
        (lambda them: them.stranger, "certificate verify failed"),
        (lambda them: them.self_signed, "self-signed certificate"),
    ],
    ids=["wrong host", "expired", "unknown CA", "self-signed"],
)
def test_a_bad_certificate_is_refused(
    certificates: Certificates, choose: Callable[[Certificates], Certificate], reason: str
) -> None:
    with RedisServer(tls=certificates.tls(choose(certificates))) as server:
        assert server.cli("PING"), "the test itself reaches its server"
        with pytest.raises(redis.ConnectionError, match=reason):
            ping(server.url)


def test_a_client_may_need_a_certificate(certificates: Certificates) -> None:
    with RedisServer(tls=certificates.tls(clients="yes")) as server:
        assert ping(server.url)
        trusting = f"rediss://{HOST}:{server.port}/0?ssl_ca_certs={certificates.ca}"
        for query in ("", *map(shown, (certificates.stranger, certificates.expired))):
            with pytest.raises(redis.ConnectionError):
                ping(trusting + query)
        assert ping(trusting + shown(certificates.good))


def shown(certificate: Certificate) -> str:
    return f"&ssl_certfile={certificate.chain}&ssl_keyfile={certificate.key}"


def test_a_server_with_password_and_tls_restarts_and_is_replicated(
    certificates: Certificates,
) -> None:
    with (
        RedisServer(appendonly=True, password="secret", tls=certificates.tls()) as server,
        server.replica() as replica,
    ):
        server.cli("SET", "job", "42")
        assert server.cli("WAIT", 1, 5000) == 1
        assert replica.cli("GET", "job") == "42"
        server.restart()
        assert server.cli("GET", "job") == "42"
        assert server.url.startswith("rediss://:secret@")
        assert ping(server.url)
        with pytest.raises(redis.AuthenticationError):
            ping(server.url.replace(":secret@", ""))
