"""``tympan cups install`` and ``uninstall``, in a folder that stands for a host; no privileges."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cups.account import account, demoted, interpreter
from tests.cups.test_answers import ASKED
from workers.cli import main
from workers.cups.dialogs.answers import Answers, JobKey, Key
from workers.cups.installation import install, placing, service, unit
from workers.cups.installation.host import Host, NotInstalled
from workers.cups.installation.install import Installation
from workers.cups.installation.launchers import Launcher, Unlaunchable
from workers.cups.installation.placing import Folder, Ownership, Standing
from workers.cups.printing import held_note
from workers.cups.settings import HostSettings

DONE, USAGE, FAILED = 0, 2, 3
Tympan = Callable[..., list[dict[str, Any]]]

CUPS_FILES = f"""\
# where things are
ServerBin /usr/lib/cups
User {account().pw_name}
"""
CUPSD = """\
LogLevel warn
ServerName print01
Listen *:631
Listen /run/cups/cups.sock
<Location />
  Listen 1.2.3.4:5
</Location>
"""
PROFILE = "# somebody's\n/srv/x r,\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with CUPS, systemd and AppArmor, as their packages leave it."""
    for folder in (
        *("usr/lib/cups/notifier", "usr/lib/cups/backend", "etc/systemd/system", "var/spool"),
        *("etc/cups", "etc/apparmor.d/local"),
    ):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/cups/cups-files.conf").write_text(CUPS_FILES)
    (tmp_path / "etc/cups/cupsd.conf").write_text(CUPSD)
    (tmp_path / "etc/apparmor.d/usr.sbin.cupsd").write_text("/usr/sbin/cupsd { }\n")
    (tmp_path / "etc/apparmor.d/local/usr.sbin.cupsd").write_text(PROFILE)
    return tmp_path


@pytest.fixture
def tympan(root: Path, capsys: pytest.CaptureFixture[str]) -> Tympan:
    """``tympan cups …`` on that host: the records that it tells."""

    def run(*words: str, ends: int = DONE) -> list[dict[str, Any]]:
        python = ["--python", str(interpreter())] if words[0] == "install" else []
        status = main(["cups", *words, "--root", str(root), "--json", *python])
        told = capsys.readouterr()
        assert status == ends, told.err
        return [json.loads(line) for line in told.out.splitlines()]

    return run


def tree(root: Path) -> dict[str, tuple[int, str]]:
    """Everything below, with modes and texts."""

    def facts(path: Path) -> tuple[int, str]:
        text = ""
        if path.is_symlink():
            text = str(path.readlink())
        elif path.is_file():
            text = path.read_text()
        return stat.S_IMODE(path.lstat().st_mode), text

    return {str(path.relative_to(root)): facts(path) for path in sorted(root.rglob("*"))}


