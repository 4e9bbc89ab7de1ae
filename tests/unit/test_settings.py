"""Each setting has limits, and what is beyond them is refused at once, by the setting's name."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from broker import Broker, Durability, Role, Settings
from broker._address import Address
from broker.errors import InvalidArgument, InvalidSettings, InvalidUrl
from broker.settings import DEFAULT_URL, default_url
from workers.cli.settings import settings_of

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


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets ``TYMPAN_`` and what follows, and nothing else of Tympan's is set."""
    for name in list(os.environ):
        if name.startswith("TYMPAN_"):
            monkeypatch.delenv(name)

    def enter(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"TYMPAN_{name}", value)

    return enter


SECRET = "p@ss/w?rd#1%2:&="


@pytest.mark.parametrize(
    ("url", "given", "username", "password"),
    [
        ("redis://h:6380/2", {"PASSWORD": SECRET}, None, SECRET),
        ("rediss://h", {"USERNAME": "a:b@c", "PASSWORD": SECRET}, "a:b@c", SECRET),
        ("redis://ann@h/0", {"PASSWORD": SECRET}, "ann", SECRET),
        ("redis://ann:old%40@h", {}, "ann", "old@"),
        ("redis://h", {"USERNAME": "", "PASSWORD": ""}, None, None),
        ("unix:///run/redis.sock?db=1", {"PASSWORD": SECRET}, None, SECRET),
        ("redis+cluster://a:1,b:2", {"USERNAME": "ann", "PASSWORD": SECRET}, "ann", SECRET),
        ("", {"PASSWORD": SECRET}, None, SECRET),
    ],
)
def test_a_credential_in_the_environment_is_taken_as_it_is(
    url: str,
    given: dict[str, str],
    username: str | None,
    password: str | None,
    environment: Callable[..., None],
) -> None:
    environment(URL=url, **given)
    address = Address.parse(default_url(), Settings())
    options = address.redis.options
    assert (options.get("username") or None) == username
    assert options.get("password") == password
    assert SECRET not in address.url
    plain = Address.parse(url or DEFAULT_URL, Settings())
    assert (address.form, address.nodes) == (plain.form, plain.nodes)
    assert options.get("db", 0) == plain.redis.options.get("db", 0)


def test_sentinels_have_a_credential_of_their_own(environment: Callable[..., None]) -> None:
    environment(
        URL="redis+sentinel://s1,s2/farm/3?health_check_interval=9",
        PASSWORD="inner",
        SENTINEL_USERNAME="watch",
        SENTINEL_PASSWORD=SECRET,
    )
    address = Address.parse(default_url(), Settings())
    assert address.sentinel is not None
    assert address.redis.options["password"] == "inner"
    assert address.redis.options["db"] == 3
    assert address.redis.options["health_check_interval"] == 9
    assert address.sentinel.options["username"] == "watch"
    assert address.sentinel.options["password"] == SECRET


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"URL": "redis://a:b@h", "PASSWORD": SECRET},
            "TYMPAN_URL has a password in it, and TYMPAN_PASSWORD is set: leave one of them out",
        ),
        (
            {"URL": "redis://a@h", "USERNAME": "b"},
            "TYMPAN_URL has a username in it, and TYMPAN_USERNAME is set: leave one of them out",
        ),
        (
            {"URL": "redis://h", "SENTINEL_PASSWORD": SECRET},
            "TYMPAN_SENTINEL_PASSWORD is set, and TYMPAN_URL names no Sentinels: leave it out",
        ),
    ],
)
def test_a_credential_that_is_there_twice_is_refused(
    given: dict[str, str], sentence: str, environment: Callable[..., None]
) -> None:
    environment(**given)
    with pytest.raises(InvalidUrl) as refused:
        Broker.connect()
    assert sentence in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_url_that_is_given_is_not_mixed_with_the_environment(
    environment: Callable[..., None],
) -> None:
    environment(URL="redis://h", PASSWORD=SECRET)
    assert Broker.connect("redis://ann:own@other").settings == Settings()


def test_commands_take_settings_from_the_environment(environment: Callable[..., None]) -> None:
    environment(SET_LEASE="5", SET_NAMESPACE="north", SET_STRICT_RIGHTS="true")
    assert settings_of({}) == Settings(lease=5, namespace="north", strict_rights=True)
    given = settings_of({"lease": "7"}, lease=3, resync=2.0, namespace="usual")
    assert given == Settings(lease=7, resync=2, namespace="north", strict_rights=True)
    assert Settings.of() == Settings(), "the library takes them from its caller"


@pytest.mark.parametrize(("name", "value"), [("SET_LEESE", "5"), ("SET_LEASE", "soon")])
def test_a_setting_of_the_environment_that_is_off_is_refused_by_its_name(
    name: str, value: str, environment: Callable[..., None]
) -> None:
    environment(**{name: value})
    with pytest.raises(InvalidSettings, match=f"TYMPAN_{name}"):
        settings_of({})
