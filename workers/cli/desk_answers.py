"""Answers at a desk: as they are sent, and in words."""

from __future__ import annotations

import contextlib
from typing import Any

from broker import Notification, Offer, Payload
from broker.async_ui import AsyncUIRequest, MessageBoxReply
from broker.errors import PayloadInvalid
from workers.cli.output import body_shown, on_one_line
from workers.cli.replies import reply_to
from workers.cups.types import JobAnswer, JobQuestion, QuestionOver
from workers.desk.hand import Answer
from workers.desk.question import CAPTIONS

BUTTONS = {1: CAPTIONS["IDOK"], 2: CAPTIONS["IDCANCEL"]}


def body_of(question: Notification[Any], answer: Answer) -> bytes | Payload:
    """What is sent; an AsyncUIReply is to close the dialog. Raises PayloadInvalid."""
    if _is_about_a_job(question.model):
        return JobAnswer(choice=answer.typed, note=answer.note)
    return reply_to(question, answer.typed)


def answer_words(data: bytes, offer: Offer[Any]) -> str:
    """An answer that somebody gave: ``continue (the tray is full again)``."""
    model = offer.registration.model
    with contextlib.suppress(PayloadInvalid):  # what cannot be read is shown as it is
        if _is_about_a_job(model):
            found = JobAnswer.decode(data)
            return on_one_line(f"{found.choice} ({found.note})" if found.note else found.choice)
        if model is not None and issubclass(model, AsyncUIRequest):
            button = MessageBoxReply.decode(data).button
            return BUTTONS.get(button, f"button {button}")
    return on_one_line(body_shown(data, offer.type))


def reason_words(data: bytes | None, offer: Offer[Any], by: str) -> str:
    """Why a question was closed: ``alice answered: hold``, ``timed out: cancel``."""
    if data is None:
        return f"closed by {by}"
    if not _is_about_a_job(offer.registration.model):
        return f"closed by {by}: {answer_words(data, offer)}"
    try:
        over = QuestionOver.decode(data)
    except PayloadInvalid:
        return f"closed by {by}: {on_one_line(body_shown(data, offer.type))}"
    why = over.why.replace("-", " ")
    who = f"{over.by} {why}" if over.by else why
    return on_one_line(f"{who}: {over.choice}" if over.choice else who)


def _is_about_a_job(model: type[Payload] | None) -> bool:
    return model is not None and issubclass(model, JobQuestion)