def owned(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def test_everything_is_placed_with_its_owner_and_mode(root: Path, tympan: Tympan) -> None:
    told = tympan("install", "--url", "redis://redis.example/0", "--server", r"\\print01")
    assert {one["what"] for one in told if one["did"] == "placed"} == {
        *("settings", "spool", "notifier", "backend", "AppArmor", "service")
    }
    me, who = (os.geteuid(), os.getegid()), account()
    assert owned(root / "usr/lib/cups/notifier/tympan") == (*me, 0o755)
    assert owned(root / "usr/lib/cups/backend/tympan") == (*me, 0o755)
    assert owned(root / "etc/tympan/cups.toml") == (me[0], who.pw_gid, 0o640)
    assert owned(root / "var/spool/tympan") == (who.pw_uid, who.pw_gid, 0o750)
    settings = HostSettings.read(root / "etc/tympan/cups.toml")
    assert (settings.server, settings.cups) == ("print01", "/run/cups/cups.sock")
    assert settings.redis.url == "redis://redis.example/0"
    assert settings.spool == Path("/var/spool/tympan")


def test_the_settings_in_comments_are_settings(root: Path, tympan: Tympan) -> None:
    tympan("install")
    path = root / "etc/tympan/cups.toml"
    _, *lines = path.read_text().split("\n\n", 1)[1].splitlines()
    bare = [line.removeprefix("# ") for line in lines]
    path.write_text("\n".join(bare), encoding="utf-8")
    settings = HostSettings.read(path)
    assert [question.name for question in settings.question] == ["paper"]
    assert settings.redis.username == "print01"
    assert settings.max_events == 100_000


def test_a_dry_run_says_the_same_and_does_nothing(root: Path, tympan: Tympan) -> None:
    before = tree(root)
    said = tympan("install", "--dry-run")
    assert tree(root) == before
    assert tympan("install") == said


def test_it_can_be_done_again(root: Path, tympan: Tympan) -> None:
    tympan("install")
    before = tree(root)
    assert {one["did"] for one in tympan("install")} == {"there", "skipped"}
    assert tree(root) == before


def test_what_is_ours_and_wrong_is_mended(root: Path, tympan: Tympan) -> None:
    tympan("install")
    before = tree(root)
    notifier = root / "usr/lib/cups/notifier/tympan"
    notifier.write_text(notifier.read_text().replace("-IS", "-I"))
    (root / "usr/lib/cups/backend/tympan").chmod(0o777)
    (root / "var/spool/tympan").chmod(0o777)
    (root / "etc/systemd/system/tympan-cups.service").chmod(0o666)
    told = {one["what"]: one["did"] for one in tympan("install") if one["did"] != "skipped"}
    assert told == {
        "settings": "there",
        "spool": "mended",
        "notifier": "replaced",
        "backend": "replaced",
        "AppArmor": "there",
        "service": "replaced",
    }
    assert tree(root) == before


def test_settings_are_never_overwritten(root: Path, tympan: Tympan) -> None:
    tympan("install")
    path = root / "etc/tympan/cups.toml"
    path.write_text("# mine\n")
    path.chmod(0o666)
    told = tympan("install", "--url", "redis://other/0")
    assert told[0]["did"] == "mended"
    assert path.read_text() == "# mine\n"
    assert owned(path) == (os.geteuid(), account().pw_gid, 0o640)


def test_uninstalling_says_which_jobs_wait_for_an_answer(
    root: Path, tympan: Tympan, capsys: pytest.CaptureFixture[str]
) -> None:
    tympan("install")
    spool = root / "var/spool/tympan"
    answers = Answers(spool / "answers", "print01")
    for number in (7, 8):
        answers.open(replace(ASKED, key=Key(JobKey(number, "its mark"), "paper")))
    answers.end(JobKey(8, "its mark"), 1.0)
    answers.close()
    held_note.leave(spool, 9, "its mark")
    main(["cups", "uninstall", "--root", str(root)])
    told = capsys.readouterr().err
    for job in (7, 9):
        assert f"job {job} waits for an answer" in told
        assert f"`lp -i {job} -H resume` prints it" in told
    assert "job 8" not in told


@pytest.mark.parametrize("option", ["--spool", "--settings", "--python", "--server-bin"])
def test_a_path_from_here_is_refused(
    root: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(root)
    assert main(["cups", "install", "--root", str(root), option, "here/it"]) == USAGE
    said = capsys.readouterr().err
    assert f"here/it does not begin with a slash: write {Path.cwd()}/here/it" in said
    assert tree(root) == before


@pytest.mark.parametrize("what", ["file", "link", "folder"])
def test_what_is_somebody_elses_is_left_alone(root: Path, tympan: Tympan, what: str) -> None:
    path = root / "usr/lib/cups/notifier/tympan"
    match what:
        case "file":
            path.write_text("#!/bin/sh\n")
        case "link":
            path.symlink_to("/bin/true")
        case _:
            path.mkdir()
    before = tree(root)
    (told,) = tympan("install", ends=FAILED)
    assert "notifier/tympan is" in told["message"]
    assert "nothing was placed" in told["message"]
    assert tree(root) == before
    tympan("uninstall", "--purge")
    assert tree(root) == before


def test_uninstalling_takes_back_exactly_what_was_placed(root: Path, tympan: Tympan) -> None:
    before = tree(root)
    tympan("install")
    (root / "var/spool/tympan/journal").write_text("events")
    told = {one["what"]: one["did"] for one in tympan("uninstall") if one["did"] != "skipped"}
    kept = {name for name in told if told[name] == "kept"}
    assert kept == {"settings", "spool"}
    left = tree(root)
    assert (root / "var/spool/tympan/journal").exists()
    assert {name for name in left if name not in before} == {
        *("etc/tympan", "etc/tympan/cups.toml", "var/spool/tympan"),
        *("var/spool/tympan/journal", "var/spool/tympan/.tympan"),
    }
    tympan("uninstall", "--purge", "--dry-run")
    assert tree(root) == left
    tympan("uninstall", "--purge")
    assert tree(root) == before
    assert {one["did"] for one in tympan("uninstall", "--purge")} <= {"absent", "skipped"}


def make(root: Path, *names: str) -> None:
    """Files, and folders whose names end with a slash."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text("somebody's")


@pytest.mark.parametrize(
    ("there", "spool", "says"),
    [
        ("srv/data/a", "/srv/data", "srv/data has a in it, and Tympan did not make it"),
        ("var/a", "/var", "var has a, lib, spool in it"),
        ("var/a", "/", " has etc, srv, usr and 1 more in it"),
        ("var/spool/cups/", "/var/spool/cups", "var/spool/cups is a folder of the system"),
        ("var/spool/cups/", "/srv/../var/spool/cups", "is a folder of the system"),
        ("mnt/", "/mnt", "mnt is a folder of the system"),
        ("var/a", "/srv/link", "srv/link is no folder"),
        ("var/a", "/srv/link/lib", "srv/link/lib is a folder of the system"),
        ("srv/data", "/srv/data", "srv/data is no folder"),
        ("var/spool/tympan/journal", "/var/spool/tympan", "var/spool/tympan has journal in it"),
    ],
)
def test_a_folder_that_is_not_tympans_is_no_spool(
    root: Path, tympan: Tympan, there: str, spool: str, says: str
) -> None:
    make(root, there, "var/lib/", "srv/")
    (root / "srv/link").symlink_to("../var")
    before = tree(root)
    (told,) = tympan("install", "--spool", spool, ends=FAILED)
    assert says in told["message"]
    assert told["message"].endswith("; nothing was placed")
    assert tree(root) == before
    told_ones = tympan("uninstall", "--purge", "--spool", spool)
    assert "removed" not in {one["did"] for one in told_ones}
    assert tree(root) == before


@pytest.mark.parametrize("spool", ["/var/spool/tympan", "/srv/tympan", "/var/lib/new"])
def test_a_folder_that_is_empty_or_not_there_becomes_the_spool(
    root: Path, tympan: Tympan, spool: str
) -> None:
    if spool != "/var/lib/new":
        make(root, f"{spool[1:]}/")
    who = account()
    told = {one["what"]: one["did"] for one in tympan("install", "--spool", spool)}
    assert told["spool"] == "placed"
    assert owned(root / spool[1:]) == (who.pw_uid, who.pw_gid, 0o750)
    tympan("uninstall", "--purge")
    assert not (root / spool[1:]).exists()


def test_somebody_elses_empty_folder_is_no_spool(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, 4711, -1)
    other = Ownership(4712, os.getegid(), 0o750)
    folder = Folder("spool", path, "", owned=other, files=(), folders=(), may_adopt=True)
    look = folder.look()
    assert look.standing is Standing.FOREIGN
    assert look.says.startswith(f"belongs to user {path.stat().st_uid}, and Tympan did not make it")


def test_a_mark_that_somebody_else_made_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / ".tympan"
    mark.touch()
    own = Ownership(tmp_path.stat().st_uid, tmp_path.stat().st_gid, 0o700)
    tmp_path.chmod(0o700)
    folder = Folder("spool", tmp_path, "", owned=own, files=(), folders=(), may_adopt=True)
    assert folder.look().standing is Standing.RIGHT
    if os.geteuid() == 0:
        os.chown(mark, 4711, -1)
    monkeypatch.setattr(placing, "owner", lambda: 4712)
    assert folder.look().standing is Standing.FOREIGN
    assert not folder.remove()
    assert mark.exists()


def test_purging_leaves_what_is_not_tympans_and_names_it(root: Path, tympan: Tympan) -> None:
    tympan("install")
    ours = (
        *("journal", "journal-wal", "journal.damaged-17", "journal.damaged-17-shm", "answers"),
        *("answers-shm", "answers.damaged-17", "bell", "counter", "lock", "runs/1-a"),
    )
    foreign = ("journal.txt", "notes", "bell.d/x", "answers-wal.d/journal")
    spool = root / "var/spool/tympan"
    make(spool, *ours, *foreign, "held/1-a")
    (spool / "runs/out").symlink_to(root / "etc")
    before = tree(root / "etc/cups")
    says = "but for what is not Tympan's: answers-wal.d, bell.d, journal.txt, notes"
    for words in (("--dry-run",), ()):
        told = tympan("uninstall", "--purge", *words)
        assert [one["says"] for one in told if one["what"] == "spool"] == [says]
    left = {str(path.relative_to(spool)) for path in spool.rglob("*")}
    assert left == {*foreign, "bell.d", "answers-wal.d"}
    assert tree(root / "etc/cups") == before
    told = tympan("uninstall", "--purge")
    assert [one["did"] for one in told if one["what"] == "spool"] == ["kept"]


def configure(root: Path, text: str) -> None:
    make(root, "etc/tympan/cups.toml")
    (root / "etc/tympan/cups.toml").write_text(text)


def test_what_the_settings_say_counts(root: Path, tympan: Tympan) -> None:
    configure(root, "spool = '/srv/own'\ncups = 'localhost:8631'\n")
    make(root, "var/spool/tympan/.tympan", "var/spool/tympan/journal", "srv/")
    same = ("--spool", "/srv/own", "--cups", "localhost:8631")
    for words in ((), same):
        tympan("install", *words)
        assert "ReadWritePaths=/srv/own\n" in (
            root / "etc/systemd/system/tympan-cups.service"
        ).read_text("utf-8")
        profile = (root / "etc/apparmor.d/local/usr.sbin.cupsd").read_text()
        assert '"/srv/own/**" rwk,\n' in profile
        assert "/var/spool/tympan" not in profile
    tympan("uninstall", "--purge", *same)
    assert not (root / "srv/own").exists()
    assert (root / "var/spool/tympan/journal").exists()


@pytest.mark.parametrize("command", ["install", "uninstall", "status", "wrap"])
@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        ("spool = '/srv/own'", ("--spool", "/srv/other"), "--spool is /srv/other, and "),
        ("", ("--spool", "/srv/other"), "cups.toml says /var/spool/tympan, which counts"),
        ("cups = 'localhost:8631'", ("--cups", "localhost:631"), "says localhost:8631, which"),
    ],
)
def test_an_option_that_contradicts_the_settings_is_refused(
    root: Path, tympan: Tympan, command: str, text: str, words: tuple[str, str], says: str
) -> None:
    configure(root, text)
    before = tree(root)
    purge = {"uninstall": ["--purge"], "wrap": ["laser-3"]}.get(command, [])
    (told,) = tympan(command, *purge, *words, ends=FAILED)
    assert says in told["message"]
    assert tree(root) == before


@pytest.mark.parametrize("command", ["install", "uninstall"])
@pytest.mark.parametrize(
    ("text", "says"), [("spool", "mend it or move it away"), ("spool = 'a'", "begin with a slash")]
)
def test_settings_that_do_not_say_where_the_spool_is_are_told(
    root: Path, tympan: Tympan, command: str, text: str, says: str
) -> None:
    configure(root, text)
    before = tree(root)
    (told,) = tympan(command, ends=FAILED)
    assert says in told["message"]
    assert tree(root) == before


def test_other_lines_of_the_profile_stay_as_they_are(root: Path, tympan: Tympan) -> None:
    path = root / "etc/apparmor.d/local/usr.sbin.cupsd"
    tympan("install")
    first = path.read_text()
    assert first.startswith(PROFILE)
    rule = '"/var/spool/tympan/**" rwk,\n'
    assert rule in first
    path.write_text(first.replace(rule, "") + "/srv/y r,\n")
    tympan("install")
    assert path.read_text() == first + "/srv/y r,\n"
    tympan("uninstall")
    assert path.read_text() == PROFILE + "/srv/y r,\n"


def test_a_profile_with_half_of_our_lines_is_not_guessed_at(root: Path, tympan: Tympan) -> None:
    path = root / "etc/apparmor.d/local/usr.sbin.cupsd"
    tympan("install")
    path.write_text(path.read_text().replace("# Tympan ends here.\n", ""))
    (told,) = tympan("install", ends=FAILED)
    assert "take out what is left of it" in told["message"]


def test_a_host_without_systemd_and_apparmor_has_neither(root: Path, tympan: Tympan) -> None:
    (root / "etc/systemd/system").rmdir()
    (root / "etc/apparmor.d/usr.sbin.cupsd").unlink()
    assert [one["what"] for one in tympan("install")] == [
        *("settings", "spool", "notifier", "backend")
    ]


def test_the_service_runs_the_bridge_and_may_write_the_spool_only(
    root: Path, tympan: Tympan
) -> None:
    tympan("install")
    lines = (root / "etc/systemd/system/tympan-cups.service").read_text().splitlines()
    assert f"User={account().pw_name}" in lines
    assert "ReadWritePaths=/var/spool/tympan" in lines
    (command,) = (line for line in lines if line.startswith("ExecStart="))
    assert command.endswith("/tympan bridge run cups --settings /etc/tympan/cups.toml")


def test_a_unit_and_a_profile_take_paths_with_blanks(root: Path) -> None:
    host = Host.read(root=root, spool=Path("/var/spool/100% of it"))
    made = Installation(host, None, interpreter())
    assert 'ReadWritePaths="/var/spool/100%% of it"\n' in unit.unit(host)
    assert '"/var/spool/100% of it/**" rwk,\n' in unit.profile(host, made.launcher("notifier"))


@pytest.mark.parametrize("kind", ["notifier", "backend"])
def test_cupsds_account_can_run_what_was_placed(root: Path, tympan: Tympan, kind: str) -> None:
    tympan("install")
    text = (root / "usr/lib/cups" / kind / "tympan").read_bytes()
    words = {"notifier": ["tympan", "tympan:"], "backend": ["tympan"]}[kind]
    program = os.memfd_create(kind)
    os.write(program, text)
    first, *_ = text.decode().splitlines()
    done = subprocess.run(
        demoted("env", *first.removeprefix("#!").split(), f"/proc/self/fd/{program}", *words[1:]),
        input=b"",
        capture_output=True,
        check=False,
        pass_fds=[program],
        cwd="/",
    )
    os.close(program)
    assert done.returncode == 0, done.stderr
    if kind == "notifier":
        assert b"ERROR: tympan: /etc/tympan/cups.toml" in done.stderr
    else:
        assert done.stdout.split()[:2] == [b"network", b"tympan"]


@pytest.mark.parametrize("closed", ["folder", "file", "file of a link"])
def test_an_interpreter_that_cupsd_cannot_execute_is_refused_and_what_refuses_is_named(
    root: Path, capsys: pytest.CaptureFixture[str], closed: str
) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "environment"
        folder.mkdir()
        Path(made).chmod(0o755)
        python = named = folder / "python3.11"
        python.write_text(f'#!/bin/sh\nexec {interpreter()} "$@"\n')
        python.chmod(0o755)
        if closed == "folder":
            folder.chmod(0o600)
        else:
            python.chmod(0o600)
        if closed == "file of a link":
            named = Path(made) / "python"
            named.symlink_to(python)
        before = tree(root)
        assert main(["cups", "install", "--root", str(root), "--python", str(named)]) == FAILED
        told = capsys.readouterr().err
        folder.chmod(0o700)
        refuses = folder if closed == "folder" else python
        assert f"{account().pw_name}, whom cupsd runs its programs as, cannot run them" in told
        assert f"Permission denied at {refuses}; make Tympan's environment where" in told
        assert "name an interpreter that" in told
        assert "by --python" in told
        assert tree(root) == before


def test_an_interpreter_without_our_packages_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cups", "install", "--root", str(root), "--python", "/bin/false"]) == FAILED
    assert "by /bin/false with the packages in" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/opt/my tympan/bin/python", f"/opt/{'x' * 250}/python"])
def test_a_path_that_no_first_line_takes_is_refused(path: str) -> None:
    with pytest.raises(Unlaunchable, match="make the environment in another folder"):
        _ = Launcher("notifier", Path("/etc/tympan/cups.toml"), Path(path)).text


def test_programs_that_others_may_change_are_told(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "environment"
    folder.mkdir()
    folder.chmod(0o777)
    python = folder / "python3"
    python.write_text("#!/bin/sh\n")
    made = Installation(Host.read(root=root), None, python)
    assert made.writable_by_others() == folder
    folder.chmod(0o775)
    assert made.writable_by_others() == folder
    folder.chmod(0o755)
    assert made.writable_by_others() != folder


def test_a_folder_of_the_programs_that_others_may_change_is_told(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "workers" / "cups" / "printing"
    inner.mkdir(parents=True)
    inner.chmod(0o777)
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\n")
    made = Installation(Host.read(root=root), None, python)
    ours = Launcher("notifier", Path("/etc/tympan/cups.toml"), python, tmp_path)
    monkeypatch.setattr(Installation, "launcher", lambda *_: ours)
    assert made.writable_by_others() == inner
    inner.chmod(0o755)
    assert made.writable_by_others() != inner


def test_what_others_may_change_is_not_run_as_root(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        python = Path(folder) / "python3"
        python.write_text(f'#!/bin/sh\nexec {interpreter()} "$@"\n')
        python.chmod(0o755)
        before = tree(root)
        words = ["--root", str(root), "--python", str(python), "--backend-as-root"]
        assert main(["cups", "install", *words]) == FAILED
        assert f"others than root may write {folder}" in capsys.readouterr().err
        assert tree(root) == before
        assert main(["cups", "install", *words[:-1]]) == DONE
        assert f"whoever may write {folder} decides" in capsys.readouterr().err


def test_where_things_are_is_read_from_cupsds_files(root: Path) -> None:
    host = Host.read(root=root)
    assert (host.server_name, host.cups) == ("print01", "/run/cups/cups.sock")
    assert host.account.uid == account().pw_uid
    elsewhere = root / "opt/cups/bin"
    for kind in ("notifier", "backend"):
        (elsewhere / kind).mkdir(parents=True)
    (root / "etc/cups/cups-files.conf").write_text('ServerBin "/opt/cups/bin"\nUser 0\nGroup 7\n')
    (root / "etc/cups/cupsd.conf").write_text("Port 8631\n")
    host = Host.read(root=root)
    assert host.server_bin == Path("/opt/cups/bin")
    assert (host.account.uid, host.account.gid, host.cups) == (0, 7, "localhost:8631")


def test_a_host_without_cups_is_told_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="install CUPS"):
        Host.read(root=tmp_path)


def test_an_account_that_is_not_there_is_told(root: Path) -> None:
    with pytest.raises(NotInstalled, match="as nobody-here, and this host has no such account"):
        Host.read(root=root, user="nobody-here")


@pytest.fixture
def unwritable(root: Path) -> Iterator[Path]:
    """A folder that nothing can be written to, not even by root."""
    folder = root / "usr/lib/cups/notifier"
    folder.rmdir()
    folder.symlink_to("/proc/self")
    yield folder
    folder.unlink()


def test_what_the_system_refuses_is_a_sentence(tympan: Tympan, unwritable: Path) -> None:
    assert unwritable.is_dir()
    (told,) = [one for one in tympan("install", ends=FAILED) if "error" in one]
    assert told["error"] == "NOT_INSTALLED"
    assert str(unwritable) in told["message"]


def test_a_command_that_does_not_end_is_a_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        python = Path(folder) / "python3"
        python.write_text("#!/bin/sh\nexec sleep 60\n")
        python.chmod(0o755)
        monkeypatch.setattr(install, "_TIMEOUT_S", 0.2)
        before = tree(root)
        assert main(["cups", "install", "--root", str(root), "--python", str(python)]) == FAILED
    assert "nothing came of it within 0.2 s" in capsys.readouterr().err
    assert tree(root) == before
    monkeypatch.setattr(service, "_TIMEOUT_S", 0.2)
    with pytest.raises(NotInstalled, match=r"^sleep 60 did not end within 0.2 s, and was killed$"):
        service.run(["sleep", "60"])


def test_bad_words_are_wrong_usage(tympan: Tympan) -> None:
    (told,) = tympan("install", "--server", r"\\a\b", ends=USAGE)
    assert "server" in told["message"]
    tympan("wrap", ends=USAGE)


def test_a_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['aiohttp'] = None; from workers.cli import main; "
        "sys.exit(main(['cups', 'status']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == FAILED
    assert b"pip install 'tympan[cups]'" in done.stderr


@pytest.mark.parametrize(
    "url", ["http://redis.example", "redis:/redis.example", "redis://h:port/0"]
)
def test_a_url_that_no_bridge_could_use_is_not_written(
    root: Path, tympan: Tympan, url: str
) -> None:
    before = tree(root)
    (told,) = tympan("install", "--url", url, ends=USAGE)
    assert "is no Redis URL" in told["message"]
    assert tree(root) == before


def private(root: Path) -> list[str]:
    """The options of a cupsd with files of its own there."""
    folder = root / "srv/cups"
    for name in ("notifier", "backend"):
        (folder / "bin" / name).mkdir(parents=True)
    (folder / "cupsd.conf").write_text("Listen /srv/cups/sock\n")
    (folder / "cups-files.conf").write_text(f"ServerBin /srv/cups/bin\nUser {account().pw_name}\n")
    return ["--config", "/srv/cups"]


def test_a_config_that_is_no_cupsds_is_refused(root: Path, tympan: Tympan) -> None:
    where = [*private(root), "--settings", "/srv/t.toml", "--spool", "/srv/t"]
    before = tree(root)
    (told,) = tympan("install", *where, "--config", "/srv/cup", ends=FAILED)
    assert "/srv/cup/cupsd.conf: No such file or directory: name by --config" in told["message"]
    (root / "srv/cups/cups-files.conf").rename(root / "srv/files")
    (told,) = tympan("install", *where, ends=FAILED)
    assert "/srv/cups/cups-files.conf: No such file" in told["message"]
    (root / "srv/files").rename(root / "srv/cups/cups-files.conf")
    assert tree(root) == before


@pytest.mark.parametrize("command", [["install"], ["uninstall"], ["status"], ["wrap", "--all"]])
def test_a_private_cupsd_does_not_share_the_systems_settings_and_spool(
    root: Path, tympan: Tympan, command: list[str]
) -> None:
    where = private(root)
    before = tree(root)
    (told,) = tympan(*command, *where, ends=FAILED)
    assert "--settings and --spool would be those of this host's cupsd" in told["message"]
    (told,) = tympan(*command, *where, "--spool", "/srv/t", ends=FAILED)
    assert "and --settings would be" in told["message"]
    (told,) = tympan(*command, *where, "--settings", "/srv/t.toml", ends=FAILED)
    assert "and --spool would be" in told["message"]
    assert tree(root) == before


def test_settings_that_are_there_name_the_spool(root: Path, tympan: Tympan) -> None:
    where = [*private(root), "--settings", "/srv/t.toml"]
    tympan("install", *where, "--spool", "/srv/t")
    assert {one["did"] for one in tympan("install", *where)} == {"there"}


def test_advice_for_a_private_cupsd_names_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [*private(root), "--settings", "/srv/my t.toml", "--spool", "/srv/t"]
    words = ["install", "--root", str(root), *where, "--python", str(interpreter())]
    assert main(["cups", *words]) == DONE
    said = capsys.readouterr().err
    options = f"--root {root} --config /srv/cups --settings '/srv/my t.toml' --spool /srv/t"
    assert f"`tympan cups status {options}` says" in said
    assert f"keep `tympan bridge run cups --settings '{root}/srv/my t.toml'` running" in said
