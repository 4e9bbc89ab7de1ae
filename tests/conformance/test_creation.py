"""Creation and roles: who may open a channel, on what, and what is settled at that moment."""

from __future__ import annotations

import pytest

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    UNIDIRECTIONAL,
    Broker,
    Name,
    Role,
    Settings,
    Style,
    UserFilter,
)
from broker.errors import (
    AccessDenied,
    ChannelAlreadyOpened,
    InvalidArgument,
    InvalidNotificationType,
    MaxChannelCountExceeded,
)
from broker.notification import Data
from broker.results import S_OK
from tests.conformance.actors import Recorder, eventually
from tests.conformance.listening import both_styles, notified
from tests.conformance.rules import rule
from tests.farm import (
    OTHER_PRINTER,
    OTHER_TYPE,
    PATIENCE,
    PRINTER,
    PRINTER_OF_OTHER_SERVER,
    SERVER,
    TYPE,
    Farm,
    RedisBackend,
)
from tests.servers import RedisServer


def admit_listener(server: RedisServer, namespace: str) -> str:
    """Make a Redis user that may use all keys but ``opened``; the URL to connect as it."""
    server.cli(
        "ACL", "SETUSER", "listener", "on", ">secret", "+@all", "allchannels",
        f"~{namespace}:servers", f"~{namespace}:{{*}}:[^o]*",
    )  # fmt: skip
    return f"redis://listener:secret@127.0.0.1:{server.port}/0"


@rule(1)
@both_styles
async def test_a_listener_cannot_open_a_channel(farm: Farm, style: Style) -> None:
    source = await farm.broker("spooler")
    listener = await farm.broker("alice", role=Role.LISTENER)
    await listener.registration(PRINTER)  # its session there stands already
    assert await source.channels() == []  # and so does the source's
    before = await farm.keys()
    with pytest.raises(AccessDenied) as refused:
        await listener.open_channel(PRINTER, TYPE, style=style)
    assert refused.value.result.hresult == 0x80070005
    assert await source.channels() == [], "no channel exists afterwards"
    assert await farm.keys() == before, "and nothing of one"


@rule(1, on="redis")
async def test_a_credential_without_the_source_role_cannot_open_a_channel() -> None:
    with RedisServer() as server:
        async with Farm(RedisBackend(server)) as farm:
            source = await farm.broker("spooler")
            url = admit_listener(server, farm.namespace)
            async with Broker.connect(url, user="alice", namespace=farm.namespace) as listener:
                registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
                before = await farm.keys()
                for style in Style:
                    with pytest.raises(AccessDenied) as refused:
                        await listener.open_channel(PRINTER, TYPE, style=style)
                    assert refused.value.result.hresult == 0x80070005
                assert await source.channels() == [], "no channel exists afterwards"
                assert await farm.keys() == before, "and nothing of one"

                channel = await farm.question(source)
                offer = await farm.offered(registration)
                assert await offer.respond(b"yes") == S_OK, "the same credential may answer"
                assert (await channel.response(PATIENCE)).data == b"yes"


@rule(2)
@both_styles
@pytest.mark.parametrize("name", [PRINTER, SERVER])
async def test_a_channel_is_bound_to_a_printer_or_to_a_server(
    farm: Farm, name: str, style: Style
) -> None:
    source = await farm.broker("spooler")
    registration = await (await farm.broker("alice")).register(name, TYPE, style=style)
    channel = await source.open_channel(name, TYPE, user="alice", style=style)
    assert channel.name == Name.parse(name)
    assert [facts.name for facts in await source.channels()] == [Name.parse(name)]
    await channel.send(b"here")
    assert (await notified(registration)).name == Name.parse(name)


@rule(3)
@both_styles
async def test_a_channel_opens_without_any_registration(farm: Farm, style: Style) -> None:
    source = await farm.broker("spooler")
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=style)
    assert await source.registrations() == []
    assert channel.is_open
    assert [facts.id for facts in await source.channels()] == [channel.id]


@rule(4)
async def test_type_filter_and_style_are_those_of_the_creation_for_good(farm: Farm) -> None:
    source = await farm.administrator("spooler")
    listener = await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    question = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
    notice = await source.open_channel(PRINTER, OTHER_TYPE, user_filter=ALL_USERS)
    created = {facts.id: (facts.type, facts.user, facts.style) for facts in await source.channels()}
    assert created == {
        question.id: (TYPE, "alice", BIDIRECTIONAL),
        notice.id: (OTHER_TYPE, None, UNIDIRECTIONAL),
    }
    await question.send(b"continue?")
    await (await farm.offered(registration)).respond(b"yes")
    await question.response(PATIENCE)
    await notice.send(b"out of paper")
    with pytest.raises(InvalidNotificationType):
        await notice.send(Data(TYPE, b"of another type"))
    assert created == {
        facts.id: (facts.type, facts.user, facts.style) for facts in await source.channels()
    }


