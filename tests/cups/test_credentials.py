"""What a bridge needs in Redis: the line of `tympan acl` that its errors name, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import ALL_USERS, Broker, Name
from broker.errors import AccessDenied
from tests.cups.test_sending import job, numbers, status
from tests.servers import RedisServer
from tests.unit.test_proxy import until
from workers.acl import Role, Wish, rules
from workers.cups.claim import Claim, Claimed, identity
from workers.cups.events.levels import Told
from workers.cups.events.sending import Sending
from workers.cups.types import PrinterStatus

SERVER = Name.parse(r"\\print01")


@pytest.fixture
def confined() -> Iterator[RedisServer]:
    with RedisServer() as server:
        whole = Wish(roles=[Role.SOURCE, Role.OBSERVER], servers=("print01",), all_users=True)
        bare = Wish(roles=[Role.SOURCE], servers=("print01",))
        for user, wish in (("whole", whole), ("bare", bare)):
            server.cli("ACL", "SETUSER", user, *rules(wish), ">secret")
        yield server


def url(server: RedisServer, user: str) -> str:
    return f"redis://{user}:secret@127.0.0.1:{server.port}/0"


async def test_the_line_that_is_named_is_enough(confined: RedisServer) -> None:
    async with (
        Broker.connect(url(confined, "whole"), user="spooler", lease=1.5) as broker,
        Broker.connect(confined.url, user="admin") as admin,
    ):
        await admin.grant(SERVER, "admin", "administer")
        hears = await admin.register(SERVER, PrinterStatus, user_filter=ALL_USERS, printers=True)
        claim, out = Claim(broker, SERVER, identity(Path("/a"))), Sending(broker, SERVER)
        await claim.make()
        await out.begin()
        await out.send([status(1), status(2, "new"), job(3)])
        found = [await hears.fetch(10), await hears.fetch(10)]
        assert numbers([one.payload for one in found if one is not None]) == [1, 2]
        assert out.counts == {"sent": 3, "unheard": 1}
        second = await Broker.connect(url(confined, "whole"), user="spooler", lease=1.5).start()
        with pytest.raises(Claimed):
            await Claim(second, SERVER, identity(Path("/b"))).make()
        await second.close()
        await out.close()
        await claim.end()


async def test_with_less_it_says_which_line_it_needs(
    confined: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with Broker.connect(url(confined, "bare"), user="spooler") as broker:
        claim, out = Claim(broker, SERVER, identity(Path("/a"))), Sending(broker, SERVER)
        await claim.make()
        assert "tympan acl source observer --all-users --server" in caplog.text
        with pytest.raises(AccessDenied, match="tympan acl source observer --all-users"):
            await out.begin()
        waiting = out.put(Told("", None, status(1).payload))
        await until(lambda: out.trouble is not None)
        await out.close()
        assert waiting.cancelled()
        await claim.end()
