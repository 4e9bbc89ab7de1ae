"""Each word that a script answers is one result or one typed error, in one place."""

from __future__ import annotations

import pytest

from broker import Code, Result, errors, results
from broker._outcomes import CLOSED, NUMBERED, SENT, closer_detail, refusal, words_of
from broker._scripts import SCRIPTS

CHANNEL = "c0ffee"
BY_CLIENT = {"EPOCH", "LAPSED", "MOVED", "NO_BODY", "POOLS", "DENIED", "LIMIT", "FOREIGN"}
"""Words that the client acts on before anybody sees them."""
HOUSEKEEPING = {"hello", "renew", "sweep", "bury", "grant", "take", "confirm", "register",
                "unregister", "delete_printer", "create_pool", "delete_pool", "join", "fetch",
                "finish", "hand_back", "disown", "orphan", "adopt", "dead_letter",
                "replay", "drop", "offer_again"}  # fmt: skip
"""Scripts without a channel's outcome."""

REFUSALS = {
    "CLOSED": errors.ChannelAlreadyClosed,
    "ACQUIRED": errors.ChannelAcquired,
    "GONE": errors.ChannelAlreadyClosed,
    "GAP": errors.ChannelAlreadyClosed,
    "DECLINED": errors.ChannelAlreadyClosed,
    "WAITING": errors.WaitingForResponse,
    "IN_PROGRESS": errors.CallInProgress,
    "NOT_OPENED": errors.ChannelNotOpened,
    "NOT_OFFERED": errors.ChannelAlreadyClosed,
    "VIOLATION": errors.ContractViolation,
    "NOT_YOURS": errors.NotYours,
    "TAKEN": errors.ChannelAlreadyOpened,
    "FAILURE": errors.NotificationFailure,
    "FULL": errors.QueueFull,
}


@pytest.mark.parametrize(
    ("word", "result"),
    [
        ("OK", results.S_OK),
        ("LOST", results.NOTIFICATION_LOST),
        ("NO_LISTENERS", results.NO_LISTENERS),
    ],
)
def test_words_of_a_send_that_succeeded(word: str, result: Result) -> None:
    assert SENT[word] == result
    assert result.succeeded


@pytest.mark.parametrize(
    ("word", "result"),
    [
        ("OK", results.S_OK),
        ("RELEASED", results.S_OK),
        ("ACQUIRED", results.LOST_THE_RACE),
    ],
)
def test_words_of_a_close_that_succeeded(word: str, result: Result) -> None:
    assert CLOSED[word] == result
    assert result.succeeded


@pytest.mark.parametrize(("word", "kind"), REFUSALS.items())
def test_words_of_a_refusal(word: str, kind: type[errors.TympanError]) -> None:
    error = refusal(word, channel=CHANNEL, detail="bob", me="r1")
    assert type(error) is kind
    assert CHANNEL in str(error), "the message says what it is about"
    if isinstance(error, errors.ChannelError):
        assert error.channel == CHANNEL


def test_words_of_several_that_travelled_together() -> None:
    assert words_of("2 OK 1 LOST 1 OK") == ["OK", "OK", "LOST", "OK"]
    assert words_of("64 NO_LISTENERS") == ["NO_LISTENERS"] * 64


def test_every_word_of_every_script_has_an_outcome() -> None:
    known = {*SENT, *CLOSED, *REFUSALS, *BY_CLIENT, "MANY"}
    words = {word for script in SCRIPTS if script.name not in HOUSEKEEPING for word in script.words}
    assert words <= known, f"without an outcome: {words - known}"
    assert set(REFUSALS) | set(SENT) | set(CLOSED) <= words, "an outcome that no script has"


def test_who_was_first_is_named() -> None:
    error = refusal("ACQUIRED", channel=CHANNEL, detail="bob", me="r1")
    assert isinstance(error, errors.ChannelAcquired)
    assert error.by == "bob"
    assert "bob" in str(error)


@pytest.mark.parametrize(
    ("closer", "code", "said"),
    [
        ("source", Code.CHANNEL_CLOSED_BY_SERVER, "its source"),
        ("server", Code.CHANNEL_CLOSED_BY_SERVER, "the print server"),
        ("r1", Code.CHANNEL_CLOSED_BY_SAME_LISTENER, "this end"),
        ("r2", Code.CHANNEL_CLOSED_BY_ANOTHER_LISTENER, "listener"),
    ],
)
def test_who_closed_is_named(closer: str, code: Code, said: str) -> None:
    error = refusal("CLOSED", channel=CHANNEL, detail=closer, me="r1")
    assert isinstance(error, errors.ChannelAlreadyClosed)
    assert error.detail == closer_detail(closer, "r1") == Result.error(code)
    assert error.result == Result.error(Code.CHANNEL_ALREADY_CLOSED)
    assert said in str(error)


def test_a_source_that_closed_itself_is_told_so() -> None:
    error = refusal("CLOSED", channel=CHANNEL, detail="source")
    assert isinstance(error, errors.ChannelAlreadyClosed)
    assert error.detail == Result.error(Code.CHANNEL_CLOSED_BY_SERVER)


def test_a_decline_of_ones_own_is_named() -> None:
    error = refusal("DECLINED", channel=CHANNEL, me="r1")
    assert isinstance(error, errors.ChannelAlreadyClosed)
    assert error.detail == Result.error(Code.CHANNEL_CLOSED_BY_SAME_LISTENER)


def test_a_word_that_nobody_knows_is_an_error_that_shows_it() -> None:
    error = refusal("PURPLE", channel=CHANNEL, detail="x")
    assert type(error) is errors.TympanError
    assert "PURPLE" in str(error)


@pytest.mark.parametrize("word", sorted({*SENT, *CLOSED, *REFUSALS}))
def test_numbers_are_used_up_by_what_was_done_only(word: str) -> None:
    """ACQUIRED uses up the number of a close, not of an answer: the caller tells them apart."""
    done = {"OK", "LOST", "NO_LISTENERS", "FAILURE", "RELEASED"}
    assert (word in NUMBERED) == (word in done)


@pytest.mark.parametrize(
    ("kind", "is_retryable"),
    [
        (errors.ChannelAcquired, False),
        (errors.ChannelAlreadyClosed, False),
        (errors.ContractViolation, False),
        (errors.NotYours, False),
        (errors.AccessDenied, False),
        (errors.InvalidArgument, False),
        (errors.NotificationTooLarge, False),
        (errors.RedisRefused, False),
        (errors.RedisTooOld, False),
        (errors.ForeignLayout, False),
        (errors.WaitingForResponse, True),
        (errors.CallInProgress, True),
        (errors.NotificationFailure, True),
        (errors.QueueFull, True),
        (errors.RightsUnavailable, True),
        (errors.OutcomeUnknown, True),
        (errors.RedisUnreachable, True),
        (errors.RedisReadOnly, True),
        (errors.RedisFull, True),
    ],
)
def test_what_the_same_call_may_mend(
    kind: type[errors.TympanError],
    is_retryable: bool,
) -> None:
    assert kind.retryable is is_retryable
