"""The bound on thoughts that the engine keeps."""

import pytest

from glm_worker.models import resolve
from glm_worker.request import Thought
from glm_worker.server.text.tokenizer import Tokenizer
from glm_worker.server.thinking.resolve import Thinking
from glm_worker.server.thinking.thought import thought_of
from glm_worker.server.thinking.traits import TemplateTraits

IDS = {"<think>": 7, "</think>": 8}
GLM = TemplateTraits()
BOUND = Thinking(enabled=True, by="request", budget_tokens=300)


def thought(thinking: Thinking = BOUND, traits: TemplateTraits = GLM, *, begins_open: bool = False) -> Thought | None:
    return thought_of(
        thinking, traits, begins_open=begins_open, token_id=IDS.get, encode=lambda text: [ord(char) for char in text]
    )


@pytest.mark.parametrize("begins_open", [True, False])
def test_a_budget_is_a_bound_that_ends_with_the_end_of_the_thought(begins_open: bool) -> None:
    assert thought(begins_open=begins_open) == Thought(
        open_id=7, close_id=8, begins_open=begins_open, max_tokens=300, forced_ids=[8]
    )


def test_a_template_that_breaks_the_line_before_the_end_gets_it() -> None:
    found = thought(traits=TemplateTraits(before_end="\n"))
    assert found is not None
    assert found.forced_ids == [10, 8]


@pytest.mark.parametrize("thinking", [Thinking(enabled=True, by="template"), Thinking(enabled=False, by="request")])
def test_without_a_budget_there_is_nothing_to_bound(thinking: Thinking) -> None:
    assert thought(thinking) is None


@pytest.mark.parametrize("missing", IDS)
def test_a_vocabulary_without_thoughts_has_none_to_bound(missing: str) -> None:
    ids = {token: id_ for token, id_ in IDS.items() if token != missing}
    assert thought_of(BOUND, TemplateTraits(), begins_open=False, token_id=ids.get, encode=lambda text: []) is None


def test_a_budget_of_0_closes_an_open_thought_at_once() -> None:
    found = thought(Thinking(enabled=True, by="template", budget_tokens=0), begins_open=True)
    assert found is not None
    assert (found.max_tokens, found.begins_open) == (0, True)


def test_the_shipped_tokenizer_knows_both_ends() -> None:
    tokenizer = Tokenizer.load(resolve("builtin://glm-nano"))
    found = thought_of(BOUND, TemplateTraits(), begins_open=False, token_id=tokenizer.token_id, encode=tokenizer.encode)
    assert found is not None
    assert found.forced_ids == [tokenizer.token_id("</think>")]
