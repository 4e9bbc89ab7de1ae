"""``tympan dead``: listed, shown, replayed, dropped; what happened to each is said."""

from __future__ import annotations

import asyncio

from tests.cli.commands import PATIENCE, TYPE, Place, Tympan
from tests.cli.conftest import Brokers
from tests.cli.desk import Desk
from tests.cli.test_listen import ask, tell
from workers.cli.dead import COLUMNS

NO_LETTER = "1795244161373-0"


async def buried(desk: Desk, broker: Brokers, name: str, *texts: str) -> list[str]:
    """Letters with these bodies; their ids."""
    source = await broker("source")
    for text in texts:
        await tell(source, name, text)
    return [await desk.bury(f"no tray for {text}") for text in texts]


async def test_list_and_show(tympan: Tympan, place: Place, broker: Brokers) -> None:
    desk = await Desk.at(await broker("alice"), place.printer)
    other = await Desk.at(await broker("bob"), place.other, "mail")
    first, second = await buried(desk, broker, place.printer, "A4", "A5")
    (third,) = await buried(other, broker, place.other, "A6")
    of_server, of_pool, of_printer, newest, for_people, shown, in_words = await asyncio.gather(
        tympan.run("dead", "list", place.server, "--json"),
        tympan.run("dead", "list", place.server, "--pool", "Mail", "--json"),
        tympan.run("dead", "list", place.printer, "--json"),
        tympan.run("dead", "list", place.server, "--limit", "1", "--json"),
        tympan.run("dead", "list", place.server),
        tympan.run("dead", "show", first, "--json"),
        tympan.run("dead", "show", first, "--on", place.server),
    )
    assert [event["letter"] for event in of_server.events] == [third, second, first]
    assert [event["letter"] for event in of_pool.events] == [third]
    assert [event["letter"] for event in of_printer.events] == [second, first]
    assert [event["letter"] for event in newest.events] == [third]
    head, *rows = for_people.lines
    assert tuple(head.split()) == COLUMNS
    assert rows[2].startswith(f"{first}  {place.printer}  helpdesk  {TYPE}  uni    1 ")
    assert rows[2].endswith("no tray for A4")
    record = shown.answer
    assert 0 < record.pop("at") <= record.pop("buried_at")
    assert record.pop("registration") == desk.replica.id
    assert record.pop("channel")
    assert record == {
        "letter": first,
        "name": place.printer,
        "pool": "helpdesk",
        "type": TYPE,
        "style": "uni",
        "user": "alice",
        "times": 1,
        "reason": "no tray for A4",
        "dialog": False,
        "text": "A4",
    }
    text = "\n".join(in_words.lines)
    for part in (
        first,
        place.printer,
        "pool    helpdesk, delivered 1 time",
        "no tray for A4",
        "A4",
    ):
        assert part in text
    await desk.replica.leave()
    await other.replica.leave()
    for pool in ("helpdesk", "mail"):
        await tympan.run("pool", "delete", pool, place.server)


