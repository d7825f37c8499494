"""Features: what is seen of a conversation, within bounds of range and cost."""

from dataclasses import astuple, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_worker.server.thinking.features import Features, PastTurn, features_of
from unit import cpu_time

CODE = "```python\ndef f(x):\n    return x\n\nprint(f(1))\n```"
LONG = 100_000


def of(
    text: str, *since: PastTurn, system: str = "", before: tuple[PastTurn, ...] = (), num_tools: int = 0
) -> Features:
    return features_of([PastTurn("system", system), *before, PastTurn("user", text), *since], num_tools)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mathematics", "Solve x^2 - 5x + 6 = 0"),
        ("mathematics", "求函数的最大值，方程有几个整数解"),
        ("numbers", "10 12 14 16"),
        ("code", f"Look at this: {CODE}"),
        ("code", "SELECT a FROM b;\nUPDATE b SET a = 1;"),
        ("technical", "Which cache does the Kubernetes API server use?"),
        ("trouble", 'Traceback (most recent call last):\n  File "a.py", line 3'),
        ("trouble", "app/jobs.py:88 says so"),
        ("work", "Prove it"),
        ("work", "Beweise das"),
        ("work", "Démontre cela"),
        ("work", "请证明这个结论"),
        ("weighing", "Compare both and recommend one"),
        ("causes", "Why is that?"),
        ("causes", "¿Por qué?"),
        ("light", "Translate this into Polish"),
        ("light", "把这句话翻译成英文"),
        ("light", "Here is the report.\nIt is long and dull.\n\nSummarize it."),
        ("handed_over", "In plain words: The lessee shall indemnify the lessor against claims."),
        ("fact", "Who wrote Faust?"),
        ("small_talk", "Hello! Thanks for that."),
        ("brevity", "Go on"),
        ("quotation", 'Say it in Dutch: "Where is the station, please?"'),
        ("sentences", "One. Two. Three."),
        ("length", "word"),
    ],
)
def test_a_feature_is_seen_where_it_is(name: str, text: str) -> None:
    assert getattr(of(text), name) > 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("work", 'Translate: "Prove that the plan is wrong and fix the bug"'),
        ("work", "Translate to German: prove it to me, then plan the rest"),
        ("mathematics", "On 12.05.2021 at 8:10"),
        ("handed_over", "Compare these two: tea is cheap, coffee is strong and dear"),
        ("handed_over", "error[E0502]: cannot borrow this as mutable"),
        ("light", "Prove it and translate the proof"),
        ("fact", "What is 2^10 + 3^5?"),
        (
            "small_talk",
            "Hello world programs in every language of the nineties, compared by length and by what they teach",
        ),
        ("brevity", f"Debug this: {CODE}"),
    ],
)
def test_a_feature_is_not_seen_where_it_only_seems_to_be(name: str, text: str) -> None:
    assert getattr(of(text), name) == 0


def test_tools_and_what_they_said_count_since_the_last_message_of_the_user() -> None:
    call, result = PastTurn("assistant", "", num_calls=1), PastTurn("tool", "FAILED a.py:1 KeyError")
    asked = of("Go on", num_tools=5)
    looped = of("Go on", call, result, call, result, num_tools=5)
    assert (asked.rounds, asked.results, asked.trouble) == (0, 0, 0)
    assert looped.rounds == pytest.approx(2 / 3)
    assert looped.results > 0
    assert looped.trouble == 1
    assert of("Go on", before=(call, result), num_tools=5).rounds == 0


def test_a_short_result_without_trouble_answers() -> None:
    call = PastTurn("assistant", "", num_calls=1)
    assert of("Weather?", call, PastTurn("tool", '{"sky": "clear"}')).answered == 1
    assert of("Weather?", call, PastTurn("tool", "KeyError: 'sky'")).answered == 0
    assert of("Weather?", call, PastTurn("tool", "cloud " * 100)).answered == 0


def test_history_counts() -> None:
    thoughtful = (PastTurn("user", "a"), PastTurn("assistant", "b", has_reasoning=True))
    seen = of("thanks", before=thoughtful)
    assert (seen.follow_up, seen.thought_before) == (1, 1)
    assert (of("thanks").follow_up, of("thanks").thought_before) == (0, 0)


def test_a_system_message_of_one_step_hides_what_the_user_says() -> None:
    text = "Prove the theorem and debug the proof step by step"
    seen = of(text, system="Translate what the user writes. Output only the translation.")
    assert (seen.narrow, seen.light, seen.work) == (1, 1, 0)


def test_an_agent_is_no_agent_without_tools() -> None:
    system = "You are a coding agent. Edit files in the repository and run the tests."
    assert of("Go on", system=system).brevity == 1
    assert of("Go on", system=system, num_tools=3).brevity == 0


@pytest.mark.parametrize("turns", [[], [PastTurn("system", "x")], [PastTurn("assistant", "x")], [PastTurn("user", "")]])
def test_there_need_not_be_a_question(turns: list[PastTurn]) -> None:
    assert all(0 <= value <= 1 for value in astuple(features_of(turns, 0)))


TURNS = st.lists(
    st.builds(
        PastTurn,
        st.sampled_from(["system", "user", "assistant", "tool"]),
        st.text(max_size=300) | st.sampled_from([CODE, "```", "x^2 = ", "\ud83d", "« „ “ 「", '"' * 40]),
        st.booleans(),
        st.integers(0, 9),
    ),
    max_size=6,
)


@given(TURNS, st.integers(0, 200))
def test_every_feature_is_from_0_to_1_whatever_is_said(turns: Any, num_tools: int) -> None:
    found = features_of(turns, num_tools)
    assert {
        each.name: getattr(found, each.name) for each in fields(found) if not 0 <= getattr(found, each.name) <= 1
    } == {}


@given(st.text(max_size=200), st.text(max_size=200))
def test_only_the_length_of_the_middle_of_a_long_message_counts(middle: str, other: str) -> None:
    filler = "x" * 5000
    texts = [f"{filler}{each:_<200}{filler}" for each in (middle, other)]
    assert of(texts[0]) == of(texts[1])


UNITS = (
    "please compare both plans, ",
    "def f(x):\n    return 1;\n",
    "请分析数据。",
    "```\n",
    "a/",
    "a.b:",
    "at x(",
    "/nothink ",
)
SINGLE = '"«„「\n\t a:.<;#\u3000'


@pytest.mark.parametrize("unit", [*UNITS, *SINGLE, "1,", "x=", "+-", "\\frac"])
def test_no_message_of_100000_characters_takes_long(unit: str) -> None:
    """Of the processor, ten times what it takes on a busy machine: a pattern that looks back takes seconds."""
    text = (unit * LONG)[:LONG]
    turns = [PastTurn("system", text), PastTurn("user", text), PastTurn("tool", text)]
    with cpu_time.at_most(0.1):
        features_of(turns, 10)
