"""Questions: what the settings have asked about which jobs, and in what words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from string import Formatter
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from broker.errors import InvalidSettings
from broker.names import fold
from workers.cups.cupsd.state import severity, stem
from workers.cups.dialogs import reasons as registry
from workers.cups.types import Choice

BEFORE = "before"
"""``when``: before the job is printed."""
BLOCK_FOR = 60.0
"""Seconds for which a question before printing keeps the queue waiting."""
LONGEST_TIME_OUT = 30 * 86_400.0
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?")
_REASON = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,120}[a-z0-9])?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?i?)B?", re.IGNORECASE)
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SHOWN = 200
"""Characters of a title that a text shows."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job, as its backend is told of it."""

    number: int
    mark: str
    """What tells it from another job of this number, after a cupsd began to count anew."""
    printer: str
    owner: str
    title: str = ""
    copies: int = 1
    options: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    """Bytes; None where nobody knows yet."""


def _listed(value: object) -> object:
    """One word stands for a list of one."""
    return (value,) if isinstance(value, str) else value


def _bytes(value: object) -> object:
    """``10 MB`` is 10,000,000 bytes, and ``10 MiB`` 10,485,760."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{value!r} is no size: write 500 kB, 10 MB, or a number of bytes")
    unit = found[2].lower()
    return int(float(found[1]) * (1024 if unit.endswith("i") else 1000) ** _UNITS[unit.strip("i")])


Words = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
Size = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]


class Question(BaseModel):
    """One ``[[question]]`` of the settings. Times are seconds; globs are those of a shell."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    """What its answers are remembered under."""
    when: Words
    """``before``, or the state reasons of the printer of which one makes it come up during the job:
    ``media-empty`` whatever its severity, ``media-empty-error`` only as an error."""
    text: str = Field(min_length=1, max_length=2000)
    """What people read, with the fields of :data:`FIELDS` in braces."""
    printers: Words = ("*",)
    """Globs on the names of queues."""
    users: Words = ("*",)
    """Globs on the owners of jobs."""
    copies_over: int | None = Field(default=None, ge=0)
    size_over: Size | None = None
    options: Mapping[str, Words] = Field(default_factory=dict)
    """Options that the job must have, all of them: globs on their values."""
    choices: tuple[Choice, ...] = Field(default=("continue", "cancel", "hold"), min_length=1)
    block_for: float | None = Field(default=None, ge=0)
    """How long the queue waits; then the job is held, the queue goes on, and the answer releases or
    cancels the job. Default: 60 before printing. During it there is none: the printer waits
    anyhow, and a job that is held by then begins with its first page again."""
    time_out: float = Field(default=3600.0, ge=1, le=LONGEST_TIME_OUT)
    """How long the question stands; then ``otherwise`` is done."""
    otherwise: Choice = "hold"

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(
                f"{value!r} is no name: 1 to 64 lower-case letters, digits, dots, dashes and "
                "underscores"
            )
        return value

    @field_validator("when")
    @classmethod
    def _are_moments(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if BEFORE in value and len(value) > 1:
            raise ValueError(
                f"{BEFORE!r} stands alone: ask during the job by a question of its own"
            )
        for word in value:
            if not _REASON.fullmatch(word) or word == "none":
                raise ValueError(
                    f"{word!r} is neither {BEFORE!r} nor a state reason such as 'media-empty'"
                )
            if word != BEFORE and registry.is_like(word, BEFORE) and not registry.is_known(word):
                raise ValueError(f"{word!r} is no state reason; did you mean {BEFORE!r}?")
        return value

    @field_validator("text")
    @classmethod
    def _is_template(cls, value: str) -> str:
        known = ", ".join(f"{{{name}}}" for name in FIELDS)
        try:
            parts = list(Formatter().parse(value))
        except ValueError as error:
            raise ValueError(
                f"{error}: braces hold one of {known}; write {{{{ and }}}} for braces themselves"
            ) from None
        for _, name, form, conversion in parts:
            if name is not None and (name not in FIELDS or form or conversion):
                raise ValueError(f"{{{name}}} is no field; there are {known}")
        return value

    @field_validator("choices")
    @classmethod
    def _are_different(cls, value: tuple[Choice, ...]) -> tuple[Choice, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each choice is offered once")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Question:
        if self.block_for is not None and self.block_for > self.time_out:
            raise ValueError("block_for must not be above time_out, by which the question is over")
        return self

    @property
    def is_before(self) -> bool:
        """Whether it is asked before the job is printed."""
        return self.when == (BEFORE,)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What of ``when`` may never come, a sentence each."""
        return () if self.is_before else tuple(filter(None, map(registry.doubt, self.when)))

    @property
    def blocks_for(self) -> float:
        """Seconds for which the queue waits; ``time_out`` where nothing else ends that."""
        if self.block_for is not None:
            return self.block_for
        return min(BLOCK_FOR, self.time_out) if self.is_before else self.time_out

    def concerns(self, job: Job) -> bool:
        """Whether it is about such a job. One whose size nobody knows is not too large."""
        return (
            _is_like(fold(job.printer), self.printers)
            and _is_like(fold(job.owner), self.users)
            and (self.copies_over is None or job.copies > self.copies_over)
            and (self.size_over is None or (job.size or 0) > self.size_over)
            and all(
                name.lower() in job.options and _is_like(fold(job.options[name.lower()]), globs)
                for name, globs in self.options.items()
            )
        )

    def raised_by(self, reasons: Iterable[str]) -> tuple[str, ...]:
        """Those of a printer's state reasons that bring it up."""
        return tuple(
            reason
            for reason in reasons
            if stem(reason) in self.when or f"{stem(reason)}-{severity(reason)}" in self.when
        )

    def text_for(self, job: Job, reasons: Iterable[str] = ()) -> str:
        """What people read about this job."""
        return self.text.format(**{name: make(job, reasons) for name, make in FIELDS.items()})


