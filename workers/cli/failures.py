"""Failures: one readable sentence, what to do, and an exit status."""

from __future__ import annotations

import json
import re
import sys

import click

from broker import errors, results
from broker.errors import TympanError
from broker.results import Result
from workers.embedded import EmbeddedRedisError

DONE = 0
USAGE = 2
FAILED = 3
NO_RESPONSE = 4
UNREACHABLE = 5

TOLD = (click.ClickException, TympanError, EmbeddedRedisError)
"""What ends a command with a sentence; anything else is a fault of the program."""
NOT_STARTED = Result("REDIS_NOT_STARTED", results.UNEXPECTED.hresult)
"""A private redis-server did not come up, or went down."""

ADVICE: tuple[tuple[type[TympanError], str], ...] = (
    (errors.NotificationFailure, "the listeners read too slowly: send again later"),
    (errors.MaxChannelCountExceeded, "close some: `tympan channels` lists them"),
    (errors.MaxRegistrationCountExceeded, "end some: `tympan registrations` lists them"),
    (errors.OutcomeUnknown, "`tympan channels` and `tympan grants` show whether it happened"),
    (errors.SessionLapsed, "run the command again"),
    (errors.PayloadInvalid, "nothing was sent; with the type's GUID as --type any bytes may be"),
)
"""What to do, where the error's own sentence does not say it to a person at a terminal."""


class Unknown(TympanError):
    """Something was named that nobody knows."""

    result = results.INVALID_HANDLE


def status_of(error: Exception) -> int:
    """The exit status for an error."""
    match error:
        case click.ClickException() | errors.InvalidArgument():
            return USAGE
        case errors.ResponseTimeout():
            return NO_RESPONSE
        case errors.RedisUnreachable() | errors.OutcomeUnknown():
            return UNREACHABLE
        case _:
            return FAILED


def code_of(error: Exception) -> Result:
    """The name and HRESULT of an error; one without a code of its own is named after its class."""
    if isinstance(error, click.ClickException):
        return results.INVALID_ARGUMENT
    if isinstance(error, EmbeddedRedisError):
        return NOT_STARTED
    result = error.result if isinstance(error, TympanError) else results.UNEXPECTED
    if result != results.UNEXPECTED:
        return result
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).upper()
    return Result(words, result.hresult)


def sentence(error: Exception) -> str:
    """What happened, and what to do."""
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    advice = next((advice for kind, advice in ADVICE if isinstance(error, kind)), None)
    return f"{text}; {advice}" if advice else text


def error_record(error: Exception) -> dict[str, str]:
    """An error for programs."""
    code = code_of(error)
    return {
        "error": code.name,
        "hresult": f"0x{code.hresult:08X}",
        "message": sentence(error),
    }


def report(error: Exception, *, as_json: bool, command: str = "tympan") -> int:
    """Tell people on standard error, and programs on standard output; returns the exit status.

    ``command``: what was typed, as far as it was understood.
    """
    status, code, text = status_of(error), code_of(error), sentence(error)
    if as_json:
        print(json.dumps(error_record(error)), flush=True)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        command = error.ctx.command_path
    if status == USAGE:
        print(f"{command}: {text}\nHow to use it: {command} --help", file=sys.stderr)
    else:
        print(f"tympan: {text} [{code}]", file=sys.stderr)
    return status
