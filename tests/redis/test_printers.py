"""A printer that is deleted: what was open on it is over, and whoever listens is told, once.

Unidirectional registrations stay; those that stood on a grant of the printer are told first, and
then end with it. A printer of that name may come again at once.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    NOTIFICATION_RELEASE,
    PER_USER,
    UNIDIRECTIONAL,
    Channel,
    Code,
    Notification,
    Offer,
    Registration,
    Result,
)
from broker._keys import Audience, Keys
from broker.deletion import Deletion
from broker.errors import (
    AccessDenied,
    ChannelAlreadyClosed,
    ContractViolation,
    InvalidArgument,
    InvalidType,
    NotificationFailure,
    RegistrationEnded,
)
from broker.names import Name
from broker.results import ALREADY_UNREGISTERED, NO_LISTENERS, S_OK
from tests.conformance.actors import Recorder, all_heard, dialog, eventually
from tests.dump import unchanged
from tests.farm import OTHER_PRINTER, OTHER_TYPE, PATIENCE, PRINTER, SERVER, TYPE, Farm
from tests.redis.scenes import QUIET, Scene, heard, is_released

NAME = Name.parse(PRINTER)
LARGE = b"x" * 30_000
"""Kept by reference: its reader looks into Redis while later bells ring."""


async def release(registration: Registration[Any]) -> None:
    """The next thing that the registration hears is that its printer is gone."""
    found = await registration.fetch(PATIENCE)
    assert isinstance(found, Notification)
    assert (found.type, found.data, found.name) == (NOTIFICATION_RELEASE, None, NAME)
    assert found.is_release
    with pytest.raises(InvalidType, match=r"RELEASE \(its printer was deleted\): ask"):
        _ = found.payload


async def ended(registration: Registration[Any]) -> None:
    """The registration is over, because its printer is."""
    with pytest.raises(RegistrationEnded, match="printer deleted"):
        await registration.fetch(PATIENCE)
    assert not registration.is_registered


def deaf(payload: bytes) -> None:
    """A bell that is lost."""


# Channels ---------------------------------------------------------------------------------------


async def test_both_ends_of_every_channel_are_told(farm: Farm) -> None:
    scene = await Scene.set(farm)
    admin = await farm.broker("admin")
    deletion = await admin.delete_printer(PRINTER)
    assert deletion == Deletion(NAME, channels=4, told=1, ended=0, grants=1)
    for end in (
        scene.used, scene.fresh, scene.asked, scene.answered, scene.question, scene.owned,
    ):  # fmt: skip
        await is_released(end)
        assert end.closing is not None
        assert end.closing.by == "server"
    assert await admin.channels() == []


async def test_who_has_to_speak_does_not_matter(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker()
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    ends = await dialog(farm, source, registration, turn="owner")
    await source.delete_printer(PRINTER)
    for end in ends:
        await is_released(end)


async def test_a_channel_that_the_server_closed_refuses_everything(farm: Farm) -> None:
    scene = await Scene.set(farm)
    await scene.source.delete_printer(PRINTER)
    await all_heard(farm, scene.source, scene.listener)
    detail = Result.error(Code.CHANNEL_CLOSED_BY_SERVER)
    for refused in (
        scene.used.send(b"page"),
        scene.used.close(),
        scene.fresh.send(b"continue?"),
        scene.answered.send(b"sure?"),
        scene.answered.close(b"bye"),
        scene.question.respond(b"yes"),
        scene.question.decline(),
        scene.owned.close(),
    ):
        with pytest.raises(ChannelAlreadyClosed, match="closed by server") as error:
            await refused
        assert error.value.detail == detail
    for end in (scene.used, scene.fresh, scene.asked, scene.answered, scene.owned):
        with pytest.raises(ContractViolation):
            await end.release()


async def test_whoever_was_not_told_yet_is_refused_by_redis(farm: Farm) -> None:
    """The news is on its way: Redis knows it already."""
    scene = await Scene.set(farm)
    for end in (scene.used, scene.asked, scene.answered, scene.question, scene.owned):
        end.told = end._closed = lambda *_: None  # type: ignore[method-assign, assignment]
    await scene.source.delete_printer(PRINTER)
    for refused in (
        scene.used.send(b"page"),
        scene.asked.close(),
        scene.answered.send(b"sure?"),
        scene.question.respond(b"yes"),
        scene.owned.close(b"bye"),
    ):
        with pytest.raises(ChannelAlreadyClosed, match="closed by the print server") as error:
            await refused
        assert error.value.detail == Result.error(Code.CHANNEL_CLOSED_BY_SERVER)


async def test_an_answer_that_was_given_before_is_still_read(farm: Farm) -> None:
    scene = await Scene.set(farm)
    await scene.question.respond(b"yes")
    await scene.source.delete_printer(PRINTER)
    await is_released(scene.asked)
    assert (await scene.asked.response(PATIENCE)).data == b"yes"
    with pytest.raises(ChannelAlreadyClosed):
        await scene.asked.response(PATIENCE)


async def test_questions_leave_their_boards(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker()
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    held = [await farm.question(source) for _ in range(2)]
    large = await farm.question(source, LARGE)
    assert len(await registration.fetch_offers(PATIENCE)) >= 1
    assert (await source.delete_printer(PRINTER)).channels == 3
    late = await (await farm.broker()).register(PRINTER, TYPE, style=BIDIRECTIONAL)
    assert await late.fetch_offers(0) == []
    for channel in (*held, large):
        shown = await source.show(channel.id)
        assert shown is not None
        assert (shown[0].state, shown[0].closer) == ("closed", "server")
        assert shown[1][-1].event == "closed"
    assert registration.is_registered
    again = await farm.question(source)
    offers = [offer.id for offer in await late.fetch_offers(PATIENCE)]
    assert offers == [again.id], "the printer came again"


async def test_callbacks_are_told_in_the_documents_way(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker()
    asks, answers, hears = Recorder(), Recorder(), Recorder()
    await listener.listen(PRINTER, TYPE, answers, style=BIDIRECTIONAL)
    await listener.listen(PRINTER, TYPE, hears)
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL,
                                        callback=asks)  # fmt: skip
    await channel.send(b"continue?")
    await answers.until(notified=1)
    await source.delete_printer(PRINTER)
    await asks.until(closed=1)
    await answers.until(closed=1)
    await hears.until(notified=1)
    assert asks.closed[0].is_release
    assert answers.closed[0].is_release
    (told,) = hears.told
    assert told.channel is None
    assert told.notification.is_release


# What is none of its business -------------------------------------------------------------------


async def test_other_names_go_on(farm: Farm) -> None:
    admin = await farm.administrator("admin", PRINTER, OTHER_PRINTER, SERVER)
    kept: list[tuple[Channel, Registration[Any]]] = []
    for name in (OTHER_PRINTER, SERVER):
        for style in (UNIDIRECTIONAL, BIDIRECTIONAL):
            registration = await admin.register(name, TYPE, user_filter=ALL_USERS, style=style)
            kept.append((await admin.open_channel(name, TYPE, style=style), registration))
    everywhere = await admin.register(SERVER, TYPE, printers=True)
    assert await admin.delete_printer(PRINTER) == Deletion(NAME, 0, 0, 0, 1)
    assert {grant.name for grant in await admin.grants()} == {
        Name.parse(OTHER_PRINTER), Name.parse(SERVER),
    }  # fmt: skip
    for channel, registration in kept:
        assert await channel.send(b"still here") == S_OK
        found = await registration.fetch(PATIENCE)
        assert found is not None
        told = found.notification if isinstance(found, Offer) else found
        assert told.data == b"still here"
    for _ in range(2):
        assert await heard(everywhere) == b"still here", "it was told of nothing else"


async def test_whoever_listens_to_all_printers_goes_on_untold(farm: Farm) -> None:
    """Of the printer's questions it hears the end, as of all others."""
    admin = await farm.administrator("admin", SERVER)
    notified = await admin.register(SERVER, TYPE, printers=True, user_filter=ALL_USERS)
    asked = await admin.register(
        SERVER, TYPE, printers=True, user_filter=ALL_USERS, style=BIDIRECTIONAL
    )
    channel = await admin.open_channel(PRINTER, TYPE)
    await channel.send(b"page")
    await farm.question(admin)
    offer = await farm.offered(asked)
    assert await admin.delete_printer(PRINTER) == Deletion(NAME, 2, 0, 0, 0)
    await is_released(offer)
    again = await admin.open_channel(PRINTER, TYPE)
    await again.send(b"another page")
    assert [await heard(notified) for _ in range(2)] == [b"page", b"another page"]
    assert notified.unread == 0
    assert notified.is_registered
    assert asked.is_registered


