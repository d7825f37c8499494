"""The data of glm-nano: seeded, split for ever, rendered by the template that serves."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
from tokenizers import Tokenizer

FOLDER = Path(__file__).parents[3] / "worker/models/glm-nano"
TASKS = (
    "arithmetic",
    "capitals",
    "tool_call",
    "tool_answer",
    "count",
    "json",
    "talk",
    "chain",
    "whole_chain",
    "one_at_a_time",
)
AFTER_CHAINS = 7000  # a step of the training at which chains are drawn


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


def steps(sample: Any) -> list[Any]:
    """Return the assistant's messages to the last question."""
    asked = max(index for index, message in enumerate(sample.messages) if message["role"] == "user")
    return [message for message in sample.messages[asked:] if message["role"] == "assistant"]


def the_call(message: Any) -> tuple[str, str]:
    (call,) = message["tool_calls"]
    (argument,) = call["function"]["arguments"].values()
    return call["function"]["name"], argument


def test_a_chain_calls_the_weather_first_and_puts_its_temperature_into_the_sum(tasks: ModuleType) -> None:
    rng = Random(9)
    chains = [tasks.draw_sample(rng, "whole_chain") for _ in range(1500)]
    asked = [each for each in chains if "chain What is {e} plus the temperature in {city}? " in each.key]
    whole = [each for each in asked if len(steps(each)) == 3]
    assert len(whole) >= 3
    for sample in whole:
        weather, calculator, answer = steps(sample)
        told, result = [message["content"] for message in sample.messages if message["role"] == "tool"][-2:]
        (name, city), (then, expression) = the_call(weather), the_call(calculator)
        term, _, temperature = expression.rpartition(" + ")
        assert (name, then) == ("get_weather", "calculator")
        assert sample.key.endswith(f" {city}")
        assert f" {term} " in sample.key
        assert temperature in told
        assert answer["content"].startswith((f"{expression} = ", f"Sorry, I could not calculate {expression}: "))
        assert answer["content"].startswith("Sorry") or answer["content"].rpartition(" = ")[2] in result


def test_a_chain_calls_in_the_order_of_the_question(tasks: ModuleType) -> None:
    rng = Random(10)
    first_calls = {"calculator": 0, "get_weather": 0}
    for _ in range(400):
        sample = tasks.draw_sample(rng, "whole_chain", held_out=True)
        template = sample.key.removeprefix("chain ")
        if template.startswith(("First calculate", "First check the weather")):
            name, _ = the_call(steps(sample)[0])
            assert name == ("calculator" if template.startswith("First calculate") else "get_weather")
            first_calls[name] += 1
    assert min(first_calls.values()) > 0


def test_a_chain_stops_at_a_failure_and_tells_it(tasks: ModuleType) -> None:
    rng = Random(11)
    num_failed = 0
    for _ in range(300):
        sample = tasks.draw_sample(rng, "whole_chain", held_out=True)
        *calling, answer = steps(sample)
        if len(calling) == 1:
            num_failed += 1
            assert answer["content"].startswith("Sorry, I could not ")
    assert num_failed > 10


def test_the_samples_of_chains_end_at_every_step(tasks: ModuleType) -> None:
    rng = Random(12)
    num_steps = [len(steps(tasks.draw_sample(rng, "chain", step=AFTER_CHAINS))) for _ in range(100)]
    assert {1, 2, 3} == set(num_steps)


@pytest.mark.parametrize(
    ("expression", "value"),
    [("17 + 25 + 21", 63), ("21 - -4", 25), ("(21 + -4) / 2", 8.5), ("2 * -7", -14), ("-3 + 4 * 2", 5)],
)
def test_the_value_of_an_expression(tasks: ModuleType, expression: str, value: float) -> None:
    assert sys.modules["chains"].evaluated(expression) == value


def test_what_others_decided_is_not_learned(tasks: ModuleType, tokenizer: Tokenizer) -> None:
    batches = importlib.import_module("batches")
    encoder, rng = batches.Encoder(tokenizer), Random(13)
    for task, learns_more in (("one_at_a_time", False), ("whole_chain", True)):
        samples = [tasks.draw_sample(rng, task, thinking=False) for _ in range(30)]
        extra = [sum(encoder.encode(sample)[1]) - len(tokenizer.encode(sample.completion()).ids) for sample in samples]
        assert any(extra) == learns_more


def test_clients_ways_of_writing_a_tool_change_neither_its_name_nor_its_parameters(tasks: ModuleType) -> None:
    rng = Random(14)
    texts = set()
    for _ in range(200):
        sample = tasks.draw_sample(rng, "tool_call", step=AFTER_CHAINS)
        for tool in sample.tools:
            function = tool["function"]
            texts.add(json.dumps(function))
            if function["name"] in ("get_weather", "calculator"):
                wanted = {"get_weather": "city", "calculator": "expression"}[function["name"]]
                assert function["parameters"]["properties"][wanted]["type"] == "string"
    joined = "".join(texts)
    assert all(mark in joined for mark in ('"title"', '"$schema"', "Args:", '"strict": true'))
