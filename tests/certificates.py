"""Throw-away certificates for tests of TLS: good ones, and each kind that has to be refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import trustme

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