async def test_a_printer_that_nobody_used_is_deleted_all_the_same(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        assert await broker.delete_printer(PRINTER) == Deletion(NAME, 0, 0, 0, 0)
    await broker.open_channel(OTHER_PRINTER, TYPE)
    assert await broker.delete_printer(PRINTER) == Deletion(NAME, 0, 0, 0, 0)


async def test_only_printers_can_be_deleted(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    with pytest.raises(InvalidArgument, match="is a server"):
        await broker.delete_printer(SERVER)


# Registrations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [b"page", LARGE], ids=lambda body: f"{len(body)} bytes")
async def test_a_release_comes_once_behind_what_was_sent(farm: Farm, last: bytes) -> None:
    """Both to those for whom one stream is, and to those who hear several."""
    source, host = await farm.administrator("spooler"), await farm.broker()
    registrations = [
        await host.register(PRINTER, TYPE),
        await (await farm.broker()).register(PRINTER, TYPE),
        await (await farm.broker("bob")).register(PRINTER, TYPE),
    ]
    other = await host.register(PRINTER, OTHER_TYPE)
    mine = await source.open_channel(PRINTER, TYPE, user="alice")
    everybodys = await source.open_channel(PRINTER, TYPE, user_filter=ALL_USERS)
    for channel in (mine, everybodys):
        assert await channel.send(b"to " + channel.id.encode()) == S_OK
        assert await channel.send(last) == S_OK
    assert (await source.delete_printer(PRINTER)).told == 4
    for registration, many in zip(registrations, (4, 4, 2), strict=True):
        before = [await heard(registration) for _ in range(many)]
        assert before.count(last) == many / 2
        await release(registration)
        assert registration.is_registered
        assert await registration.fetch(0) is None, "once"
    await release(other)


async def test_a_fetch_that_waits_is_woken(farm: Farm) -> None:
    host = await farm.broker()
    registration = await host.register(PRINTER, TYPE)
    waiting = asyncio.create_task(release(registration))
    await asyncio.sleep(0)
    await host.delete_printer(PRINTER)
    await waiting


@pytest.mark.parametrize("sent", range(4))
async def test_a_full_room_denies_no_release_and_a_release_takes_none(
    farm: Farm, sent: int
) -> None:
    """It is no notification: before and after it the registration holds two, not more or fewer."""
    source, host = await farm.broker("spooler"), await farm.broker()
    registration = await host.register(PRINTER, TYPE, buffer=2)
    other = await host.register(PRINTER, TYPE, buffer=9)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    for number in range(sent):
        await channel.send(b"%d" % number)
    await source.delete_printer(PRINTER)
    await room_written(farm, registration, max(0, 2 - sent))
    again = await source.open_channel(PRINTER, TYPE, user="alice")
    for number in range(sent, 4):
        await again.send(b"%d" % number)
    assert registration.unread == min(sent, 2) + 1 + (2 - min(sent, 2))
    for number in range(min(sent, 2)):
        assert await heard(registration) == b"%d" % number
    await release(registration)
    for number in range(sent, 2):
        assert await heard(registration) == b"%d" % number
    assert registration.denied == 2
    await room_written(farm, registration, 2)
    for number in range(sent):
        assert await heard(other) == b"%d" % number
    await release(other)


async def room_written(farm: Farm, registration: Registration[Any], free: int) -> None:
    """Senders find so many free places in the registration's own audience."""
    keys = Keys(farm.namespace, "print01")
    audience = registration.plan.audiences[0]

    async def is_free() -> bool:
        group = registration.plan.group(registration.id)
        room = await farm.client.zscore(keys.room(audience), group)
        last = int(await farm.client.hget(keys.streams, audience.field) or 0)
        assert room is not None
        return max(0, int(room) - last) == free

    await eventually(is_free, f"{free} free places")


async def test_told_again_it_says_nothing_new(farm: Farm) -> None:
    """Until something came from a printer of that name."""
    source, host = await farm.broker("spooler"), await farm.broker()
    registration = await host.register(PRINTER, TYPE)
    for _ in range(3):
        await source.delete_printer(PRINTER)
    await release(registration)
    await source.delete_printer(PRINTER)
    again = await source.open_channel(PRINTER, TYPE, user="alice")
    await again.send(b"I am back")
    assert await heard(registration) == b"I am back"
    late = await host.register(PRINTER, TYPE)
    await source.delete_printer(PRINTER)
    for each in (registration, late):
        await release(each)
        assert each.unread == 0


async def test_more_audiences_than_one_call_takes_are_told_by_several(farm: Farm) -> None:
    """256 at a time, and one deletion to each registration."""
    host = await farm.broker(**QUIET)
    registrations = [
        await host.register(PRINTER, TYPE, user=f"user-{number}") for number in range(300)
    ]
    assert (await host.delete_printer(PRINTER)).told == 300
    for registration in registrations:
        await release(registration)
        assert registration.unread == 0
    keys = Keys(farm.namespace, "print01")
    receipt: Any = await farm.client.hget(keys.meta, "deletion")
    assert receipt.decode().endswith(":256"), "the second part was the last"


async def test_two_deletions_at_once_are_one(farm: Farm) -> None:
    scene = await Scene.set(farm)
    await scene.source.grant(PRINTER, "admin", "administer")
    brokers = [await farm.broker("admin") for _ in range(3)]
    everyone = await brokers[0].register(PRINTER, TYPE, user_filter=ALL_USERS)
    await asyncio.gather(*(broker.delete_printer(PRINTER) for broker in brokers))
    await release(scene.one_way)
    await release(everyone)
    await ended(everyone)
    for end in (scene.used, scene.asked, scene.answered, scene.question, scene.owned):
        await is_released(end)
    assert await brokers[0].delete_printer(PRINTER) == Deletion(NAME, 0, 1, 0, 0)
    await all_heard(farm, brokers[0], scene.listener)
    assert scene.one_way.unread == 0
    shown = await brokers[0].show(scene.answered.id)
    assert shown is not None
    assert [said.event for said in shown[1]].count("closed") == 1


# Rights -----------------------------------------------------------------------------------------


async def test_what_stood_on_the_printers_grants_hears_of_it_and_ends(farm: Farm) -> None:
    admin = await farm.administrator("admin", PRINTER, OTHER_PRINTER)
    alice = await farm.broker("alice", require_use=True)
    await admin.grant(PRINTER, "alice", "use")
    everyones = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS)
    questions = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS, style=BIDIRECTIONAL)
    used = await alice.register(PRINTER, TYPE)
    own = await admin.register(PRINTER, TYPE)
    channel = await admin.open_channel(PRINTER, TYPE, user="alice")
    for body in (b"page", LARGE):
        assert await channel.send(body) == S_OK
    assert await admin.delete_printer(PRINTER) == Deletion(NAME, 1, 3, 3, 2)
    await ended(questions)
    for registration in (everyones, used):
        assert [await heard(registration) for _ in range(2)] == [b"page", LARGE]
        await release(registration)
        await ended(registration)
        assert await registration.unregister() == ALREADY_UNREGISTERED
    await release(own)
    assert [facts.id for facts in await admin.registrations()] == [own.id]
    assert [grant.name for grant in await admin.grants()] == [Name.parse(OTHER_PRINTER)]
    with pytest.raises(AccessDenied):
        await admin.register(PRINTER, TYPE, user_filter=ALL_USERS)
    await admin.grant(PRINTER, "admin", "administer")
    await everyones.register(TYPE, user="admin", user_filter=ALL_USERS, style=UNIDIRECTIONAL)
    again = await admin.open_channel(PRINTER, TYPE, user_filter=ALL_USERS)
    await again.send(b"I am back")
    assert [await heard(each) for each in (everyones, own)] == [b"I am back"] * 2


