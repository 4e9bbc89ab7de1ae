"""A help desk that answers printers by policy, and keeps a list of supplies to order."""

from pathlib import Path

from broker import BIDIRECTIONAL, Name, Payload
from workers import Decline, Worker

PAPER = "7c1d8a50-52c1-4b8e-9a55-0f3a1c6f2a01"
SUPPLY = "7c1d8a50-52c1-4b8e-9a55-0f3a1c6f2a02"


class Answer(Payload, type=PAPER):
    proceed: bool


class OutOfPaper(Payload, type=PAPER, response=Answer):
    tray: int
    question: str = "Continue on A3?"


class SupplyLow(Payload, type=SUPPLY):
    supply: str
    percent: int


worker = Worker("help-desk", user="helpdesk")


@worker.listen(r"\\print01", OutOfPaper, style=BIDIRECTIONAL, printers=True)
async def out_of_paper(question: OutOfPaper) -> Answer:
    if question.tray == 1:
        raise Decline  # the bypass tray: somebody has to go there
    return Answer(proceed=True)


@worker.listen(r"\\print01", SupplyLow, printers=True)
def supply_low(notice: SupplyLow, printer: Name) -> None:
    with Path("orders.txt").open("a") as orders:
        print(f"{printer} {notice.supply} {notice.percent}%", file=orders)