@rule(4)
async def test_a_channel_has_one_user_filter_not_two(farm: Farm) -> None:
    source = await farm.administrator("spooler")
    with pytest.raises(InvalidArgument) as refused:
        await source.open_channel(PRINTER, TYPE, user="alice", user_filter=ALL_USERS)
    assert refused.value.result.hresult == 0x80070057
    assert await source.channels() == []


@rule(5)
def test_the_numbers_of_the_styles() -> None:
    assert {int(style): style for style in Style} == {0: BIDIRECTIONAL, 1: UNIDIRECTIONAL}


@rule(5)
async def test_the_number_selects_the_style(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    answerable = await source.open_channel(PRINTER, TYPE, user="alice", style=Style(0))
    await answerable.send(b"continue?")
    late = await listener.register(PRINTER, TYPE, style=Style(0))
    await (await farm.offered(late)).respond(b"yes")
    assert (await answerable.response(PATIENCE)).data == b"yes"

    registration = await listener.register(PRINTER, TYPE, style=Style(1))
    one_way = await source.open_channel(PRINTER, TYPE, user="alice", style=Style(1))
    await one_way.send(b"out of paper")
    await notified(registration)
    with pytest.raises(InvalidArgument):
        await one_way.response(0)


@rule(6)
def test_the_numbers_of_the_user_filters() -> None:
    assert {int(filter_): filter_ for filter_ in UserFilter} == {0: PER_USER, 1: ALL_USERS}


@rule(6)
async def test_the_number_selects_the_user_filter(farm: Farm) -> None:
    source = await farm.administrator("spooler")
    alice = await (await farm.broker("alice")).register(PRINTER, TYPE)
    await (await farm.broker("bob")).register(PRINTER, TYPE)
    to_one = await source.open_channel(PRINTER, TYPE, user="alice", user_filter=UserFilter(0))
    to_all = await source.open_channel(PRINTER, TYPE, user_filter=UserFilter(1))
    await to_one.send(b"for alice")
    await to_all.send(b"for all")
    assert [(await notified(alice)).user for _ in range(2)] == ["alice", None]
    assert (to_one.user, to_all.user) == ("alice", None)


@rule(7)
@both_styles
async def test_the_channel_beyond_the_limit_fails_and_uses_up_nothing(
    farm: Farm, style: Style
) -> None:
    source = await farm.broker("spooler", max_channels=2)
    first = await source.open_channel(PRINTER, TYPE, user="alice", style=style)
    await source.open_channel(OTHER_PRINTER, OTHER_TYPE, user="bob")
    before = await farm.keys()
    refused = await source.channel(PRINTER, TYPE, user="alice", style=style)
    for _ in range(2):
        with pytest.raises(MaxChannelCountExceeded) as error:
            await refused.open()
        assert error.value.result.hresult == 0x80040016
    assert await farm.keys() == before, "a refused channel leaves no trace"
    assert len(await source.channels()) == 2

    await first.release()
    await refused.open()
    with pytest.raises(MaxChannelCountExceeded):
        await source.open_channel(PRINTER, TYPE, user="alice", style=style)
    assert len(await source.channels()) == 2, "the refusals took none of the places"


@rule(7)
async def test_the_limit_counts_all_clients_of_one_server_and_no_other_server(farm: Farm) -> None:
    one = await farm.broker("spooler", max_channels=1)
    other = await farm.broker("monitor", max_channels=1)
    await one.open_channel(PRINTER, TYPE, user="alice")
    with pytest.raises(MaxChannelCountExceeded):
        await other.open_channel(SERVER, TYPE, user="alice")
    await other.open_channel(PRINTER_OF_OTHER_SERVER, TYPE, user="alice")


@rule(7)
def test_the_limit_of_channels_is_ten_thousand_by_default() -> None:
    assert Settings().max_channels == 10_000


@rule(8)
@both_styles
async def test_an_open_channel_cannot_be_opened_again(farm: Farm, style: Style) -> None:
    source = await farm.broker("spooler")
    registration = await (await farm.broker("alice")).register(PRINTER, TYPE, style=style)
    channel = await source.channel(PRINTER, TYPE, user="alice", style=style)
    await channel.open()
    with pytest.raises(ChannelAlreadyOpened) as refused:
        await channel.open()
    assert refused.value.result.hresult == 0x80040009
    assert len(await source.channels()) == 1
    await channel.send(b"still open")
    assert (await notified(registration)).data == b"still open"


@rule(9)
@both_styles
@pytest.mark.parametrize("name", [PRINTER, SERVER])
async def test_a_channel_for_all_users_needs_administer_rights_on_that_name(
    farm: Farm, name: str, style: Style
) -> None:
    source = await farm.broker("spooler")

    async def refused() -> None:
        before = await farm.keys()
        with pytest.raises(AccessDenied) as error:
            await source.open_channel(name, TYPE, user_filter=ALL_USERS, style=style)
        assert error.value.result.hresult == 0x80070005
        assert await source.channels() == []
        assert await farm.keys() == before

    await source.registration(name)  # its session there stands already
    assert await source.channels(name) == []
    await refused()
    elsewhere = SERVER if name == PRINTER else PRINTER
    await source.grant(elsewhere, "spooler", "administer")
    await source.grant(OTHER_PRINTER, "spooler", "all")
    await source.grant(name, "somebody else", "all")
    await source.grant(name, "spooler", "use" if name == PRINTER else "enumerate")
    await refused()
    await source.grant(name, "spooler", "administer")
    channel = await source.open_channel(name, TYPE, user_filter=ALL_USERS, style=style)
    await channel.release()
    await source.revoke(name, "spooler", "administer")
    await refused()


@rule(10)
async def test_the_callback_of_a_unidirectional_channel_is_never_called(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    recorder, control = Recorder(), Recorder()
    registration = await listener.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE, user="alice", callback=recorder)
    await channel.send(b"out of paper")
    await notified(registration)
    await registration.unregister()
    await channel.close(b"refilled")

    questions = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    question = await source.open_channel(
        PRINTER, TYPE, user="alice", style=BIDIRECTIONAL, callback=control
    )
    await question.send(b"continue?")
    await (await farm.offered(questions)).close(b"yes")
    await control.until(closed=1)
    assert recorder.told == []


@rule(10)
async def test_the_callback_of_a_unidirectional_channel_is_not_told_of_its_death(
    farm: Farm,
) -> None:
    source = await farm.broker("spooler", lease=1.0)
    recorder, control = Recorder(), Recorder()
    channel = await source.open_channel(PRINTER, TYPE, user="alice", callback=recorder)
    await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL, callback=control)
    await farm.client.delete(*await farm.keys())
    await control.until(closed=1)
    assert not channel.is_open, "Redis forgot this one too"
    assert recorder.told == []


