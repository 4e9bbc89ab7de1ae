"""Payloads at the command line: read by a model where one is known, otherwise as bytes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic_core import to_jsonable_python

from broker import Payload
from broker.errors import PayloadInvalid
from broker.notification_type import ALIASES
from workers.cli.output import body_record, body_shown, printable

T = TypeVar("T")
Model = type[Payload] | None


def check(data: bytes, model: Model) -> None:
    """Raises PayloadInvalid where the model of an extension refuses these bytes.

    The types that come with Tympan take any: people try them with plain text.
    """
    if model is not None and _is_strict(model):
        _read(data, model, lambda _: None)


def payload_record(data: bytes | None, model: Model) -> dict[str, Any]:
    """A payload in a record: as :func:`body_record`, and what the model reads in it.

    ``payload`` has its fields (bytes in URL-safe base64), and ``model`` the name of the model.
    Where the model of an extension refuses the bytes, ``payload`` is None, and ``fault`` says why.
    """
    record: dict[str, Any] = {**body_record(data)}
    if data is None or model is None:
        return record
    try:
        return record | _read(data, model, _fields_record)
    except PayloadInvalid as error:
        return record | {"payload": None, "fault": str(error)} if _is_strict(model) else record


def payload_shown(data: bytes | None, type_: object, model: Model) -> str:
    """A payload for people: what the model reads in it, otherwise as :func:`body_shown`."""
    raw = body_shown(data, type_)
    if data is None or model is None:
        return raw
    try:
        return printable(_read(data, model, lambda payload: _laid_out(payload, model)))
    except PayloadInvalid as error:
        return f"{raw} ({printable(str(error))})" if _is_strict(model) else raw


def _is_strict(model: type[Payload]) -> bool:
    return model.notification_type not in ALIASES.values()


def _read(data: bytes, model: type[Payload], through: Callable[[Payload], T]) -> T:
    try:
        return through(model.decode(data))
    except PayloadInvalid:
        raise
    except Exception as error:  # the code of another package
        raise PayloadInvalid(f"{model.__name__} cannot read it: {error!r}", data) from error


def _fields(payload: Payload) -> Any:
    return to_jsonable_python(payload.model_dump(), bytes_mode="base64", serialize_unknown=True)


def _fields_record(payload: Payload) -> dict[str, Any]:
    return {"model": type(payload).__name__, "payload": _fields(payload)}


def _laid_out(payload: Payload, model: type[Payload]) -> str:
    """A model's own ``__str__``; without one its fields, in a line where none of them is nested."""
    kind = type(payload)
    if kind.__str__ is not Payload.__str__:
        return str(payload)
    fields = _given(_fields(payload))
    return _said(fields if kind is model else {kind.__name__: fields})


def _given(value: Any) -> Any:
    """Without the fields that are empty."""
    if isinstance(value, dict):
        kept = {name: _given(one) for name, one in value.items()}
        return {name: one for name, one in kept.items() if one not in (None, "", [], {})}
    return [_given(one) for one in value] if isinstance(value, list) else value


def _said(value: Any) -> str:
    match value:
        case dict() if value:
            nested = {name for name, one in value.items() if isinstance(one, dict | list)}
            return ("\n" if nested else ", ").join(
                f"{name}:\n{_indented(_said(one))}" if name in nested else f"{name}: {_said(one)}"
                for name, one in value.items()
            )
        case list() if value:
            return "\n".join("- " + _indented(_said(one)).lstrip() for one in value)
        case str():
            return value
        case None | dict() | list():
            return "-"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)


def _indented(text: str) -> str:
    return textwrap.indent(text, "  ")
