"""Handlers: which functions a worker takes, and what their parameters are filled with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from tenacity import wait_fixed

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Name, Notification, Offer, Payload
from broker.errors import InvalidArgument, InvalidName, InvalidType
from broker.pooled_offer import PooledOffer
from broker.replica import Delivery, Replica
from tests.farm import OTHER_PRINTER, OTHER_TYPE, PRINTER, SERVER, TYPE, OutOfPaper
from workers import EVERYWHERE, HandlerFault, RetryLater, Worker


class Other(Payload, type=OTHER_TYPE):
    text: str = ""


def listen(function: Callable[..., Any], type: Any = OutOfPaper, **options: Any) -> dict[str, Any]:
    """The kinds of a handler's parameters."""
    worker = Worker("desk")
    worker.listen(PRINTER, type, **options)(function)
    return dict(worker.handlers[0].parameters)


def test_a_parameter_is_filled_by_its_annotation() -> None:
    async def handle(
        paper: OutOfPaper,
        notification: Notification[OutOfPaper],
        delivery: Delivery[OutOfPaper],
        replica: Replica[OutOfPaper],
        name: Name,
        broker: Broker,
    ) -> None: ...

    assert listen(handle) == {
        "paper": Payload,
        "notification": Notification,
        "delivery": Delivery,
        "replica": Replica,
        "name": Name,
        "broker": Broker,
    }


def test_a_question_comes_with_its_offer() -> None:
    def handle(paper: OutOfPaper, offer: Offer[OutOfPaper], pooled: PooledOffer[Any]) -> None: ...

    found = listen(handle, style=BIDIRECTIONAL)
    assert found == {"paper": Payload, "offer": Offer, "pooled": PooledOffer}


def test_without_an_annotation_it_is_the_payload_or_else_the_notification() -> None:
    def handle(what): ...  # type: ignore[no-untyped-def]

    assert listen(handle) == {"what": Payload}
    assert listen(handle, TYPE) == {"what": Notification}


def test_a_base_of_the_model_and_a_union_with_it_take_the_payload() -> None:
    def base(what: Payload) -> None: ...
    def union(what: Other | OutOfPaper) -> None: ...

    assert listen(base) == {"what": Payload}
    assert listen(union) == {"what": Payload}


def test_a_parameter_with_a_default_and_no_annotation_is_left_alone() -> None:
    def handle(paper: OutOfPaper, retries=3) -> None: ...  # type: ignore[no-untyped-def]

    assert listen(handle) == {"paper": Payload}


def test_objects_and_partial_functions_are_handlers() -> None:
    class Desk:
        async def __call__(self, paper: OutOfPaper) -> None: ...

    def handle(prefix: str, paper: OutOfPaper) -> None: ...

    worker = Worker("desk")
    worker.listen(PRINTER, OutOfPaper)(Desk())
    assert worker.handlers[0].is_coroutine
    assert worker.handlers[0].name == "Desk"
    worker.listen(OTHER_PRINTER, OutOfPaper)(functools.partial(handle, "x"))
    assert not worker.handlers[1].is_coroutine


def _takes_text(text: str) -> None: ...
def _takes_another_model(other: Other) -> None: ...
def _takes_an_offer(offer: Offer[Any]) -> None: ...
def _takes_everything(*everything: Any) -> None: ...
def _takes_by_name(**everything: Any) -> None: ...
def _is_positional(paper: OutOfPaper, /) -> None: ...
def _has_an_unknown_annotation(paper: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (_takes_text, "'text'"),
        (_takes_another_model, "'other'"),
        (_takes_an_offer, "Offer"),
        (_takes_everything, "'everything'"),
        (_takes_by_name, "'everything'"),
        (_is_positional, "'paper'"),
        (_has_an_unknown_annotation, "Nowhere"),
    ],
)
def test_what_cannot_be_filled_is_refused_where_it_is_declared(
    function: Callable[..., Any], named: str
) -> None:
    with pytest.raises(HandlerFault, match=named) as caught:
        listen(function)
    assert function.__name__ in str(caught.value), "the message names the handler"


def test_a_delivery_is_refused_where_questions_are_answered() -> None:
    def handle(delivery: Delivery[Any]) -> None: ...

    with pytest.raises(HandlerFault, match="Delivery"):
        listen(handle, style=BIDIRECTIONAL)


# Workers -----------------------------------------------------------------------------------------


def test_two_handlers_may_not_listen_to_the_same() -> None:
    worker = Worker("desk")

    @worker.listen(PRINTER, OutOfPaper)
    def first(paper: OutOfPaper) -> None: ...

    with pytest.raises(HandlerFault, match="first and second"):

        @worker.listen(PRINTER.upper(), TYPE, buffer=5)
        def second(notification: Notification[Any]) -> None: ...

    @worker.listen(PRINTER, OutOfPaper, style=BIDIRECTIONAL)
    def third(paper: OutOfPaper) -> None: ...

    @worker.listen(EVERYWHERE, OutOfPaper)
    def fourth(paper: OutOfPaper) -> None: ...

    assert [handler.name for handler in worker.handlers] == ["first", "third", "fourth"]
    assert worker.handlers[2].subscription.everywhere


def test_the_user_and_the_timeout_are_the_workers_unless_the_handler_has_its_own() -> None:
    worker = Worker("desk", user="helpdesk", timeout=5.0)
    worker.listen(PRINTER, OutOfPaper)(lambda: None)
    worker.listen(OTHER_PRINTER, OutOfPaper, user="bob", timeout=None)(lambda: None)
    worker.listen(SERVER, OutOfPaper, timeout=1.0)(lambda: None)
    assert [handler.timeout for handler in worker.handlers] == [5.0, None, 1.0]
    assert [handler.subscription.user for handler in worker.handlers] == [
        "helpdesk",
        "bob",
        "helpdesk",
    ]


@pytest.mark.parametrize("name", ["", "two words", "~desk", "a:b", "-desk", "x" * 65, 7])
def test_a_pools_name_is_short_and_plain(name: Any) -> None:
    with pytest.raises(InvalidName, match="pool"):
        Worker(name)


def test_a_pools_name_is_folded() -> None:
    assert Worker("Help-Desk").pool == "help-desk"


@pytest.mark.parametrize(
    "options",
    [
        {"max_deliveries": 0},
        {"max_deliveries": "5"},
        {"timeout": 0},
        {"timeout": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        Worker("desk", **options)


def test_what_a_listener_could_not_ask_for_is_refused() -> None:
    worker = Worker("desk", retry_wait=wait_fixed(1))
    with pytest.raises(InvalidName):
        worker.listen("laser-3", OutOfPaper)
    with pytest.raises(InvalidType):
        worker.listen(PRINTER, "no-such-type")
    with pytest.raises(InvalidArgument, match="printers"):
        worker.listen(PRINTER, OutOfPaper, printers=True)
    with pytest.raises(InvalidArgument, match="timeout"):
        worker.listen(PRINTER, OutOfPaper, user_filter=ALL_USERS, timeout=-3)
    with pytest.raises(ValueError, match="-1"):
        RetryLater(-1)


def test_a_known_alias_brings_its_model() -> None:
    def handle(message: Payload) -> None: ...

    worker = Worker("desk")
    worker.listen(PRINTER, "asyncui", style=BIDIRECTIONAL)(handle)
    assert worker.handlers[0].parameters == {"message": Payload}
    assert worker.handlers[0].subscription.type == "asyncui"
