"""What Redis refuses has a type of its own, in the words of every version from 6.2 on.

Redis 6.2 wraps an error inside a script into another one; 7.0 and Valkey hand it on.
"""

from __future__ import annotations

import pytest
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from broker import errors
from broker._connect import fault, is_passing

URL = "redis://spool.example:6379/0"
SCRIPT_62 = "Error running script (call to f_c0ffee): @user_script:17: @user_script: 17: -"

PLAIN = [
    ("OOM command not allowed when used memory > 'maxmemory'.", OutOfMemoryError, errors.RedisFull),
    (
        "READONLY You can't write against a read only replica.",
        ReadOnlyError,
        errors.RedisReadOnly,
    ),
    ("NOPERM this user has no permissions", NoPermissionError, errors.RedisRefused),
    ("WRONGPASS invalid username-password pair", AuthenticationError, errors.RedisRefused),
    (
        "MISCONF Redis is configured to save RDB snapshots, but it cannot persist",
        ResponseError,
        errors.RedisReadOnly,
    ),
    ("NOREPLICAS Not enough good replicas to write.", ResponseError, errors.RedisReadOnly),
    (
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        ResponseError,
        errors.ForeignLayout,
    ),
    ("ERR something else", ResponseError, errors.RedisError),
]


@pytest.mark.parametrize(("text", "raised", "kind"), PLAIN)
def test_an_error_answer_has_its_type(
    text: str, raised: type[ResponseError], kind: type[errors.RedisError]
) -> None:
    found = fault(raised(text), URL)
    assert type(found) is kind
    assert URL in str(found), "the message says where"


@pytest.mark.parametrize(
    ("text", "kind"),
    [(text, kind) for text, _, kind in PLAIN if not text.startswith("WRONGPASS")],
)
def test_an_error_inside_a_script_of_redis_6_has_the_same_type(
    text: str, kind: type[errors.RedisError]
) -> None:
    assert type(fault(ResponseError(SCRIPT_62 + text), URL)) is kind


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("OOM command not allowed", "maxmemory"),
        ("READONLY You can't write", "primary"),
        ("NOPERM this user", "ACL"),
        ("WRONGTYPE Operation", "namespace"),
    ],
)
def test_the_message_says_what_to_do(text: str, advice: str) -> None:
    kinds: dict[str, type[ResponseError]] = {
        "OOM": OutOfMemoryError,
        "READONLY": ReadOnlyError,
        "NOPERM": NoPermissionError,
    }
    raised = kinds.get(text.split(maxsplit=1)[0], ResponseError)
    assert advice in str(fault(raised(text), URL))


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("LOADING Redis is loading the dataset in memory", True),
        ("BUSY Redis is busy running a script", True),
        ("TRYAGAIN Multiple keys request during rehashing of slot", True),
        ("MASTERDOWN Link with MASTER is down", True),
        ("CLUSTERDOWN The cluster is down", True),
        ("OOM command not allowed", False),
        ("WRONGTYPE Operation against a key", False),
        ("ERR unknown command", False),
    ],
)
def test_weather_is_told_from_refusals(text: str, passes: bool) -> None:
    assert is_passing(ResponseError(text)) is passes
