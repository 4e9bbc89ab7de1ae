"""The journal: in order, bounded, for two processes, on full disks and damaged files."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.cups.account import CHECKOUT
from workers.cups.events.journal import VERSION, Journal, JournalFault, JournalFull
from workers.cups.events.keeping import Keeping
from workers.cups.file import Place


def texts(journal: Journal) -> list[bytes]:
    return [row.data for row in journal.waiting(1000)]


def numbered(*numbers: int) -> list[bytes]:
    return [str(number).encode() for number in numbers]


def test_what_was_put_in_comes_out_in_order(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.add("a", numbered(1, 2))
        journal.add("b", numbered(3), {"torn": 2})
        rows = journal.waiting(10)
        assert [(row.run, row.data) for row in rows] == [("a", b"1"), ("a", b"2"), ("b", b"3")]
        assert [row.data for row in journal.waiting(2)] == numbered(1, 2)
        assert journal.length == 3
        assert journal.counts() == {"read": 3, "torn": 2}
        journal.take(rows[1].id)
        journal.done(rows[1].id, {"position": "x"}, {"sent": 2})
        assert texts(journal) == numbered(3)
        assert journal.fact("position") == "x"
        assert journal.in_hand == rows[1].id
    with Journal(tmp_path / "journal") as journal:
        assert texts(journal) == numbered(3)
        assert journal.counts() == {"read": 3, "sent": 2, "torn": 2}


def test_facts_are_kept_changed_and_forgotten(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.keep(sent_at=1.5, pid=7, trouble="x")
        journal.keep(trouble=None, pid=8)
        assert journal.facts() == {"sent-at": 1.5, "pid": 8}
        assert journal.facts("p") == {"pid": 8}
        assert journal.fact("trouble") is None
        journal.count(sent=2)
        journal.count(sent=3, lost=0)
        assert journal.counts() == {"sent": 5}


def test_beyond_its_bound_the_oldest_are_dropped_and_counted(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", most=100) as journal:
        journal.add("a", numbered(*range(70)))
        journal.add("a", numbered(*range(70, 130)))
        assert texts(journal) == numbered(*range(30, 130))
        assert journal.counts() == {"read": 130, "dropped": 30}
        journal.add("a", numbered(*range(130, 400)))
        assert texts(journal) == numbered(*range(300, 400))
        assert journal.counts()["dropped"] == 300


def test_what_is_being_sent_is_not_dropped(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", most=100) as journal:
        journal.add("a", numbered(*range(100)))
        journal.take(journal.waiting(10)[-1].id)
        journal.add("a", numbered(*range(100, 150)))
        assert texts(journal) == numbered(*range(10), *range(60, 150))


def test_numbers_of_a_later_journal_are_higher(tmp_path: Path) -> None:
    ids = []
    for name in ("one", "two"):
        with Journal(tmp_path / name) as journal:
            journal.add("a", numbered(1, 2, 3))
            ids += [row.id for row in journal.waiting(10)]
    assert ids == sorted(set(ids))


def test_a_number_is_never_given_again(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.add("a", numbered(1))
        first = journal.waiting(1)[0].id
        journal.done(first)
    with Journal(tmp_path / "journal") as journal:
        journal.add("a", numbered(2))
        assert journal.waiting(1)[0].id > first


def test_two_may_begin_it_at_once(tmp_path: Path) -> None:
    faults: list[BaseException] = []

    def begin(number: int) -> None:
        try:
            with Journal(tmp_path / "journal") as journal:
                journal.add(str(number), numbered(number))
        except JournalFault as error:
            faults.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    with Journal(tmp_path / "journal") as journal:
        assert sorted(texts(journal)) == numbered(*range(8))


_WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from workers.cups.events.journal import Journal
journal = Journal(Path(sys.argv[2]))
for number in range(10_000_000):
    journal.add("w", [str(number).encode()])
    print(number, flush=True)
"""


def test_what_was_put_in_survives_the_death_of_who_put_it_in(tmp_path: Path) -> None:
    words = [sys.executable, "-c", _WRITER, str(CHECKOUT), str(tmp_path / "journal")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(200)]
        writer.kill()
        said += writer.stdout.readlines()
    last = int(next(line for line in reversed(said) if line.endswith("\n")))
    with Journal(tmp_path / "journal") as journal:
        assert texts(journal)[: last + 1] == numbered(*range(last + 1))[:1000]


def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.add("a", numbered(1, 2))
        with journal.change() as file:
            (pages,) = file.execute("PRAGMA page_count").fetchone()
        journal._file.execute(f"PRAGMA max_page_count = {pages + 1}")
        with pytest.raises(JournalFull, match="full"):
            journal.add("a", [b"x" * 100_000])
        assert texts(journal) == numbered(1, 2)
        journal._file.execute("PRAGMA max_page_count = 100000")
        journal.add("a", numbered(3))
        assert texts(journal) == numbered(1, 2, 3)


def test_a_file_that_is_none_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"this is no database at all" * 400)
    with Journal(path) as journal:
        journal.add("a", numbered(1))
        assert journal.counts() == {"damaged": 1, "read": 1}
    assert [one.name for one in tmp_path.glob("journal.damaged-*")]


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.add("a", [b"x" * 3000] * 50)
    data = bytearray(path.read_bytes())
    data[4096 : len(data) - 4096] = os.urandom(len(data) - 8192)
    path.write_bytes(data)
    with Journal(path) as journal:
        assert journal.length == 0
        assert journal.counts() == {"damaged": 1}


def test_a_journal_of_a_newer_tympan_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with sqlite3.connect(path) as file:
        file.execute(f"PRAGMA user_version = {VERSION + 1}")
    file.close()
    with pytest.raises(JournalFault, match="newer Tympan"):
        Journal(path)


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(JournalFault, match="tympan cups install"):
        Journal(tmp_path / "nowhere" / "journal")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "journal").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalFault):
        Journal(tmp_path / "journal")
    assert not (tmp_path / "elsewhere").exists()


def test_its_mode_is_within_that_of_its_folder(tmp_path: Path) -> None:
    for name, of_folder, expected in (("a", 0o770, 0o660), ("b", 0o700, 0o600)):
        folder = tmp_path / name
        folder.mkdir(mode=of_folder)
        folder.chmod(of_folder)
        with Journal(folder / "journal"):
            assert (folder / "journal").stat().st_mode & 0o777 == expected


def _remove(spool: Path) -> None:
    for path in spool.glob("journal*"):
        path.unlink()


async def test_keeping_opens_a_journal_that_was_put_aside_anew(tmp_path: Path) -> None:
    place = Place(tmp_path)
    async with Keeping(place) as keeping:
        await keeping.do(lambda journal: journal.add("a", numbered(1)))
        _remove(tmp_path)
        await keeping.do(lambda journal: journal.add("a", numbered(2)))
        assert await keeping.do(texts) == numbered(2)


async def test_keeping_tells_faults_and_goes_on(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    async with Keeping(Place(spool)) as keeping:
        with pytest.raises(JournalFault):
            await keeping.do(texts)
        spool.mkdir()
        assert await keeping.do(texts) == []
