"""Replies: what was typed, as the answer that a question takes.

A message of the type ``asyncui`` takes one reply, of a kind of its own, which ends the dialog.
Whatever else is asked is answered with the bytes that were typed.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from broker import BIDIRECTIONAL, Notification, async_ui
from broker.async_ui import (
    AsyncUIReply,
    AsyncUIRequest,
    Button,
    CustomData,
    CustomUI,
    CustomUIReply,
    MessageBox,
    MessageBoxReply,
)
from broker.errors import BodyGone, PayloadInvalid
from broker.notification_type import ASYNC_UI
from broker.payload import faults_of
from workers.cli.payloads import check

CAPTIONS = {"IDOK": "OK", "IDCANCEL": "Cancel"}


def reply_to(question: Notification[Any], typed: str) -> bytes | AsyncUIReply:
    """The answer; a reply is to close the dialog. Raises PayloadInvalid where it does not fit."""
    data = typed.encode(errors="surrogateescape")  # as it was typed
    match _request_of(question):
        case MessageBox() as box:
            for button in box.buttons:
                if typed.strip().casefold() in _names_of(button):
                    return MessageBoxReply(button=button)
            raise PayloadInvalid(
                f"the message box has no button {typed!r}: it has {_listed(box)}", data
            )
        case CustomUI() | CustomData():
            try:
                return CustomUIReply(text=typed)
            except ValidationError as error:
                raise PayloadInvalid(f"no CustomUIReply: {faults_of(error)}", data) from None
        case None:
            check(data, question.model.response_model if question.model else None)
            return data
        case other:
            raise PayloadInvalid(f"a {type(other).__name__} takes no answer: decline it", data)


def choices(question: Notification[Any]) -> str:
    """What a question may be answered with, for a prompt; empty where that is open."""
    request = _request_of(question)
    return _listed(request) if isinstance(request, MessageBox) else ""


def _request_of(question: Notification[Any]) -> AsyncUIRequest | None:
    """The message, where the listener asked for its model; None for text that somebody tries."""
    if question.model is None or question.type != ASYNC_UI:
        return None
    try:
        return async_ui.request_of(question, BIDIRECTIONAL)
    except (PayloadInvalid, BodyGone):
        return None


def _names_of(button: Button) -> set[str]:
    names = {str(button.number)}
    if isinstance(button.id, str):
        names |= {button.id.casefold(), CAPTIONS[button.id].casefold()}
    return names


def _listed(box: MessageBox) -> str:
    shown = [
        f"{button.number} ({CAPTIONS[button.id]})"
        if isinstance(button.id, str)
        else str(button.number)
        for button in box.buttons
    ]
    *first, last = shown
    return f"{', '.join(first)} or {last}" if first else last
