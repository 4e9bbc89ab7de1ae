"""Throw-away certificates for tests of TLS: good ones, and each kind that has to be refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.servers import Certificate, Tls


class Certificates:
    """A CA that lives in a folder of the caller's, and certificates that it signed, or did not.

    Args:
        folder: where the files go, such as pytest's ``tmp_path``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        authority = trustme.CA()
        self.ca = self._authority(authority, "ca")
        """The CA's certificate in PEM: what a client trusts."""
        self.good = self._issue(authority, "good", "127.0.0.1", "localhost")
        self.wrong_host = self._issue(authority, "wrong-host", "print99.example")
        self.expired = self._issue(
            authority, "expired", "127.0.0.1", "localhost", until=datetime(2020, 1, 2, tzinfo=UTC)
        )
        stranger = trustme.CA()
        self.unknown_ca = self._authority(stranger, "unknown-ca")
        """The CA that nobody here trusts."""
        self.stranger = self._issue(stranger, "stranger", "127.0.0.1", "localhost")
        self.self_signed = self._sign_itself("self-signed", "localhost")

    def tls(
        self,
        shown: Certificate | None = None,
        *,
        clients: Literal["no", "optional", "yes"] = "no",
    ) -> Tls:
        """For a server that shows this certificate (default: the good one)."""
        return Tls(shown or self.good, self.good, self.ca, clients)

    def _authority(self, authority: trustme.CA, name: str) -> Path:
        path = self._folder / f"{name}.pem"
        authority.cert_pem.write_to_path(path)
        return path

    def _issue(
        self, authority: trustme.CA, name: str, *hosts: str, until: datetime | None = None
    ) -> Certificate:
        issued = authority.issue_cert(
            *hosts,
            not_before=None if until is None else datetime(2020, 1, 1, tzinfo=UTC),
            not_after=until,
        )
        chain, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return Certificate(chain, key)

    def _sign_itself(self, name: str, host: str) -> Certificate:
        """One that nobody but itself vouches for, good for this host and its address."""
        key = ec.generate_private_key(ec.SECP256R1())
        itself = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        hosts = [x509.DNSName(host), x509.IPAddress(ip_address("127.0.0.1"))]
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(itself)
            .issuer_name(itself)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .sign(key, hashes.SHA256())
        )
        paths = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        paths.chain.write_bytes(made.public_bytes(Encoding.PEM))
        paths.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return paths
