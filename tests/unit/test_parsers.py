"""Whatever is fed to what parses, it is read, or refused in a typed error."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.parsers import PARSERS, Parser

every_parser = pytest.mark.parametrize("name", PARSERS)


@every_parser
@given(data=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode()))
@example(b"")
@example(b"\xff")
@example(b"[" * 100_000)
def test_junk_is_refused(name: str, data: bytes) -> None:
    PARSERS[name](data)


@every_parser
def test_good_input_is_read(name: str) -> None:
    """Otherwise the seeds seed nothing; a document of another type is none."""
    parser = PARSERS[name]
    for seed in parser.seeds:
        if name not in ("reply", "configuration"):
            parser.read(seed)


@every_parser
@settings(max_examples=50)
@given(data=st.data(), chance=st.randoms(use_true_random=False))
def test_what_is_nearly_good_is_read_or_refused(
    name: str, data: st.DataObject, chance: random.Random
) -> None:
    """A part is cut out, doubled, or exchanged for other bytes."""
    seed = data.draw(st.sampled_from(PARSERS[name].seeds))
    for _ in range(chance.randint(1, 3)):
        at, end = sorted(chance.randrange(len(seed) + 1) for _ in range(2))
        part = data.draw(st.sampled_from((b"", seed[at:end] * 2)) | st.binary(max_size=8) | digits)
        seed = seed[:at] + part + seed[end:]
    PARSERS[name](seed)


def test_an_error_of_another_kind_is_a_fault() -> None:
    """The control of the tests above."""
    careless = Parser(lambda data: data.decode("ascii"), (KeyError,), ())
    with pytest.raises(UnicodeDecodeError):
        careless(b"\xff")


digits = st.from_regex(rb"-?[0-9]{1,30}(\.[0-9]{0,3})?(e[0-9]{1,3})?", fullmatch=True)