async def test_a_reason_of_several_lines_is_one_line_in_a_list(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    desk = await Desk.at(await broker("alice"), place.printer)
    await tell(await broker("source"), place.printer, "A4")
    letter = await desk.bury("Traceback:\n  \x1b]0;boo\x07 line 1\n  line 2")
    listed, shown = await asyncio.gather(
        tympan.run("dead", "list", place.server), tympan.run("dead", "show", letter)
    )
    assert len(listed.lines) == 2
    assert listed.lines[1].endswith(r"Traceback: \x1b]0;boo\x07 line 1 line 2")
    assert "      line 2" in shown.lines
    assert "\x1b" not in "".join(listed.lines + shown.lines)


async def test_no_letters(tympan: Tympan, place: Place, broker: Brokers) -> None:
    for words in (("list", place.server), ("replay", "--all", "--on", place.server)):
        nothing = await tympan.run("dead", *words)
        assert nothing.lines == []
        assert f"no dead letter on {place.server}" in nothing.notes
    unknown = await tympan.run("dead", "show", NO_LETTER, "--json", status=3)
    assert unknown.answer["error"] == "NO_SUCH_LETTER"
    assert "tympan dead list" in unknown.answer["message"]
    assert place.server.strip("\\") not in await (await broker("admin")).servers()


async def test_replay_and_drop_say_what_happened_to_each(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    desk = await Desk.at(await broker("alice"), place.printer)
    first, second, third = await buried(desk, broker, place.printer, "A4", "A5", "A6")
    done = await tympan.run("dead", "replay", second, first, "--json")
    said = {"result": "S_OK", "hresult": "0x00000000", "name": place.printer, "pool": "helpdesk"}
    assert done.events == [
        {"letter": letter, "replayed": True, **said} for letter in (second, first)
    ]
    assert [(await desk.delivery()).notification.text for _ in range(2)] == ["A5", "A4"]
    again = await tympan.run("dead", "replay", first, third, "--json", status=3)
    missing, replayed = again.events
    assert (missing["letter"], missing["replayed"]) == (first, False)
    assert missing["error"] == "NO_SUCH_LETTER"
    assert (replayed["letter"], replayed["replayed"]) == (third, True), "the others go on"
    fourth = await desk.bury("again")
    dropped = await tympan.run("dead", "drop", fourth, first, "--json")
    assert [(event["letter"], event["dropped"]) for event in dropped.events] == [
        (first, False),
        (fourth, True),
    ]
    gone = await tympan.run("dead", "drop", fourth)
    assert gone.lines[0].startswith(f"{fourth}  not dropped: there is no dead letter {fourth}")


async def test_all_of_a_pool_the_oldest_first(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    worker = await broker("alice")
    desk, mail = (
        await Desk.at(worker, place.printer),
        await Desk.at(worker, place.printer, pool="mail"),
    )
    of_desk = await buried(desk, broker, place.printer, *(str(i) for i in range(5)))
    of_mail = [await mail.bury() for _ in range(5)]
    where = ("--all", "--on", place.server)
    done = await tympan.run("dead", "replay", *where, "--pool", "helpdesk")
    assert [line.split()[0] for line in done.lines] == of_desk
    assert done.lines[0] == f"{of_desk[0]}  {place.printer}, pool helpdesk: replayed"
    assert [(await desk.delivery()).notification.text for _ in range(5)] == list("01234")
    unasked = await tympan.run("dead", "drop", *where, status=2)
    assert f"5 dead letters on {place.server}: say --yes to forget them all" in unasked.notes
    dropped = await tympan.run("dead", "drop", *where, "--yes", "--json")
    assert [event["letter"] for event in dropped.events] == of_mail
    assert (await tympan.run("dead", "list", place.server)).lines == []


async def test_what_cannot_be_replayed_says_why_and_stays(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    source, worker = await broker("source"), await broker("alice")
    desk = await Desk.asked(worker, place.printer)
    question = await ask(source, place.printer, "A4?")
    offer = await desk.offer()
    await offer.respond("yes")
    dialog = await offer.bury("it broke later")
    assert await question.wait_closed(PATIENCE)
    over = await ask(source, place.printer, "A5?")
    late = await desk.bury()
    await over.close()
    one_way = await Desk.at(worker, place.printer, pool="mail")
    (orphan,) = await buried(one_way, broker, place.printer, "A6")
    await worker.pools.delete("mail", place.printer)
    where = ("--all", "--on", place.server)
    done = await tympan.run("dead", "replay", *where, "--json", status=3)
    reasons = {event["letter"]: event["message"] for event in done.events}
    assert {event["error"] for event in done.events} == {"NOT_REPLAYED"}
    assert "a dialog, which was closed" in reasons[dialog]
    assert "open no more" in reasons[late]
    assert "pool mail is gone" in reasons[orphan]
    assert "tympan pool create" in reasons[orphan]
    for_people = await tympan.run("dead", "replay", dialog, status=3)
    assert for_people.lines[0].startswith(f"{dialog}  not replayed: letter {dialog} stays")
    listed = await tympan.run("dead", "list", place.server, "--json")
    assert [event["letter"] for event in listed.events] == [orphan, late, dialog]
    assert [event["dialog"] for event in listed.events] == [False, False, True]


async def test_a_question_that_is_open_is_asked_again(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    desk = await Desk.asked(await broker("alice"), place.printer)
    question = await ask(await broker("source"), place.printer, "A4?")
    await tympan.run("dead", "replay", await desk.bury())
    offer = await desk.offer()
    await offer.respond("yes")
    assert (await question.response(PATIENCE)).text == "yes"


async def test_servers_number_their_letters_alike(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    other = Place()
    worker = await broker("alice")
    desk = await Desk.at(worker, place.printer)
    (letter,) = await buried(desk, broker, place.printer, "A4")
    here = desk.replica.server
    there = await worker.server(other.server)
    ((_, fields),) = await here.command("XRANGE", here.keys.dead, "-", "+")
    await there.command("XADD", there.keys.dead, letter, *fields)
    for command in ("show", "replay", "drop"):
        unclear = await tympan.run("dead", command, letter, "--json", status=2)
        for part in (place.server, other.server, "say --on which"):
            assert part in unclear.answer["message"]
    shown = await tympan.run("dead", "show", letter, "--on", other.server, "--json")
    assert shown.answer["name"] == rf"{other.server}\laser-3"
    await tympan.run("dead", "drop", letter, "--on", other.server)
    assert (await tympan.run("dead", "show", letter, "--json")).answer["name"] == place.printer


async def test_what_is_no_id_is_wrong_usage(tympan: Tympan, place: Place) -> None:
    await tympan.run("pool", "create", "desk", place.printer, "--type", TYPE)
    for command in ("show", "replay", "drop"):
        wrong = await tympan.run("dead", command, "12", "--json", status=2)
        assert "is no id of a dead letter" in wrong.answer["message"]
    await tympan.run("pool", "delete", "desk", place.printer)
