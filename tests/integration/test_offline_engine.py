"""`from glm_worker import Engine` with the shipped model, as a notebook uses it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
import zmq

from glm_worker import Engine
from glm_worker.errors import ConfigError, DeadlinePassed, EngineFailed, RequestRefused
from integration.rank_pool import hold_torch_to_one_thread

hold_torch_to_one_thread()

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def asking(text: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module", autouse=True)
def _no_zmq_threads_are_left() -> Iterator[None]:
    """Other tests fork, which is safe only beside no threads."""
    yield
    zmq.Context.instance().term()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine("glm-nano", threads=1, max_num_seqs=4) as engine:
        yield engine


def test_a_chat_is_answered_with_its_thought_and_its_usage(engine: Engine) -> None:
    result = engine.chat(asking("What is 17 + 25?"), temperature=0)
    assert "42" in result.text
    assert "answer 42" in result.reasoning
    assert result.finish_reason == "stop"
    assert 0 < result.usage.reasoning_tokens < result.usage.completion_tokens
    assert result.body["object"] == "chat.completion"
    assert result.body["model"] == engine.name == "glm-nano"


def test_a_call_of_a_tool_is_read(engine: Engine) -> None:
    result = engine.chat(asking("What is the weather in Paris?"), tools=[TOOL], tool_choice="required", temperature=0)
    (call,) = result.tool_calls
    assert call.name == "get_weather"
    assert json.loads(call.arguments).keys() == {"city"}


def test_an_answer_keeps_a_schema(engine: Engine) -> None:
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema | {"additionalProperties": False}}}
    result = engine.chat(asking("What is 3 + 4?"), response_format=wanted, temperature=0)
    assert json.loads(result.text).keys() == {"sum"}


def test_several_answers_to_one_request_are_all_there(engine: Engine) -> None:
    result = engine.chat(asking("Say something."), n=3, seed=5, max_tokens=8)
    assert len(result.choices) == 3
    assert result.text == result.choices[0].text


def test_conversations_are_computed_together_and_come_in_their_order(engine: Engine) -> None:
    questions = [f"What is {number} + 4?" for number in range(20)]
    alone = [engine.chat(asking(question), temperature=0).text for question in questions[:3]]
    steps_before = engine_steps(engine)
    together = list(engine.chats((asking(question) for question in questions), temperature=0))
    num_tokens = sum(result.usage.completion_tokens for result in together)
    assert [result.text for result in together][:3] == alone
    assert [result.text for result in together] == [f"{number} + 4 = {number + 4}" for number in range(20)]
    assert engine_steps(engine) - steps_before < num_tokens / 2, "four of them share each step"


def engine_steps(engine: Engine) -> int:
    last = engine._group._flights._last_step
    return 0 if last is None else last.step


def test_prompts_are_read_as_there_is_room_for_them(engine: Engine) -> None:
    taken = []

    def prompts() -> Iterator[str]:
        for number in count():
            taken.append(number)
            yield "The"

    results = engine.generate(prompts(), max_tokens=2, seed=1)
    assert next(results).finish_reason == "length"
    assert len(taken) == engine.num_under_way
    results.close()  # type: ignore[attr-defined]


def test_an_answer_streams_and_adds_up_to_the_whole(engine: Engine) -> None:
    whole = engine.chat(asking("What is 8 + 5?"), temperature=0)
    pieces = list(engine.stream(asking("What is 8 + 5?"), temperature=0))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert "".join(piece.reasoning for piece in pieces) == whole.reasoning
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == ["stop"]
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len(pieces) > 10


def test_a_stream_that_is_left_is_cancelled(engine: Engine) -> None:
    stream = engine.stream(asking("Tell a long story."), max_tokens=1500, ignore_eos=True)
    next(stream)
    assert len(engine._group._flights) == 1
    stream.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + DEADLINE_S
    while len(engine._group._flights):
        assert time.monotonic() < deadline, "the engine goes on for nobody"
        time.sleep(0.01)


def test_a_request_that_is_cancelled_leaves_nothing_in_flight(engine: Engine) -> None:
    body = {"model": engine.name, "prompt": "The", "max_tokens": 1500, "ignore_eos": True}
    asked = engine.request("/v1/completions", body)
    deadline = time.monotonic() + DEADLINE_S
    while not len(engine._group._flights):
        assert time.monotonic() < deadline, "nothing was admitted"
        time.sleep(0.01)
    asked.cancel()
    with pytest.raises(CancelledError):
        asked.result()
    while len(engine._group._flights):
        assert time.monotonic() < deadline, "the engine goes on for nobody"
        time.sleep(0.01)


def test_threads_share_steps(engine: Engine) -> None:
    with ThreadPoolExecutor(4) as threads:
        texts = list(threads.map(lambda n: engine.chat(asking(f"What is {n} + 1?"), temperature=0).text, range(8)))
    assert texts == [f"{number} + 1 = {number + 1}" for number in range(8)]


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"temperature": 9}, "temperature is 9; allowed: 0 to 2"),
        ({"temprature": 1}, "temprature"),
        ({"max_tokens": 100_000}, "this model's maximum context length is 2048 tokens"),
        ({"model": "gpt-5"}, "the model 'gpt-5' does not exist here"),
    ],
)
def test_what_cannot_be_asked_is_refused_as_over_http(engine: Engine, params: dict[str, object], sentence: str) -> None:
    with pytest.raises(RequestRefused, match=sentence):
        engine.chat(asking("Hello"), **params)
    with pytest.raises(RequestRefused, match=sentence):
        list(engine.stream(asking("Hello"), **params))


def test_a_deadline_is_kept(engine: Engine) -> None:
    with pytest.raises(DeadlinePassed, match=r"within the 0\.01 seconds"):
        engine.chat(asking("Hello"), max_tokens=1500, ignore_eos=True, deadline_s=0.01)


def test_stream_is_a_method_and_no_parameter(engine: Engine) -> None:
    with pytest.raises(ConfigError, match=r"Engine\.stream yields"):
        engine.chat(asking("Hello"), stream=True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model": "no-such-model"}, "no such built-in model; there are glm-nano"),
        ({"model": "/no/such/folder"}, "/no/such/folder is not a folder"),
        ({"model": "glm-nano", "device": "cuda"}, "cuda"),
        ({"model": "glm-nano", "max_model_len": 1_000_000}, "is more than the 2048 tokens the model was made for"),
        ({"model": "glm-nano", "http_port": 1}, "http_port is no setting of an engine"),
        ({"model": "glm-nano", "kv_cache_bytes": 1}, "GLM_KV_CACHE_BYTES=1 is less than one block"),
        ({"model": "glm-nano", "dtype": "int8"}, "GLM_DTYPE=int8"),
        ({"model": "glm-nano", "threads": 100_000}, "GLM_THREADS_PER_RANK=100000: .* less than or equal to 1024"),
        ({"model": "glm-nano", "threads": 1, "threads_per_rank": 1}, "threads_per_rank is given twice"),
    ],
)
def test_what_cannot_be_loaded_is_a_clear_error(arguments: dict[str, object], sentence: str) -> None:
    threads = threading.active_count()
    with pytest.raises(ConfigError, match=sentence):
        Engine(**arguments)  # type: ignore[arg-type]
    deadline = time.monotonic() + DEADLINE_S
    while threading.active_count() > threads:
        assert time.monotonic() < deadline, "a thread was left behind"
        time.sleep(0.01)


def test_an_engine_that_fails_says_so_to_all_who_wait_and_come() -> None:
    with Engine("glm-nano", threads=1) as engine:
        stream = engine.stream(asking("Tell a long story."), max_tokens=1500, ignore_eos=True)
        next(stream)
        engine._group._rank._slot.close()  # its next heartbeat fails, as a broken step does
        with pytest.raises(EngineFailed, match="the engine failed: ValueError"):
            list(stream)
        with pytest.raises(EngineFailed, match="the engine failed: ValueError"):
            engine.chat(asking("Hello"))


def test_an_engine_that_is_closed_answers_nobody() -> None:
    engine = Engine("glm-nano", threads=1)
    engine.close()
    engine.close()
    with pytest.raises(EngineFailed, match="closed"):
        engine.chat(asking("Hello"))


def test_who_waits_is_told_that_another_thread_has_closed_the_engine() -> None:
    long = {"max_tokens": 1500, "ignore_eos": True}
    with Engine("glm-nano", threads=1, prefix_cache=False) as engine, ThreadPoolExecutor(4) as threads:
        stream, unread = (engine.stream(asking("Tell a long story."), **long) for _ in range(2))
        next(stream)
        next(unread)
        body = {"model": engine.name, "prompt": "The", **long}
        waiting = [
            threads.submit(lambda: engine.chat(asking("Tell a long story."), **long)),
            threads.submit(lambda: list(engine.generate(["The", "A"], **long))),
            threads.submit(lambda: list(stream)),
            engine.request("/v1/completions", body),
        ]
        deadline = time.monotonic() + DEADLINE_S
        while len(engine._group._flights) < 6:
            assert time.monotonic() < deadline, "not all were admitted"
            time.sleep(0.01)
        engine.close()
        for asked in (*waiting, threads.submit(lambda: list(unread))):
            with pytest.raises(EngineFailed, match="closed"):
                asked.result(DEADLINE_S)  # type: ignore[attr-defined]


def test_the_package_is_cheap_to_import_until_an_engine_is_asked_for() -> None:
    code = "import sys, glm_worker; print(sorted({'torch', 'fastapi', 'zmq'} & sys.modules.keys()))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "worker")}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
