"""Each setting has limits, and what is beyond them is refused at once, by the setting's name."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from broker import Broker, Durability, Role, Settings
from broker.errors import InvalidArgument, InvalidSettings
from broker.settings import DEFAULT_URL, default_url

TIMES = (
    "durability_timeout",
    "lease",
    "keep_closed",
    "resync",
    "keep_body",
    "connect_timeout",
    "reply_timeout",
    "operation_timeout",
    "retry_least",
    "retry_most",
)


def test_the_defaults_are_those_of_the_documents() -> None:
    settings = Settings.of()
    assert settings == Settings()
    assert settings.max_payload == 0x00A00000, "10 MB"
    assert settings.buffer == 100
    assert settings.max_registrations == settings.max_channels == 10_000
    assert settings.retry_least == 1
    assert settings.retry_most == 60
    assert settings.role is Role.BOTH
    assert settings.durability is Durability.MEMORY


@pytest.mark.parametrize(
    ("setting", "least", "below"),
    [
        ("max_payload", 1, 0),
        ("buffer", 1, 0),
        ("max_registrations", 0, -1),
        ("max_channels", 0, -1),
        ("replicas", 1, 0),
        ("durability_timeout", 0.001, 0),
        ("lease", 0.2, 0.19),
        ("resync", 0.001, 0),
        ("body_by_reference", 0, -1),
        ("keep_body", 60, 59.9),
        ("connect_timeout", 0.001, 0),
        ("reply_timeout", 0.001, 0),
        ("operation_timeout", 0.001, 0),
        ("retry_least", 0.001, 0),
    ],
)
def test_the_least_is_taken_and_what_is_below_is_refused(
    setting: str, least: float, below: float
) -> None:
    assert getattr(Settings.of(**{setting: least}), setting) == least
    with pytest.raises(InvalidSettings, match=setting):
        Settings.of(**{setting: below})


@pytest.mark.parametrize(
    ("setting", "most", "above"),
    [
        ("max_payload", 512 * 1024 * 1024, 512 * 1024 * 1024 + 1),
        ("buffer", 1_000_000, 1_000_001),
        ("replicas", 16, 17),
        ("durability_timeout", 60, 60.1),
        ("lease", 600, 600.1),
        ("resync", 300, 300.1),
    ],
)
def test_the_most_is_taken_and_what_is_above_is_refused(
    setting: str, most: float, above: float
) -> None:
    assert getattr(Settings.of(**{setting: most}), setting) == most
    with pytest.raises(InvalidSettings, match=setting):
        Settings.of(**{setting: above})


@pytest.mark.parametrize("setting", TIMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, "soon", None, [5]])
def test_a_time_is_a_finite_number_of_seconds(setting: str, value: Any) -> None:
    with pytest.raises(InvalidSettings, match=setting):
        Settings.of(**{setting: value})


@pytest.mark.parametrize(
    "namespace", ["", "a b", "a:b", "a{b}", "a}", "tympan\n", "\u00e9", "x" * 65, None, 5]
)
def test_a_namespace_is_a_plain_word(namespace: Any) -> None:
    with pytest.raises(InvalidSettings, match="namespace"):
        Settings.of(namespace=namespace)


@pytest.mark.parametrize("namespace", ["tympan", "T-1_a.b", "0", "x" * 64])
def test_plain_words_are_namespaces(namespace: str) -> None:
    assert Settings.of(namespace=namespace).namespace == namespace


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("durability", "tape"),
        ("role", 7),
        ("role", "source"),
        ("strict_rights", "perhaps"),
        ("buffer", 1.5),
        ("replicas", "one"),
    ],
)
def test_a_value_of_another_kind_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(InvalidSettings, match=setting):
        Settings.of(**{setting: value})


def test_settings_must_agree() -> None:
    with pytest.raises(InvalidSettings, match="keep_closed must not be below lease"):
        Settings.of(lease=20, keep_closed=19)
    with pytest.raises(InvalidSettings, match="retry_most must not be below retry_least"):
        Settings.of(retry_least=5, retry_most=4)
    assert Settings.of(lease=20, keep_closed=20, retry_least=5, retry_most=5).lease == 20


def test_a_setting_that_does_not_exist_is_named() -> None:
    with pytest.raises(InvalidSettings, match="leese"):
        Settings.of(leese=5)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(InvalidSettings, match=r"buffer.*; .*lease") as refused:
        Settings.of(buffer=0, lease=0)
    assert isinstance(refused.value, InvalidArgument)
    assert "\n" not in str(refused.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().lease = 5  # type: ignore[misc]


@pytest.mark.parametrize("word", ["memory", "replica", "fsync"])
def test_durability_by_its_word(word: str) -> None:
    assert Settings.of(durability=word).durability == word


def test_roles_combine() -> None:
    assert Role.SOURCE | Role.LISTENER is Role.BOTH
    assert Settings.of(role=Role.LISTENER).role & Role.SOURCE == Role(0)


def test_a_broker_takes_settings_or_single_ones() -> None:
    assert Broker.connect(settings=Settings(buffer=7)).settings.buffer == 7
    assert Broker.connect(buffer=7).settings.buffer == 7
    with pytest.raises(InvalidArgument, match="not both"):
        Broker.connect(settings=Settings(), buffer=7)
    with pytest.raises(InvalidSettings, match="buffer"):
        Broker.connect(buffer=0)


def test_the_url_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TYMPAN_URL", "redis://spool.example:6380/2")
    assert default_url() == "redis://spool.example:6380/2"
    monkeypatch.setenv("TYMPAN_URL", "")
    assert default_url() == DEFAULT_URL
    monkeypatch.delenv("TYMPAN_URL")
    assert default_url() == DEFAULT_URL
