"""What a relay listens to, by what it was asked to tell."""

from __future__ import annotations

from uuid import UUID

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, PER_USER, UNIDIRECTIONAL, Name, Style
from tests.relay.alerts import PRINTER
from tests.relay.test_post import Box
from workers import Worker
from workers.cups.types import JobQuestion, JobStatus, PrinterStatus, ServerStatus
from workers.relay.allowance import Allowance
from workers.relay.post import Post
from workers.relay.relay import Wanted, relay_of

OTHER_TYPE = UUID(int=7)
SERVER = Name("print01")


def worker_of(wanted: Wanted) -> Worker:
    return relay_of(wanted, Post(Box(), Allowance(0), window=60.0), "mail")


def heard(wanted: Wanted) -> list[tuple[object, Style]]:
    subscriptions = [handler.subscription for handler in worker_of(wanted).handlers]
    return [(one.type, one.style) for one in subscriptions]


USUAL = [(PrinterStatus, UNIDIRECTIONAL), (ServerStatus, UNIDIRECTIONAL)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), USUAL),
        (Wanted(questions=True), [*USUAL, (JobQuestion, BIDIRECTIONAL)]),
        (Wanted(types=[JobStatus, JobStatus]), [(JobStatus, UNIDIRECTIONAL)]),
        (Wanted(types=[JobQuestion]), [(JobQuestion, BIDIRECTIONAL)]),
        (
            Wanted(types=[OTHER_TYPE, JobQuestion], questions=True),
            [
                (OTHER_TYPE, UNIDIRECTIONAL),
                (JobQuestion, BIDIRECTIONAL),
                (OTHER_TYPE, BIDIRECTIONAL),
            ],
        ),
    ],
)
def test_types(wanted: Wanted, expected: list[tuple[object, Style]]) -> None:
    assert heard(wanted) == expected


def test_places() -> None:
    handlers = worker_of(Wanted(types=[JobStatus])).handlers
    assert [(one.everywhere, one.subscription.printers) for one in handlers] == [(True, True)]
    other = Name("print02", "laser-1")
    handlers = worker_of(Wanted([PRINTER, SERVER, other, other], [JobStatus])).handlers
    assert [(one.subscription.name, one.subscription.printers) for one in handlers] == [
        (SERVER, True),
        (other, False),
    ], "a printer of a server that is named, too, is heard once"


@pytest.mark.parametrize("all_users", [False, True])
def test_users(all_users: bool) -> None:
    (handler,) = worker_of(Wanted(types=[JobStatus], all_users=all_users)).handlers
    assert handler.subscription.user_filter is (ALL_USERS if all_users else PER_USER)
    assert handler.name == "cups-job"
    assert handler.timeout is None, "it waits until it is told"
