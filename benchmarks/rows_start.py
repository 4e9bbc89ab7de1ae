"""The row of starting up."""

from __future__ import annotations

from functools import partial
from statistics import median

from benchmarks.contest import Figures, Goal, Line, Terms, hold, limit
from benchmarks.stage import Stage
from benchmarks.start_up import BROKER, HELP, IN_ORDER, NOTHING, WHOLE, StartUp

ROUNDS = 10
"""Medians of so many, whatever the terms say: each takes a fraction of a second."""


async def start_up(_stage: Stage, _terms: Terms) -> list[Line]:
    """``tympan --help``, an import of ``broker``, all it needs to connect, and whose that is."""
    with StartUp() as interpreter:

        async def timed(code: str) -> Figures:
            return {"ms": await interpreter.milliseconds(code)}

        async def taken_apart() -> Figures:
            return {"share": await interpreter.share(IN_ORDER)}

        outcome = await hold(
            {
                "tympan --help": partial(timed, HELP),
                "import broker": partial(timed, BROKER),
                "all that connecting needs": partial(timed, WHOLE),
                "python -c pass": partial(timed, NOTHING),
                "shares": taken_apart,
            },
            ROUNDS,
        )
    share = median(outcome.values("shares", "share"))
    return [
        outcome.line(
            "tympan --help", "ms", "ms", limit(150, "ms"),
            tympan="tympan --help", against="python -c pass",
        ),
        outcome.line(
            "import broker", "ms", "ms", limit(120, "ms"),
            tympan="import broker", against="python -c pass",
        ),
        outcome.line(
            "import broker and all that connecting needs", "ms", "ms", None,
            tympan="all that connecting needs", against="python -c pass",
        ),
        Line(
            "of all that connecting needs, redis and pydantic", "%",
            Goal("more than", 50, "figure", "%"), 100 * share,
        ),
    ]  # fmt: skip
