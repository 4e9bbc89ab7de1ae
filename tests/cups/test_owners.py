"""Owners: whose jobs are, from a cupsd that tells it one way or another."""

from __future__ import annotations

from typing import Any

import pytest

from workers.cups.cupsd.client import Forbidden, IppError, JobFacts, Misspoken, Refused
from workers.cups.events.owners import TOGETHER, Owners


class Cups:
    """One that tells of single jobs only."""

    user = "root"

    def __init__(self, error: IppError) -> None:
        self.error = error

    async def jobs(self, first: int, many: int) -> list[JobFacts]:  # noqa: ARG002
        raise self.error

    async def job(self, job: int) -> JobFacts:
        return JobFacts(job, "q", f"user{job}", "", "pending", (), "", 0, 1, "")


@pytest.mark.parametrize(
    "error", [Forbidden("no", 403), Refused("busy", 0x0507), Misspoken("33 MB and more")]
)
async def test_a_cupsd_that_lists_no_jobs_is_asked_for_each(error: IppError) -> None:
    cups: Any = Cups(error)
    owners = Owners(cups)
    jobs = range(1, TOGETHER + 2)
    await owners.find(jobs)
    assert [owners.of(job).owner for job in jobs] == [f"user{job}" for job in jobs]