def _shown(text: str) -> str:
    """Of a job's title, or whatever else anybody may have written: one line of it."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _size(job: Job, _reasons: Iterable[str]) -> str:
    size = float(job.size or 0)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


FIELDS: Mapping[str, Any] = {
    "printer": lambda job, _: _shown(job.printer),
    "job": lambda job, _: str(job.number),
    "title": lambda job, _: _shown(job.title) or "untitled",
    "owner": lambda job, _: _shown(job.owner),
    "copies": lambda job, _: str(job.copies),
    "size": _size,
    "reasons": lambda _, reasons: ", ".join(sorted({stem(reason) for reason in reasons})),
}
"""What a text may name."""


def _is_like(text: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(text, fold(glob)) for glob in globs)


def parse_questions(tables: object) -> tuple[Question, ...]:
    """The questions of ``[[question]]`` tables, in order.

    Raises InvalidSettings, which names each question that is off, and says how.
    """
    if not isinstance(tables, list | tuple):
        raise InvalidSettings("question: write each as a table of its own, headed [[question]]")
    found: list[Question] = []
    faults: list[str] = []
    for number, table in enumerate(tables, 1):
        if isinstance(table, Question):
            found.append(table)
            continue
        name = table.get("name") if isinstance(table, Mapping) else None
        which = f"question {number} ({name!r})" if isinstance(name, str) else f"question {number}"
        try:
            found.append(Question.model_validate(table))
        except ValidationError as error:
            faults += [f"{which}: {fault}" for fault in _faults(error)]
    names = [question.name for question in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    faults += [f"question {name!r}: two of this name; answers go by it" for name in twice]
    if faults:
        raise InvalidSettings("; ".join(faults))
    return tuple(found)


def _faults(error: ValidationError) -> Sequence[str]:
    """What a schema found, a sentence each."""
    said = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            known = ", ".join(Question.model_fields)
            message = f"there is no such setting; known: {known}"
        said.append(f"{where}: {message}" if where else message)
    return said
