"""A switch: makes cupsd tell one event at a time, as fast as it can, over one connection."""

from __future__ import annotations

import http.client
import itertools
from types import TracebackType
from typing import Self

from tests.cups.host import CupsHost
from workers.cups.cupsd import ipp
from workers.cups.cupsd.ipp import Tag

_ACCEPT, _REJECT = 0x4008, 0x4009
_TIMEOUT_S = 20.0


class Switch:
    """Lets a queue accept and reject jobs by turns; each turn is one ``printer-state-changed``."""

    def __init__(self, host: CupsHost, queue: str) -> None:
        self._uri = host.printer_uri(queue)
        self._connection = http.client.HTTPConnection(host.address, timeout=_TIMEOUT_S)
        self._numbers = itertools.count(1)
        self.is_accepting = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def turn(self) -> bool:
        """Turn it; returns whether the queue accepts now."""
        self.is_accepting = not self.is_accepting
        body = ipp.encode(
            _ACCEPT if self.is_accepting else _REJECT,
            next(self._numbers),
            [
                (
                    Tag.OPERATION,
                    {
                        "attributes-charset": (Tag.CHARSET, "utf-8"),
                        "attributes-natural-language": (Tag.LANGUAGE, "en"),
                        "printer-uri": (Tag.URI, self._uri),
                        "requesting-user-name": (Tag.NAME, "root"),
                    },
                )
            ],
        )
        try:
            answer = self._post(body)
        except ConnectionError:  # cupsd hangs up on who was silent for long
            self._connection.close()
            answer = self._post(body)
        assert answer.code < 0x0400, f"{self._uri}: status {answer.code:#06x}"
        return self.is_accepting

    def _post(self, body: bytes) -> ipp.Message:
        self._connection.request("POST", "/admin/", body, {"Content-Type": "application/ipp"})
        with self._connection.getresponse() as response:
            return ipp.decode(response.read())
