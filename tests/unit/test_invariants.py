"""Each invariant passes histories as they must be, and catches those that are wrong on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.proof.history import (
    DIED,
    HUNG,
    LEFT,
    SOURCE,
    Attempt,
    Call,
    Dialog,
    Feed,
    Hand,
    Handing,
    History,
    Known,
    Listening,
    Work,
    is_meant_for,
)
from workers.proof.invariants import INVARIANTS, disorder, violations
from workers.proof.verdict import Verdict, recovery

LASER, PLOTTER, SERVER = r"\\print01\laser-3", r"\\print01\plotter", r"\\print01"
TYPE, OTHER_TYPE = "type", "other type"
OWNER = "exactly one owner in each dialog"
TOLD = "every loser is told"
KEPT = "every success is kept or delivered"
ORDER = "once, and in order"
CLOSED = "nothing after a close succeeded"
DROPPED = "each handle is dropped once"
THEIRS = "nobody sees what is not theirs"
KEYS = "no key without an owner"
WAITING = "nobody is left waiting"
FAILS = "no call fails without a reason"


def dialog() -> Dialog:
    """A question that r and s were asked; r answered twice, s was late; closed by its source."""
    return Dialog(
        sends={"short 0": True, "short 1": True},
        heard=[("r", "r 0"), ("r", "r 1")],
        close={"enough": True},
        end="closed",
        hands={
            "r": Hand(
                "alice", {"r 0": True, "r 1": True}, ["short 0", "short 1"], end="closed enough"
            ),
            "s": Hand("bob", heard=["short 0"], end="lost", lost_to="alice", has_let_go=True),
        },
        log={"short 0", "r 0", "short 1", "r 1", "enough"},
        printer=LASER,
        type=TYPE,
        responders=2,
        calls=[
            Call(SOURCE, "send", 1.0, 1.1),
            Call("r", "respond", 2.0, 2.1),
            Call("s", "respond", 2.0),
            Call(SOURCE, "close", 5.0, 5.1),
            Call("r", "respond", 5.05, 5.2),
        ],
        handed=[
            Handing("r", "short 0", 1.2),
            Handing(SOURCE, "r 0", 2.2),
            Handing("r", "short 1", 5.15),
        ],
        over={SOURCE: 5.1, "r": 5.2, "s": 2.3},
        known=Known("closed", "r", "alice", 3, {SOURCE, "r", "s"}, 2),
    )


def feed() -> Feed:
    """Two notifications for alice, both heard by her and by the administrator."""
    return Feed(
        sends={0: True, 1: True},
        end="closed",
        heard={"a": [0, 1], "c": [0, 1]},
        known=2,
        user="alice",
        printer=LASER,
        type=TYPE,
        begun={0: 1.0, 1: 2.0},
        answered={0: 1.1, 1: 2.1},
        closed=3.0,
    )


def history() -> History:
    """A play in which everything was as it must be."""
    return History(
        dialogs={"d": dialog()},
        feeds={"f": feed()},
        works={
            "p": Work(
                {"c"},
                {"w 0": True, "w 1": True, "w 2": True},
                {"w 0": ["x"], "w 1": ["x", "y"], "w 2": ["x"]},
                {"w 0": ["x"], "w 1": ["y"]},
                died={"x"},
            )
        },
        listening={
            "r": Listening("alice", LASER, TYPE, is_two_way=True),
            "s": Listening("bob", LASER, TYPE, is_two_way=True),
            "a": Listening("alice", LASER, TYPE),
            "b": Listening("bob", LASER, TYPE),
            "c": Listening("carol", LASER, TYPE, all_users=True),
        },
        attempts=[
            Attempt("bob listens for all users", has_right=False, is_admitted=False),
            Attempt("carol listens for all users", has_right=True, is_admitted=True),
        ],
        keys={"ns:{print01}:channel:d": 600_000, "ns:{print01}:meta": -1, "ns:servers": -1},
    )


def two_owners(seen: History) -> None:
    seen.dialogs["d"].heard.append(("s", "s 2"))


def two_told_that_they_own(seen: History) -> None:
    seen.dialogs["d"].hands["s"].responses["s 0"] = True


def another_owner_in_redis(seen: History) -> None:
    seen.dialogs["d"].known = Known("closed", "s", "bob", 3, {SOURCE, "r", "s"}, 2)


def loser_untold(seen: History) -> None:
    seen.dialogs["d"].hands["s"].end = HUNG


def loser_told_of_another(seen: History) -> None:
    seen.dialogs["d"].hands["s"].lost_to = "mallory"


def owner_told_that_it_lost(seen: History) -> None:
    seen.dialogs["d"].hands["r"].end = "lost"


def not_offered_to_all(seen: History) -> None:
    del seen.dialogs["d"].hands["s"]


def response_lost(seen: History) -> None:
    seen.dialogs["d"].heard.pop()
    seen.dialogs["d"].log.remove("r 1")


def question_lost(seen: History) -> None:
    for hand in seen.dialogs["d"].hands.values():
        hand.heard.remove("short 0")
    seen.dialogs["d"].log.remove("short 0")


def close_lost(seen: History) -> None:
    seen.dialogs["d"].hands["r"].end = "released"
    seen.dialogs["d"].log.remove("enough")


def notification_lost(seen: History) -> None:
    seen.feeds["f"].heard["a"].pop()


def notification_forgotten(seen: History) -> None:
    seen.feeds["f"].known = 1
    seen.feeds["f"].heard = {}


def work_lost(seen: History) -> None:
    del seen.works["p"].handled["w 0"]


def work_unfinished(seen: History) -> None:
    del seen.works["p"].finished["w 1"]
    seen.works["p"].handled["w 1"] = ["y"]


def response_twice(seen: History) -> None:
    seen.dialogs["d"].heard.append(("r", "r 1"))


def responses_out_of_order(seen: History) -> None:
    seen.dialogs["d"].heard.reverse()


def follow_up_twice(seen: History) -> None:
    seen.dialogs["d"].hands["r"].heard.append("short 1")


def response_that_nobody_gave(seen: History) -> None:
    known = seen.dialogs["d"].known
    assert known is not None
    known.responses = 3


def notifications_out_of_order(seen: History) -> None:
    seen.feeds["f"].heard["a"].reverse()


def notification_twice(seen: History) -> None:
    seen.feeds["f"].heard["a"].append(1)


def finished_twice(seen: History) -> None:
    seen.works["p"].finished["w 1"].append("x")


def response_after_the_close(seen: History) -> None:
    seen.dialogs["d"].calls.append(Call("r", "respond", 5.11, 5.2))


def second_close(seen: History) -> None:
    seen.dialogs["d"].calls.append(Call("r", "close", 6.0, 6.1))


def handed_after_it_was_told(seen: History) -> None:
    seen.dialogs["d"].handed.append(Handing("r", "short 2", 5.21))


def loser_handed_more(seen: History) -> None:
    seen.dialogs["d"].handed.append(Handing("s", "short 1", 4.0))


def sent_after_the_close(seen: History) -> None:
    seen.feeds["f"].closed = 1.5


def dropped_twice(seen: History) -> None:
    known = seen.dialogs["d"].known
    assert known is not None
    known.drops = 4


def never_dropped(seen: History) -> None:
    known = seen.dialogs["d"].known
    assert known is not None
    known.drops, known.dropped = 2, {SOURCE, "s"}


def dropped_for_another(seen: History) -> None:
    seen.dialogs["d"].hands["s"].has_let_go = False


def seen_by_another_user(seen: History) -> None:
    seen.feeds["f"].heard["b"] = [1]


def seen_after_the_right_was_taken(seen: History) -> None:
    seen.listening["c"].denied = 1.5


def offered_to_another_user(seen: History) -> None:
    seen.dialogs["d"].user = "alice"


def follow_up_to_a_loser(seen: History) -> None:
    seen.dialogs["d"].hands["s"].heard.append("short 1")


def admitted_without_a_right(seen: History) -> None:
    seen.attempts[0].is_admitted = True


def refused_with_a_right(seen: History) -> None:
    seen.attempts[1].is_admitted = False


def ownerless_key(seen: History) -> None:
    assert seen.keys is not None
    seen.keys["ns:{print01}:held:host.1.a"] = -1


def source_left_waiting(seen: History) -> None:
    seen.dialogs["d"].end = ""


def owner_left_waiting(seen: History) -> None:
    seen.dialogs["d"].hands["r"].end = HUNG


def left_by_all(seen: History) -> None:
    seen.dialogs["d"].end = LEFT
    seen.dialogs["d"].hands["r"].responses.clear()


def feed_left_waiting(seen: History) -> None:
    seen.feeds["f"].end = ""


def a_call_failed(seen: History) -> None:
    seen.faults.append("open: RedisRefused()")


WRONG: list[tuple[str, Callable[[History], None]]] = [
    (OWNER, two_owners),
    (OWNER, two_told_that_they_own),
    (OWNER, another_owner_in_redis),
    (TOLD, loser_untold),
    (TOLD, loser_told_of_another),
    (TOLD, owner_told_that_it_lost),
    (TOLD, not_offered_to_all),
    (KEPT, response_lost),
    (KEPT, question_lost),
    (KEPT, close_lost),
    (KEPT, notification_lost),
    (KEPT, notification_forgotten),
    (KEPT, work_lost),
    (KEPT, work_unfinished),
    (ORDER, response_twice),
    (ORDER, responses_out_of_order),
    (ORDER, follow_up_twice),
    (ORDER, response_that_nobody_gave),
    (ORDER, notifications_out_of_order),
    (ORDER, notification_twice),
    (ORDER, finished_twice),
    (CLOSED, response_after_the_close),
    (CLOSED, second_close),
    (CLOSED, handed_after_it_was_told),
    (CLOSED, loser_handed_more),
    (CLOSED, sent_after_the_close),
    (DROPPED, dropped_twice),
    (DROPPED, never_dropped),
    (DROPPED, dropped_for_another),
    (THEIRS, seen_by_another_user),
    (THEIRS, seen_after_the_right_was_taken),
    (THEIRS, offered_to_another_user),
    (THEIRS, follow_up_to_a_loser),
    (THEIRS, admitted_without_a_right),
    (THEIRS, refused_with_a_right),
    (KEYS, ownerless_key),
    (WAITING, source_left_waiting),
    (WAITING, owner_left_waiting),
    (WAITING, left_by_all),
    (WAITING, feed_left_waiting),
    (FAILS, a_call_failed),
]


def test_a_history_as_it_must_be_has_no_violation() -> None:
    assert violations(history()) == []
    verdict = Verdict.on(history())
    assert verdict.holds
    assert verdict.sentence.startswith(f"Holds: {len(INVARIANTS)} invariants")


@pytest.mark.parametrize(("name", "spoil"), WRONG, ids=lambda one: getattr(one, "__name__", None))
def test_a_history_that_is_wrong_is_caught(name: str, spoil: Callable[[History], None]) -> None:
    seen = history()
    spoil(seen)
    found = violations(seen)
    assert name in {one.invariant for one in found}
    for one in found:
        assert one.rules
        assert f"{one.invariant} ({one.rules})" in str(one)
    verdict = Verdict.on(seen)
    assert not verdict.holds
    assert verdict.sentence.startswith("BROKEN: ")
    assert name in verdict.sentence


def test_each_invariant_is_caught_broken() -> None:
    assert {one.name for one in INVARIANTS} == {name for name, _ in WRONG}


# What is no violation ----------------------------------------------------------------------------


def test_what_redis_may_forget_is_lost_and_counted_elsewhere() -> None:
    """A failover at durability ``memory``: the first acquisition may be forgotten (D15)."""
    seen = history()
    seen.may_forget = True
    found = seen.dialogs["d"]
    found.end = "released"
    found.hands["s"].responses["s 0"] = True
    found.hands["s"].end = "released"
    found.log.clear()
    seen.feeds["f"].heard, seen.feeds["f"].known, seen.feeds["f"].end = {}, 0, "released"
    assert violations(seen) == []
    response_after_the_close(seen)
    assert violations(seen) == [], "the close was forgotten, too"
    handed_after_it_was_told(seen)
    assert CLOSED in {one.invariant for one in violations(seen)}, "this end was told of it"
    found.heard.append(("s", "s 2"))
    assert OWNER in {one.invariant for one in violations(seen)}, "its source hears one owner only"


def test_what_was_closed_in_order_is_whole_whatever_redis_forgot() -> None:
    seen = history()
    seen.may_forget = True
    notification_lost(seen)
    assert {one.invariant for one in violations(seen)} == {KEPT}


def test_a_success_that_is_not_as_safe_as_asked_may_be_lost() -> None:
    seen = history()
    response_lost(seen)
    seen.dialogs["d"].hands["r"].responses["r 1"] = False
    assert violations(seen) == []


def test_whoever_was_killed_is_told_nothing() -> None:
    seen = history()
    found = seen.dialogs["d"]
    found.end, found.hands["r"].end = "released", DIED
    found.close.clear()
    found.calls = [each for each in found.calls if each.what != "close"]
    assert violations(seen) == []


def test_what_came_before_an_end_was_told_of_the_close_is_no_violation() -> None:
    """``dialog()`` has both: a call that began before the close had succeeded, and a handing."""
    found = dialog()
    assert found.calls[-1].begun < found.calls[-2].ended < found.calls[-1].ended
    assert found.handed[-1].at > found.over[SOURCE]
    assert violations(History(dialogs={"d": found})) == []


def test_who_was_not_there_yet_or_any_more_is_owed_nothing() -> None:
    seen = history()
    seen.feeds["f"].heard["a"] = [1]
    seen.listening["a"].since = 1.05
    assert violations(seen) == []
    seen.feeds["f"].heard["a"] = []
    seen.listening["a"].until = 2.05
    assert violations(seen) == []


def test_what_nothing_was_seen_of_is_not_proved() -> None:
    seen = history()
    seen.keys = None
    verdict = Verdict.on(seen)
    assert not verdict.holds
    assert verdict.sentence == f"NOT PROVED: nothing was seen to judge by, of: {KEYS}"


# By Hypothesis -----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 50), unique=True))
def test_any_rising_numbers_are_in_order_and_no_others_are(numbers: list[int]) -> None:
    rising = sorted(numbers)
    assert not list(disorder([f"text {number}" for number in rising], "r"))
    if numbers != rising:
        assert list(disorder(numbers, "r"))
    if numbers:
        assert list(disorder([*rising, rising[-1]], "r")), "the last one came twice"


@given(
    st.sampled_from(["", "alice", "bob"]),
    st.sampled_from([LASER, PLOTTER, SERVER]),
    st.sampled_from([TYPE, OTHER_TYPE]),
    st.booleans(),
    st.sampled_from(["alice", "bob"]),
    st.sampled_from([LASER, PLOTTER, SERVER]),
    st.booleans(),
    st.booleans(),
)
def test_who_may_see_what(
    user: str,
    place: str,
    type_: str,
    asks: bool,
    listener: str,
    where: str,
    all_users: bool,
    is_two_way: bool,
) -> None:
    """The rules of matching, one by one."""
    channel: Dialog | Feed = Dialog() if asks else Feed()
    channel.user, channel.printer, channel.type = user, place, type_
    printers = where == SERVER
    listening = Listening(listener, where, TYPE, is_two_way, all_users, printers=printers)
    keeps = {
        "R38": place not in (where, *((LASER, PLOTTER) if printers else ())),
        "R39": type_ != TYPE,
        "R40": asks != is_two_way,
        "R42": user not in ("", listener) and not all_users,
    }
    assert is_meant_for(channel, listening) is not any(keeps.values()), keeps


def test_all_printers_of_another_server_are_not_heard() -> None:
    listening = Listening("alice", r"\\print0", TYPE, printers=True)
    assert not is_meant_for(Feed(user="alice", printer=LASER, type=TYPE), listening)


@given(st.permutations(range(3)))
def test_parts_of_a_history_merge_in_any_order(order: list[int]) -> None:
    whole = dialog()
    parts = [
        History(dialogs={"d": Dialog(sends=whole.sends, heard=whole.heard, close=whole.close,
                                     end=whole.end, printer=LASER, type=TYPE, responders=2,
                                     log=whole.log, known=whole.known)}),
        History(dialogs={"d": Dialog(hands={"r": whole.hands["r"]})}),
        History(dialogs={"d": Dialog(hands={"s": whole.hands["s"]})}),
    ]  # fmt: skip
    made = History()
    for number in order:
        made.merge(History.of_record(json.loads(json.dumps(parts[number].record()))))
    assert violations(made) == []
    found = made.dialogs["d"]
    assert (found.hands, found.heard, found.known) == (whole.hands, whole.heard, whole.known)


def test_a_record_says_all_that_a_history_holds() -> None:
    seen = history()
    assert History.of_record(json.loads(json.dumps(seen.record()))) == seen


def test_recovery_in_words() -> None:
    assert recovery([]) == ""
    assert recovery([0.1, 0.3, 2.0]) == "0.30 s (median), 2.00 s (worst)"