@rule(11)
async def test_a_bidirectional_channel_without_a_callback_takes_responses(farm: Farm) -> None:
    source = await farm.broker("spooler")
    first = await (await farm.broker("alice")).register(PRINTER, TYPE, style=BIDIRECTIONAL)
    second = await (await farm.broker("alice")).register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await source.open_channel(
        PRINTER, TYPE, user="alice", style=BIDIRECTIONAL, callback=None
    )
    await channel.send(b"continue?")
    owner, loser = await farm.offered(first), await farm.offered(second)
    assert await owner.respond(b"yes") == S_OK
    told = await loser.wait_closed(PATIENCE)
    assert told is not None
    assert told.reason.data is None, "the other listener does not see the response"
    await eventually(lambda: channel.owner is not None, "the response at the source")
    assert await channel.send(b"on A3?") == S_OK, "it was taken: it is the source's turn"
    assert (await owner.follow_up(PATIENCE)).data == b"on A3?"
    assert await owner.close(b"on A3") == S_OK


@rule(12)
async def test_a_channel_on_which_nothing_was_sent_is_offered_to_nobody(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    silent = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
    spoken = await farm.question(source)
    late = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    for each in (registration, late):
        assert [offer.id for offer in await each.fetch_offers(PATIENCE)] == [spoken.id]
    await silent.send(b"now")
    for each in (registration, late):
        assert [offer.id for offer in await each.fetch_offers(PATIENCE)] == [silent.id]


@rule(12)
@both_styles
async def test_a_listener_can_only_answer_what_it_was_notified_on(farm: Farm, style: Style) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice", role=Role.LISTENER)
    registration = await listener.register(PRINTER, TYPE, style=style)
    for speaking in ("send", "respond", "open", "open_channel"):
        assert not hasattr(registration, speaking), f"a registration cannot {speaking}"
    with pytest.raises(AccessDenied):
        await listener.open_channel(PRINTER, TYPE, style=style)
    if style is BIDIRECTIONAL:
        channel = await farm.question(source)
        assert await (await farm.offered(registration)).respond(b"yes") == S_OK
        assert (await channel.response(PATIENCE)).data == b"yes"
