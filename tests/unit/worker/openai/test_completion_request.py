"""What completions accept: prompts of every kind, echo, suffix, and what does not go together."""

import json
from dataclasses import replace
from typing import Any

import pytest
import tokenizers

from glm_worker.errors import RequestRefused
from glm_worker.models import resolve
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.completions.intake import echoed
from glm_worker.server.openai.completions.request import CompletionRequest
from glm_worker.server.refusals import parse
from glm_worker.server.text.tokenizer import Tokenizer
from unit.worker.orders import completion_of
from unit.worker.server_builders import checkpoint, tokenizer


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "glm-nano", **fields}).encode()


def an_order(of: Checkpoint | None = None, **fields: Any) -> Order:
    return completion_of(body(**fields), of)


def refused(of: Checkpoint | None = None, **fields: Any) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        an_order(of, **fields)
    return caught.value


def a_coder() -> Checkpoint:
    """Return the shipped checkpoint with code tokens in its vocabulary."""
    inner = tokenizers.Tokenizer.from_file(str(resolve("builtin://glm-nano") / "tokenizer.json"))
    inner.add_special_tokens(["<|code_prefix|>", "<|code_middle|>", "<|code_suffix|>"])
    return replace(checkpoint(), tokenizer=Tokenizer(inner), vocab_size=2048)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("1 2", [tokenizer().encode("1 2")]),
        ([5, 6], [[5, 6]]),
        (["1 2"], [tokenizer().encode("1 2")]),
        (["1 2", "3"], [tokenizer().encode("1 2"), tokenizer().encode("3")]),
        ([[5, 6], [7]], [[5, 6], [7]]),
    ],
)
def test_a_prompt_is_text_or_token_ids_or_several_of_one_kind(prompt: Any, prompts: list[list[int]]) -> None:
    assert [job.prompt_token_ids for job in an_order(prompt=prompt).jobs] == prompts


def test_answers_go_prompt_by_prompt() -> None:
    jobs = an_order(prompt=[[5], [6]], n=2, seed=3).jobs
    assert [job.prompt_token_ids for job in jobs] == [[5], [5], [6], [6]]
    assert [job.sampling.seed for job in jobs] == [3, 4, 3, 4]
    assert an_order(prompt=[[5], [6, 7]], n=2).num_prompt_tokens == 3


@pytest.mark.parametrize("prompt", [[1, "a"], ["a", 1], ["a", [1]], None, 5, {"a": 1}, [["a"]], [None], [1.5]])
def test_prompts_that_are_none_are_told_what_to_send(prompt: Any) -> None:
    error = refused(prompt=prompt)
    assert error.param == "prompt"
    assert "allowed: a text, a list of token ids, or a list of at most 64" in error.message


@pytest.mark.parametrize("prompt", ["", [], [""], [[]], ["a", ""]])
def test_an_empty_prompt_is_refused(prompt: Any) -> None:
    assert "at least one token" in refused(prompt=prompt).message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": [[5]] * 65}, "prompt"),
        ({"prompt": ["a"] * 33, "n": 2}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": True, "logprobs": 0}, "echo"),
        ({"echo": True, "suffix": "x"}, "echo"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"thinking": {"type": "enabled"}}, "thinking"),
        ({"guided_regex": "a"}, "guided_regex"),
    ],
)
def test_what_completions_do_not_do_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refused(**{"prompt": "x", **fields}).param == param


def test_as_many_answers_as_are_allowed() -> None:
    assert len(an_order(prompt=["a"] * 32, n=2).jobs) == 64
    assert len(an_order(prompt="a", n=2, best_of=2).jobs) == 2


@pytest.mark.parametrize("logprobs", [0, 5])
def test_logprobs_are_asked_of_the_engine(logprobs: int) -> None:
    assert an_order(prompt="x", logprobs=logprobs).jobs[0].num_logprobs == logprobs


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("1 2", ["1 2"]),
        (["1", "数"], ["1", "数"]),
        (tokenizer().encode("<|user|>数 1"), ["<|user|>数 1"]),
    ],
)
def test_the_prompt_is_told_back_as_text(prompt: Any, texts: list[str]) -> None:
    request = parse(CompletionRequest, body(prompt=prompt, echo=True))
    assert echoed(request, checkpoint()) == texts
    assert not echoed(parse(CompletionRequest, body(prompt=prompt)), checkpoint())


def test_a_suffix_without_code_tokens_is_refused_with_the_models_name() -> None:
    error = refused(prompt="def f(", suffix="return x")
    assert (error.status, error.param, error.code) == (400, "suffix", "unsupported_parameter")
    assert "'glm-nano' has no <|code_prefix|>" in error.message


def test_a_suffix_goes_behind_its_token_before_the_middle_begins() -> None:
    coder = a_coder()
    (job,) = an_order(coder, prompt="a b", suffix="c d").jobs
    assert coder.tokenizer.decode(job.prompt_token_ids) == "<|code_prefix|>a b<|code_suffix|>c d<|code_middle|>"
    assert job.prompt_token_ids[0] == coder.tokenizer.token_id("<|code_prefix|>")
    assert len(an_order(coder, prompt=["a", "b"], suffix="c").jobs) == 2
    assert refused(coder, prompt=[5, 6], suffix="c").param == "suffix"
    assert an_order(coder, prompt="a b", suffix="").jobs[0].prompt_token_ids == coder.tokenizer.encode("a b")


@pytest.mark.parametrize("param", ["prompt", "suffix"])
def test_a_text_around_the_middle_that_cannot_fit_is_refused_by_its_name(param: str) -> None:
    error = refused(a_coder(), **{"prompt": "a", "suffix": "b", param: "x" * (2048 * 20)})
    assert (error.param, error.code) == (param, "context_length_exceeded")
