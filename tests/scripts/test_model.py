"""The model of a dialog, ``lua/model/dialog.pml``, is of the scripts that there are, and holds.

What is searched here takes seconds; ``make model`` searches all forms and all mutants.
"""

from __future__ import annotations

import re

import pytest

from tests import lua_source, verification
from tests.verification import SHORT, guards, search, text, words

LEFT_OUT = {
    "open": {"DENIED", "LIMIT", "TAKEN"},
    "register": {"DENIED", "LIMIT"},
    "unregister": {"NOT_YOURS"},
    "offer": {"NOT_YOURS", "NO_BODY"},
    "respond": {"NOT_YOURS", "NO_BODY"},
    "follow_up": {"MOVED", "NO_BODY"},
    "listener_close": {"NO_BODY"},
    "source_close": set[str](),
    "renew": set[str](),
    "bury": set[str](),
    "confirm": set[str](),
}
"""The model's scripts, each with the words of its header that need what the model leaves out:
rights, limits, other processes' ends, pools, bodies kept apart."""
EARLY = {"losers_told": "owner_is_known", "silence": "closed_is_over"}
"""Properties with a guard whose mutant is refuted in seconds."""


@pytest.mark.parametrize("script", sorted(LEFT_OUT))
def test_a_script_of_the_model_answers_what_its_header_says(script: str) -> None:
    modelled, announced = words()[script], set(lua_source.header_of(script).words)
    assert modelled - announced == set(), "no script answers so"
    assert announced - modelled <= LEFT_OUT[script], "the model is behind its script"


def test_the_model_has_no_script_of_its_own() -> None:
    assert set(words()) == set(LEFT_OUT)


def test_each_guard_is_in_the_model_and_stands_before_a_property() -> None:
    names = [guard.name for guard in guards()]
    assert len(set(names)) == len(names)
    for guard in guards():
        assert guard.property in verification.properties().values()
        assert guard.form in verification.FORMS
        used = re.findall(rf"(?:\bkept\(|WITHOUT == ){guard.name}\b", text())
        assert used, f"{guard.name} guards nothing"


def test_each_property_falls_without_one_of_the_guards() -> None:
    assert {guard.property for guard in guards()} == set(verification.properties().values())


def test_the_smallest_form_holds() -> None:
    found = search("short", SHORT)
    assert (found.broken, found.is_whole) == ("", True)
    assert found.states > 10_000, "the model stands still"


@pytest.mark.parametrize("property_", sorted(EARLY))
def test_a_property_falls_without_its_guard(property_: str) -> None:
    found = search(property_, SHORT, without=EARLY[property_], only=property_)
    assert found.broken == property_
