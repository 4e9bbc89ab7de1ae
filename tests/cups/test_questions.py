"""Policies: which questions a job raises, in what words, and what is wrong with one."""

from __future__ import annotations

from typing import Any

import pytest

from broker.errors import InvalidSettings
from workers.cups.dialogs.options import parse_options
from workers.cups.dialogs.questions import Job, Question, parse_questions
from workers.cups.dialogs.reasons import KNOWN, is_like

JOB = Job(
    7,
    "urn:uuid:1",
    "Laser-3",
    "alice",
    "quarterly report",
    copies=60,
    options={"print-color-mode": "color", "sides": "one-sided"},
    size=12_000_000,
)


def question(**changed: Any) -> Question:
    """One that is asked before each job, but for what is changed."""
    table = {"name": "cost", "when": "before", "text": "Print?"} | changed
    (made,) = parse_questions([table])
    return made


@pytest.mark.parametrize(
    ("conditions", "concerned"),
    [
        ({}, True),
        ({"printers": ["laser-*"]}, True),
        ({"printers": ["inkjet-*"]}, False),
        ({"printers": "inkjet-*"}, False),
        ({"users": ["ALICE"]}, True),
        ({"users": ["bob", "carol"]}, False),
        ({"copies_over": 59}, True),
        ({"copies_over": 60}, False),
        ({"size_over": "12 MB"}, False),
        ({"size_over": "11.9 MB"}, True),
        ({"size_over": "11 MiB"}, True),
        ({"size_over": "12MiB"}, False),
        ({"size_over": 11_999_999}, True),
        ({"options": {"print-color-mode": "color"}}, True),
        ({"options": {"print-color-mode": ["auto", "col*"]}}, True),
        ({"options": {"print-color-mode": "monochrome"}}, False),
        ({"options": {"Print-Color-Mode": "color"}}, True),
        ({"options": {"media": "*"}}, False),
        ({"options": {"print-color-mode": "color", "sides": "two-*"}}, False),
        ({"copies_over": 50, "users": ["bob"]}, False),
    ],
)
def test_it_concerns_jobs_that_meet_all_of_its_conditions(
    conditions: dict[str, Any], concerned: bool
) -> None:
    assert question(**conditions).concerns(JOB) is concerned


def test_a_job_whose_size_nobody_knows_is_not_too_large() -> None:
    unknown = Job(7, "", "laser-3", "alice")
    assert not question(size_over="1 kB").concerns(unknown)


@pytest.mark.parametrize(
    ("when", "reasons", "raised"),
    [
        ("media-empty", ["media-empty-error", "toner-low-warning"], ["media-empty-error"]),
        ("media-empty", ["media-empty"], ["media-empty"]),
        ("media-empty", ["media-empty-report"], ["media-empty-report"]),
        ("media-empty-error", ["media-empty-error"], ["media-empty-error"]),
        ("media-empty-error", ["media-empty"], ["media-empty"]),
        ("media-empty-error", ["media-empty-report"], []),
        ("media-empty", ["media-needed-error"], []),
        (
            ["media-empty", "media-needed"],
            ["media-empty-error", "media-needed-error"],
            ["media-empty-error", "media-needed-error"],
        ),
    ],
)
def test_reasons_bring_it_up_by_name_and_severity(
    when: str | list[str], reasons: list[str], raised: list[str]
) -> None:
    assert list(question(when=when).raised_by(reasons)) == raised


@pytest.mark.parametrize(
    ("when", "doubts"),
    [
        ("before", []),
        (["media-empty", "toner-low-warning", "paused"], []),
        (["stapler-jam", "interpreter-resource-unavailable-error", "offline"], []),
        (["com.example-lamp-blown", "cups-missing-filter-warning", "smi2699-lamp"], []),
        ("medai-empty", ["'medai-empty' is no known state reason; did you mean 'media-empty'?"]),
        (
            ["coffee-cold-error", "media-jam"],
            ["'coffee-cold-error' is no known state reason: it counts only if the printer says it"],
        ),
    ],
)
def test_a_reason_that_nobody_has_registered_is_doubted_and_taken(
    when: str | list[str], doubts: list[str]
) -> None:
    assert list(question(when=when).doubts) == doubts


def test_no_known_reason_is_taken_for_before() -> None:
    assert not [reason for reason in KNOWN if is_like(reason, "before")]
    assert {"media-empty", "stacker-full", "subunit-timing-failure"} <= KNOWN


def test_the_text_names_the_job() -> None:
    asked = question(
        text="{owner} on {printer}, job {job}: {copies} x “{title}”, {size} {{{reasons}}}"
    )
    assert asked.text_for(JOB, ["media-empty-error", "media-empty", "door-open-report"]) == (
        "alice on Laser-3, job 7: 60 x “quarterly report”, 12 MB {door-open, media-empty}"
    )