async def test_what_ends_with_the_printer_is_told_although_its_stream_was_gone_first(
    farm: Farm,
) -> None:
    """The release was lost on its way, and went with the last registration of its stream."""
    admin = await farm.administrator("admin", PRINTER, **QUIET)
    registration = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS)
    server = await admin.server(PRINTER)
    for reader in server.listening.readers.values():
        reader.ring = deaf  # type: ignore[method-assign]
    await admin.delete_printer(PRINTER)
    await release(registration)
    await ended(registration)


async def test_an_object_that_registers_again_meanwhile_does_not_end(farm: Farm) -> None:
    """What ends with the printer is looked after for a moment; its listener did not wait."""
    admin = await farm.administrator("admin", PRINTER)
    registration = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS)
    server = await admin.server(PRINTER)
    looking, go_on = asyncio.Event(), asyncio.Event()
    for reader in server.listening.readers.values():

        async def looked() -> None:
            looking.set()
            await go_on.wait()

        reader.looked = looked  # type: ignore[method-assign]
    await admin.delete_printer(PRINTER)
    async with asyncio.timeout(PATIENCE):
        await looking.wait()
    await registration.unregister()
    await registration.register(TYPE, user="admin", user_filter=PER_USER, style=UNIDIRECTIONAL)
    go_on.set()
    channel = await admin.open_channel(PRINTER, TYPE)
    await channel.send(b"I am back")
    assert await heard(registration) == b"I am back"
    assert registration.is_registered
    assert [facts.id for facts in await admin.registrations()] == [registration.id]


