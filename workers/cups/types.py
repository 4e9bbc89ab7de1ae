"""What a CUPS host tells the farm, and what it asks: the payloads of five notification types.

Readers ignore fields that they do not know. ``event`` names the event of cupsd that a payload was
made of (``host/epoch/subscription/sequence``), or what else it came from. A payload that may have
been sent before, by a bridge that died then, is marked ``repeated`` and has the same ``event``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from broker.payload import Payload

PRINTER_STATUS = "3a4f8c52-6f4e-4a3b-9d55-1c0e8f7ab101"
JOB_STATUS = "3a4f8c52-6f4e-4a3b-9d55-1c0e8f7ab102"
PRINTER_CHANGED = "3a4f8c52-6f4e-4a3b-9d55-1c0e8f7ab103"
SERVER_STATUS = "3a4f8c52-6f4e-4a3b-9d55-1c0e8f7ab104"
JOB_QUESTION = "3a4f8c52-6f4e-4a3b-9d55-1c0e8f7ab105"


def _in_utc(at: datetime) -> datetime:
    """Raises ValueError for a year that no clock of these has, and that programs trip over."""
    if not 1900 <= at.year <= 9000:
        raise ValueError(f"the year is {at.year}")
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


Moment = Annotated[datetime, AfterValidator(_in_utc)]
"""A time; one without a zone is UTC's."""
PrinterState = Literal["idle", "processing", "stopped"]
Severity = Literal["report", "warning", "error"]
JobState = Literal["pending", "held", "processing", "stopped", "canceled", "aborted", "completed"]
Choice = Literal["continue", "cancel", "hold"]
Why = Literal["answered", "resolved", "job-over", "timed-out", "withdrawn"]


class Told(Payload):
    """What all of them have."""

    host: str
    """ServerName of the cupsd."""
    event: str
    at: Moment
    """When it happened, UTC; of cupsd's events in whole seconds."""
    repeated: bool = False


class Supply(BaseModel):
    """One thing that a printer uses up, or fills."""

    model_config = ConfigDict(frozen=True)

    name: str
    level: int | None = Field(default=None, ge=0, le=100)
    """Per cent; None where the printer does not know."""
    kind: str = ""
    """As IPP has it: ``toner``, ``ink-cartridge``, ``waste-toner``."""


class PrinterStatus(Told, type=PRINTER_STATUS):
    """The state of a printer as it is now (``cups-printer``)."""

    printer: str
    """The queue's name, as CUPS has it."""
    state: PrinterState
    reasons: list[str] = Field(default_factory=list)
    """State reasons in force, each with its severity suffix where it has one; noise left out."""
    added: list[str] = Field(default_factory=list)
    """Those of ``reasons`` that the status before did not have."""
    cleared: list[str] = Field(default_factory=list)
    """Those that the status before had."""
    severity: Severity = "report"
    """That of the worst reason."""
    accepting: bool = True
    text: str = ""
    supplies: list[Supply] = Field(default_factory=list)
    """As the printer itself told; empty where it was not asked."""
    source: Literal["cups", "printer"] = "cups"


class JobStatus(Told, type=JOB_STATUS):
    """The state of a job as it is now (``cups-job``)."""

    printer: str
    job: int
    title: str = ""
    owner: str
    state: JobState
    reasons: list[str] = Field(default_factory=list)
    pages: int = 0
    """Impressions completed."""
    text: str = ""
    is_over: bool = False
    """Whether nothing more becomes of it: canceled, aborted or completed."""


class PrinterChanged(Told, type=PRINTER_CHANGED):
    """A queue was changed, not its state (``cups-configuration``)."""

    printer: str
    what: Literal[
        "added",
        "modified",
        "deleted",
        "accepting",
        "rejecting",
        "queue-order",
        "finishings",
        "media",
    ]
    text: str = ""


class ServerStatus(Told, type=SERVER_STATUS):
    """A cupsd started or ended, or some of its events cannot be told any more (``cups-server``)."""

    what: Literal["started", "restarted", "stopped", "events-lost", "bridge-started"]
    text: str = ""
    first: int | None = None
    """Of events that were lost: their first sequence number, where it is known."""
    last: int | None = None
    count: int | None = None
    """How many, where it is known."""
    why: str = ""


class JobAnswer(Payload, type=JOB_QUESTION):
    """The answer to a :class:`JobQuestion`."""

    choice: str
    """One of its ``choices``; another one is told so, and the question stays with who gave it."""
    note: str = ""


class JobQuestion(Told, type=JOB_QUESTION, response=JobAnswer):
    """A question about a job, to its owner and to administrators (``cups-question``)."""

    printer: str
    job: int
    title: str = ""
    owner: str
    question: str
    """Its name in the settings of the host."""
    text: str
    reasons: list[str] = Field(default_factory=list)
    choices: list[Choice]
    until: Moment
    """When ``otherwise`` is done, UTC."""
    otherwise: Choice
    again: bool = False
    """Whether it was asked before: its bridge was started anew."""


class QuestionOver(Payload, type=JOB_QUESTION):
    """Why a question was closed."""

    ends_dialog: ClassVar[bool] = True

    why: Why
    choice: Choice | None = None
    """What becomes of the job, where that was decided."""
    by: str = ""
    """Who answered, where somebody did."""