def test_what_people_wrote_is_shown_on_one_line_and_never_read_as_a_template() -> None:
    nasty = Job(7, "", "laser-3", "eve", "{owner}\x1b[2J\n{0.__class__}" + "x" * 300)
    said = question(text="“{title}”").text_for(nasty)
    assert said.startswith("“{owner} [2J {0.__class__}xxx")
    assert said.endswith("x…”")
    assert len(said) == 202


def test_an_untitled_job_is_called_that() -> None:
    assert question(text="{title}").text_for(Job(7, "", "laser-3", "eve", " \n")) == "untitled"


def test_defaults_let_the_queue_wait_a_minute_before_and_the_printer_during() -> None:
    assert question().blocks_for == 60
    assert question(time_out=10).blocks_for == 10
    assert question(block_for=0).blocks_for == 0
    assert question(when="media-empty").blocks_for == 3600
    assert question(when="media-empty", block_for=5).blocks_for == 5
    assert question().choices == ("continue", "cancel", "hold")
    assert question().otherwise == "hold"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"name": "Cost!"}, "question 1 ('Cost!'): name: 'Cost!' is no name: 1 to 64"),
        ({"when": "none"}, "'none' is neither 'before' nor a state reason such as 'media-empty'"),
        ({"when": "out of paper"}, "'out of paper' is neither"),
        ({"when": "befor"}, "'befor' is no state reason; did you mean 'before'?"),
        ({"when": ["media-empty", "befroe"]}, "did you mean 'before'?"),
        ({"when": "beforee-error"}, "did you mean 'before'?"),
        ({"when": ["before", "media-empty"]}, "'before' stands alone"),
        ({"when": []}, "when: "),
        ({"text": "{cost}"}, "{cost} is no field; there are {printer}, {job}, {title}"),
        ({"text": "{title.upper}"}, "{title.upper} is no field"),
        ({"text": "{title!r}"}, "{title} is no field"),
        ({"text": "{title:>99999999}"}, "{title} is no field"),
        ({"text": "{}"}, "{} is no field"),
        ({"text": "50 % } off"}, "write {{ and }} for braces themselves"),
        ({"text": ""}, "text: "),
        ({"choices": ["continue", "continue"]}, "each choice is offered once"),
        ({"choices": ["yes"]}, "choices.0: "),
        ({"choices": []}, "choices: "),
        ({"otherwise": "print"}, "otherwise: "),
        ({"block_for": 30, "time_out": 20}, "block_for must not be above time_out"),
        ({"time_out": 0}, "time_out: "),
        ({"size_over": "big"}, "'big' is no size: write 500 kB, 10 MB, or a number of bytes"),
        ({"pages_over": 5}, "pages_over: there is no such setting; known: name, when, text"),
        ({"copies_over": -1}, "copies_over: "),
    ],
)
def test_a_fault_is_said_in_a_sentence_that_names_it(
    changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidSettings) as caught:
        question(**changed)
    assert sentence in str(caught.value)


def test_all_faults_are_said_at_once() -> None:
    with pytest.raises(InvalidSettings) as caught:
        parse_questions(
            [
                {"name": "a", "when": "before", "text": "x"},
                {"name": "a", "when": "before", "text": "y"},
                {"when": "before", "text": "z"},
                "a word",
            ]
        )
    said = str(caught.value)
    assert "question 'a': two of this name" in said
    assert "question 3: name: " in said
    assert "question 4: " in said


def test_one_table_in_single_brackets_is_explained() -> None:
    with pytest.raises(InvalidSettings, match=r"headed \[\[question\]\]"):
        parse_questions({"name": "a"})


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        (
            "finishings=3 sides=one-sided job-uuid=urn:uuid:cfb0",
            {"finishings": "3", "sides": "one-sided", "job-uuid": "urn:uuid:cfb0"},
        ),
        ("collate nomirror", {"collate": "true", "mirror": "false"}),
        (r"title=a\ b\\c", {"title": r"a b\c"}),
        ("""media="A 4" note='it"s'""", {"media": "A 4", "note": 'it"s'}),
        ("size={x=1 y={z=2 w=3}} next=1", {"size": "{x=1 y={z=2 w=3}}", "next": "1"}),
        ("date-time-at-creation= time-at-creation=5", {
            "date-time-at-creation": "", "time-at-creation": "5"
        }),
        ("sides=one sides=two", {"sides": "two"}),
        ("print-color-mode=monochrome Print-Color-Mode=color noMirror", {
            "print-color-mode": "color", "mirror": "false"
        }),
        ("open='never closed", {"open": "never closed"}),
        ("ends=with\\", {"ends": "with\\"}),
        ("=nameless x=1", {"x": "1"}),
        ("} {=", {"}": "true", "{": ""}),
        ("no", {"no": "true"}),
    ],
)  # fmt: skip
def test_options_are_read_as_cups_writes_them(text: str, options: dict[str, str]) -> None:
    assert parse_options(text) == options