async def test_a_take_that_finds_the_registration_gone_asks_why(farm: Farm) -> None:
    """Its answer may be the quicker one of the two that tell of the end."""
    admin = await farm.administrator("admin", PRINTER, **QUIET)
    registration = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS, buffer=1)
    server = await admin.server(PRINTER)
    channel = await admin.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(b"page")
    await eventually(lambda: registration.unread == 1, "the page")
    inbox = server._inbox
    assert inbox is not None
    inbox._taker = lambda _: None
    await admin.delete_printer(PRINTER)
    assert await heard(registration) == b"page"
    await release(registration)
    await ended(registration)


async def test_a_process_that_finds_its_grant_gone_still_hears_of_the_deletion_first(
    farm: Farm,
) -> None:
    """It looks itself, each lease; here before it is told why, and without a take that asks."""
    admin = await farm.administrator("admin", PRINTER, lease=1.0, resync=60.0)
    registration = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS)
    server = await admin.server(PRINTER)
    assert server._inbox is not None
    server._inbox._taker = lambda _: None

    async def is_not_asked(registration: str) -> None:
        """The answer to a take would ask the inbox."""

    server.listening.find_out = is_not_asked  # type: ignore[method-assign]
    channel = await admin.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(b"page")
    await (await farm.broker("admin")).delete_printer(PRINTER)
    await eventually(lambda: not registration.is_registered, "its end")
    assert await heard(registration) == b"page"
    await release(registration)
    with pytest.raises(RegistrationEnded, match="admin lacks the right"):
        await registration.fetch(PATIENCE)


