"""The settings file: what it says, who may have written it, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker import Broker, Name
from broker.errors import InvalidSettings
from workers.cups.file import Place, SettingsFault, read_table
from workers.cups.print_host import PrintHost, SpoolFault
from workers.cups.settings import HostSettings, RedisSettings

WHOLE = r"""
server = '\\print01'
cups = "localhost:631"
user = "lp"
spool = "/srv/tympan"
max_events = 5000
poll = 30
without_bridge = "hold"

[redis]
url = "rediss://redis.example:6380/2"
username = "print01"
[redis.settings]
lease = 5

[[question]]
name = "paper"
when = "media-empty"
text = "{printer} is out of paper. Continue “{title}”?"
block_for = 60
time_out = 3600
otherwise = "hold"
"""


def written(folder: Path, text: str, mode: int = 0o640) -> Path:
    path = folder / "cups.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def fault(text: str, tmp_path: Path) -> str:
    with pytest.raises(InvalidSettings) as caught:
        HostSettings.read(written(tmp_path, text))
    return str(caught.value)


def test_a_whole_file(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE)
    settings = HostSettings.read(path)
    assert (settings.server, settings.cups, settings.user) == ("print01", "localhost:631", "lp")
    assert (settings.poll, settings.without_bridge) == (30, "hold")
    assert settings.redis.address() == "rediss://print01@redis.example:6380/2"
    assert settings.redis.settings == {"lease": 5}
    assert [question.name for question in settings.question] == ["paper"]
    assert settings.place == Place(Path("/srv/tympan"), 5000, "hold") == Place.read(path)


def test_an_empty_file_has_what_debian_has(tmp_path: Path) -> None:
    settings = HostSettings.read(written(tmp_path, ""))
    assert (settings.cups, settings.user) == ("/run/cups/cups.sock", "root")
    assert settings.server is None
    assert settings.place == Place() == Place.read(written(tmp_path, ""))
    assert settings.redis.address() == "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spol = '/x'", "spol: there is no such setting; known: server, cups"),
        ("[redis]\nuri = 'x'", "redis.uri: there is no such setting; known: url, username"),
        ("[redis.settings]\nleese = 5", "leese"),
        ("spool = 'relative'", "spool: 'relative' has to begin with a slash"),
        ("max_events = 5", "max_events: "),
        ("poll = -1", "poll: "),
        ("cups = 'localhost'", "cups: 'localhost' is neither a path nor host:port"),
        ("without_bridge = 'perhaps'", "without_bridge: "),
        ("server = 'a b'", "server: "),
        ("user = ''", "user: "),
        ("[[question]]\nname = 'x'", "question 1 ('x')"),
        ("question = 3", "question: "),
        ("this is no toml", "is no TOML"),
    ],
)
def test_what_is_off_is_named(text: str, said: str, tmp_path: Path) -> None:
    message = fault(text, tmp_path)
    assert said in message
    assert str(tmp_path / "cups.toml") in message


def test_all_that_is_off_is_named_at_once(tmp_path: Path) -> None:
    message = fault("poll = -1\nspol = 1\n[[question]]\nname = 'x'", tmp_path)
    assert all(word in message for word in ("poll", "spol", "question 1"))


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o602])
def test_a_file_that_others_can_write_is_not_used(mode: int, tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE, mode)
    with pytest.raises(InvalidSettings, match="chmod go-w"):
        HostSettings.read(path)
    with pytest.raises(SettingsFault, match="chmod go-w"):
        Place.read(path)


def test_a_file_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, WHOLE)
    monkeypatch.setattr("workers.cups.file._MASTERS", frozenset({4242}))
    monkeypatch.setattr("os.geteuid", lambda: 4243)
    with pytest.raises(SettingsFault, match="chown root"):
        Place.read(path)


@pytest.mark.parametrize(
    ("text", "said"), [("spool = 3", "spool is 3"), ("max_events = true", "max_events is True")]
)
def test_what_the_notifier_needs_is_checked(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsFault, match=said):
        Place.read(written(tmp_path, text))


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsFault, match="cannot be read"):
        read_table(tmp_path / "missing")
    with pytest.raises(SettingsFault, match="is no plain file"):
        read_table("/dev/null")
    (tmp_path / "latin").write_bytes(b"spool = '/\xe9'")
    with pytest.raises(SettingsFault, match="is not UTF-8"):
        read_table(tmp_path / "latin")
    (tmp_path / "big").write_bytes(b"#" * 2_000_000)
    with pytest.raises(SettingsFault, match="more than"):
        read_table(tmp_path / "big")


def test_credentials_and_certificates_are_in_the_address(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("p@ss/word\nignored\n")
    password.chmod(0o640)
    redis = RedisSettings(
        url="rediss+sentinel://a:26379,b:26379/farm?db=1",
        username="print:01",
        password_file=password,
        ca=Path("/etc/ca.pem"),
        sentinel_username="watch",
        sentinel_password_file=password,
    )
    assert redis.address() == (
        "rediss+sentinel://print%3A01:p%40ss%2Fword@a:26379,b:26379/farm?db=1"
        "&ssl_ca_certs=%2Fetc%2Fca.pem&sentinel_username=watch&sentinel_password=p%40ss%2Fword"
    )


def test_a_credential_is_given_once() -> None:
    redis = RedisSettings(url="redis://me:secret@host/0", username="other")
    with pytest.raises(InvalidSettings, match="leave one of them out"):
        redis.address()


def test_a_password_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("x")
    password.chmod(0o666)
    with pytest.raises(InvalidSettings, match="chmod go-w"):
        RedisSettings(password_file=password).address()


async def test_a_bridge_warns_of_a_question_that_may_never_come_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = WHOLE.replace("media-empty", "medai-empty").replace("/srv/tympan", f"{tmp_path}/none")
    settings = HostSettings.read(written(tmp_path, text))
    with pytest.raises(SpoolFault):
        await PrintHost(Broker.connect(), Name(r"\\print01"), settings).serve()
    (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert said == (
        "question 'paper': when: 'medai-empty' is no known state reason; "
        "did you mean 'media-empty'?"
    )
