"""The data of glm-nano: seeded, split for ever, rendered by the template that serves."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
from tokenizers import Tokenizer

FOLDER = Path(__file__).parents[3] / "worker/models/glm-nano"
TASKS = ("arithmetic", "capitals", "tool_call", "tool_answer", "count", "json", "talk")


@pytest.fixture(scope="module")
def tasks() -> Iterator[ModuleType]:
    """Import the script by its plain name, as its neighbours do, and keep such names out of other tests."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("tasks")
    finally:
        sys.path.remove(str(FOLDER))
        for name in {path.stem for path in FOLDER.glob("*.py")} - before:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def test_the_same_seed_draws_the_same_samples(tasks: ModuleType) -> None:
    first, second = ([tasks.draw_sample(rng) for _ in range(50)] for rng in (Random(3), Random(3)))
    assert first == second


@pytest.mark.parametrize("task", TASKS)
def test_held_out_samples_are_never_trained_on(tasks: ModuleType, task: str) -> None:
    rng = Random(4)
    trained = {tasks.draw_sample(rng, task).key for _ in range(300)}
    held_out = {tasks.draw_sample(rng, task, held_out=True).key for _ in range(50)}
    assert not trained & held_out
    assert all(map(tasks.is_held_out, held_out))


@pytest.mark.parametrize("task", TASKS)
def test_every_sample_survives_the_tokenizer(tasks: ModuleType, tokenizer: Tokenizer, task: str) -> None:
    rng = Random(5)
    for _ in range(50):
        sample = tasks.draw_sample(rng, task)
        prompt, completion = sample.prompt(), sample.completion()
        ids = tokenizer.encode(prompt).ids + tokenizer.encode(completion).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == prompt + completion


@pytest.mark.parametrize("task", TASKS)
def test_a_completion_ends_with_a_stop_token_and_contains_no_other(
    tasks: ModuleType, tokenizer: Tokenizer, task: str
) -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    rng = Random(6)
    for _ in range(50):
        *answer, stop = tokenizer.encode(tasks.draw_sample(rng, task).completion()).ids
        assert stop in config["eos_token_id"]
        assert not set(answer) & set(config["eos_token_id"])


@pytest.mark.parametrize("task", TASKS)
def test_without_thinking_a_held_out_completion_has_no_thoughts(tasks: ModuleType, task: str) -> None:
    rng = Random(7)
    for _ in range(50):
        assert "think>" not in tasks.draw_sample(rng, task, held_out=True, thinking=False).completion()


@pytest.mark.parametrize(
    ("a", "operator", "b", "steps"),
    [
        (12, "+", 30, "12 + 30: ones 2 + 0 = 2, carry 0; tens 1 + 3 + 0 = 4; answer 42"),
        (57, "+", 68, "57 + 68: ones 7 + 8 = 15, carry 1; tens 5 + 6 + 1 = 12; answer 125"),
        (52, "-", 38, "52 - 38: ones 12 - 8 = 4, borrow 1; tens 5 - 3 - 1 = 1; answer 14"),
        (
            38,
            "-",
            52,
            "38 is less than 52, so minus 52 - 38: ones 12 - 8 = 4, borrow 1; tens 5 - 3 - 1 = 1; answer -14",
        ),
        (47, "*", 6, "47 * 6: ones 7 * 6 = 42, carry 4; tens 4 * 6 = 24, 24 + 4 = 28; answer 282"),
    ],
)
def test_worked_steps(tasks: ModuleType, a: int, operator: str, b: int, steps: str) -> None:
    assert sys.modules["arithmetic"].worked_steps(a, operator, b) == steps


def test_a_calculator_is_never_offered_where_the_model_must_calculate_itself(tasks: ModuleType) -> None:
    rng = Random(8)
    offered = [
        tool["function"]["name"]
        for _ in range(200)
        for sample in [tasks.draw_sample(rng, "arithmetic")]
        for tool in sample.tools
    ]
    assert "calculator" not in offered
    assert offered  # other tools are