async def test_a_broken_off_deletion_is_finished_by_the_next(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await farm.administrator("admin", PRINTER)
    everyones = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS)
    channel = await admin.open_channel(PRINTER, TYPE, user_filter=ALL_USERS)

    async def breaks_off(*_: object, **__: object) -> int:
        raise asyncio.CancelledError

    for step in ("_tell_listeners", "_remove_grants", "end_ungranted"):
        with monkeypatch.context() as patched:
            patched.setattr(f"broker.deletion.{step}", breaks_off)
            with pytest.raises(asyncio.CancelledError):
                await admin.delete_printer(PRINTER)
    await is_released(channel)
    assert await admin.delete_printer(PRINTER) == Deletion(NAME, 0, 1, 1, 0)
    await release(everyones)
    await ended(everyones)


# Races ------------------------------------------------------------------------------------------


async def test_sources_that_open_again_and_again_meet_a_deletion(farm: Farm) -> None:
    """Each send is heard or refused, releases come between, and nothing is left behind."""
    hosts = [await farm.broker() for _ in range(2)]
    registrations = [await host.register(PRINTER, TYPE, buffer=1000) for host in hosts]
    sources = [await farm.broker("spooler") for _ in range(2)]
    accepted: list[bytes] = []
    over = asyncio.Event()

    async def send(number: int) -> None:
        channel = await sources[number].open_channel(PRINTER, TYPE, user="alice")
        count = 0
        while not over.is_set():
            body = b"%d.%d" % (number, count)
            try:
                await channel.send(body)
            except ChannelAlreadyClosed:
                channel = await sources[number].open_channel(PRINTER, TYPE, user="alice")
                continue
            except NotificationFailure:
                continue
            accepted.append(body)
            count += 1

    sending = [asyncio.create_task(send(number)) for number in range(2)]
    for _ in range(10):
        await hosts[0].delete_printer(PRINTER)
    over.set()
    await asyncio.gather(*sending)
    await hosts[0].delete_printer(PRINTER)
    for registration in registrations:
        got: list[bytes] = []
        while len(got) < len(accepted):
            found = await registration.fetch(PATIENCE)
            assert isinstance(found, Notification)
            if not found.is_release:
                got.append(found.body)
        for number in (b"0", b"1"):
            of_one = [body for body in accepted if body.startswith(number)]
            assert [body for body in got if body.startswith(number)] == of_one
        await release(registration)
        assert registration.unread == 0
    assert await sources[0].channels() == []


async def test_nobody_listens_any_more_and_a_channel_says_so(farm: Farm) -> None:
    admin = await farm.administrator("admin", PRINTER)
    everyones = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS)
    await admin.delete_printer(PRINTER)
    await release(everyones)
    await ended(everyones)
    channel = await admin.open_channel(PRINTER, TYPE, user="alice")
    assert await channel.send(b"anybody?") == NO_LISTENERS
    keys = Keys(farm.namespace, "print01")
    for whom in ("=alice", "+", "*"):
        audience = Audience("laser-3", TYPE, UNIDIRECTIONAL, whom)
        assert await farm.client.exists(keys.stream(audience), keys.room(audience)) == 0
