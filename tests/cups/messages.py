"""Messages of a cupsd, as it writes them to a notifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workers.cups.cupsd.ipp import HEADER, Attributes, Group, Tag, Value, encode

CAPTURED = Path(__file__).with_name("captured.bin")
"""What a cupsd 2.4.2 wrote: queues made, jobs, a restart, a queue deleted; 28 events in a row."""
SECONDS = 1_795_000_000


def event_attributes(
    sequence: int, name: str = "printer-state-changed", *, subscription: int = 1, **given: Any
) -> dict[str, tuple[int, Any]]:
    """Of an event; ``given`` by the names of :class:`workers.cups.cupsd.event.Event`."""
    attributes: dict[str, tuple[int, Any]] = {
        "notify-charset": (Tag.CHARSET, "utf-8"),
        "notify-natural-language": (Tag.LANGUAGE, "en-us"),
        "notify-subscription-id": (Tag.INTEGER, subscription),
        "notify-sequence-number": (Tag.INTEGER, sequence),
        "notify-subscribed-event": (Tag.KEYWORD, name),
        "printer-up-time": (Tag.INTEGER, given.pop("seconds", SECONDS)),
        "notify-text": (Tag.TEXT, given.pop("text", "")),
    }
    if name.startswith(("printer-", "job-")):
        printer = given.pop("printer", "laser-3")
        attributes |= {
            "printer-name": (Tag.NAME, printer),
            "printer-state": (Tag.ENUM, given.pop("printer_state", 3)),
            "printer-state-reasons": (Tag.KEYWORD, given.pop("printer_reasons", ["none"])),
            "printer-is-accepting-jobs": (Tag.BOOLEAN, given.pop("is_accepting", True)),
        }
    if name.startswith("job-"):
        attributes |= {
            "notify-job-id": (Tag.INTEGER, given.pop("job", 1)),
            "job-state": (Tag.ENUM, given.pop("job_state", 5)),
            "job-name": (Tag.NAME, given.pop("title", "report")),
            "job-state-reasons": (Tag.KEYWORD, given.pop("job_reasons", ["job-printing"])),
            "job-impressions-completed": (Tag.INTEGER, given.pop("pages", 0)),
        }
    if "user_data" in given:
        attributes["notify-user-data"] = (Tag.OCTETS, given.pop("user_data"))
    assert not given, given
    return attributes


def as_event(attributes: Attributes) -> bytes:
    """A message as cupsd writes it: without a code and without a request's number."""
    return encode(0, 0, [(Tag.EVENT, attributes)])


def event_message(sequence: int, name: str = "printer-state-changed", **given: Any) -> bytes:
    """One event."""
    return as_event(event_attributes(sequence, name, **given))


def group_of(attributes: Attributes) -> Group:
    """The same attributes as they are read."""
    values: dict[str, list[Value]] = {}
    for name, (_, given) in attributes.items():
        values[name] = list(given) if isinstance(given, list) else [given]  # type: ignore[list-item]
    return Group(Tag.EVENT, values)


HEADER_OF_EVENT = HEADER.pack(2, 0, 0, 0) + bytes([Tag.EVENT])
