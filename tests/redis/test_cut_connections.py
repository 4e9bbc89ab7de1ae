"""A process whose connections are cut, all at once, goes on: what it was doing is asked again."""

from __future__ import annotations

import asyncio
import secrets

from broker import BIDIRECTIONAL, Offer, Settings
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.servers import RedisServer
from workers.proof.connections import Connections
from workers.proof.ground import Ground
from workers.proof.history import SOURCE, History, Known


async def test_a_dialog_goes_on_over_new_connections(redis_server: RedisServer) -> None:
    connections, namespace = Connections(), f"t{secrets.token_hex(4)}"
    options = {"namespace": namespace, "resync": 60.0}
    async with (
        connections.broker(redis_server.url, user="spooler", **options) as source,
        connections.broker(redis_server.url, user="alice", **options) as listener,
    ):
        questions = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
        channel = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
        before = await connected(redis_server)
        asking = asyncio.create_task(channel.send("question 0"))
        await asyncio.sleep(0)  # it is on its way
        assert connections.cut() == 4, "each process has one to ask by, and one to hear bells by"
        await asking
        offer = await questions.fetch(PATIENCE)
        assert isinstance(offer, Offer), "heard by a bell: nobody looks for a minute"
        await offer.respond("answer 0")
        assert (await channel.response(PATIENCE)).text == "answer 0"
        await channel.close("enough")
        assert not before & await connected(redis_server), "none of them is left"

    history = History()
    history.dialog(channel.id)
    async with Ground(redis_server.url, Settings.of(namespace=namespace)) as ground:
        await ground.look(history)
        left = await ground.find()
        await ground.clear()
        assert await ground.find() == {}
    seen = history.dialogs[channel.id]
    assert seen.log == {"question 0", "answer 0", "enough"}
    owner = questions.id
    assert seen.known == Known("closed", owner, "alice", 2, {SOURCE, owner}, 1)
    ends = {key for key, ms in left.items() if ms > 0}
    prefix = f"{namespace}:{{print01}}:channel:{channel.id}"
    assert ends == {prefix, f"{prefix}:log"}, "the rest stays, until it is cleared away"
    assert left[f"{namespace}:servers"] == -1


async def connected(server: RedisServer) -> set[str]:
    """Where clients of a broker's connect from."""
    listed = await asyncio.to_thread(server.cli, "CLIENT", "LIST")
    return {line.split("addr=")[1].split()[0] for line in listed.splitlines() if "tympan" in line}
