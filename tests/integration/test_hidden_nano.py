"""The model that is shipped, asked by those who may not read its thought: nothing makes it write that as its answer."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from glm_worker.messages import Policy, ReasoningPolicy
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.jobs.context import Caller, Context, Rules
from glm_worker.server.jobs.job import Room
from glm_worker.server.openai.chat.intake import chat_order
from glm_worker.server.text import deltas
from integration.engine_group import EngineGroup, engine_group
from integration.tiny_models import NANO

HIDDEN, SEEN = Policy(reasoning=ReasoningPolicy(visibility="hidden")), Policy()
CHECKPOINT = Checkpoint.read(NANO, name="glm-nano", max_model_len=2048)
THOUGHT = "12 + 30: ones 2 + 0 = 2, carry 0; tens 1 + 3 = 4"  # as the model writes it, more or less
QUESTION = {"role": "user", "content": "What is 12+30?"}


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineGroup]:
    with engine_group(NANO) as (group, _):
        yield group


def answer(engine: EngineGroup, policy: Policy, name: str, **fields: Any) -> deltas.Answer:
    body = {"model": "glm-nano", "messages": [QUESTION], "temperature": 0, "max_tokens": 60, **fields}
    caller = Caller(request_id=name)
    context = Context(checkpoint=CHECKPOINT, rules=Rules(), policy=policy, caller=caller)
    (job,) = chat_order(json.dumps(body).encode(), context).jobs
    (said,) = engine.answer(job.engine_request(Room(2048)))
    ended: Any = said.endings[0]
    return deltas.assemble(job.reader().feed(said.token_ids, ended))


def all_but_the_tags(bias: float) -> dict[str, float]:
    ids = {*CHECKPOINT.tokenizer.encode(THOUGHT), *CHECKPOINT.tokenizer.encode("\n;,.=0123456789")}
    return {str(token_id): bias for token_id in sorted(ids)}


@pytest.mark.parametrize("bias", [5, 25, 100])
def test_no_bias_on_other_tokens_makes_the_model_think_in_its_answer(engine: EngineGroup, bias: float) -> None:
    fields = {"logit_bias": all_but_the_tags(bias)}
    hidden = answer(engine, HIDDEN, "hidden", **fields)
    assert hidden.reasoning
    assert hidden.content in ("", "12 + 30 = 42")
    if bias > 5:
        seen = answer(engine, SEEN, "seen", **fields)
        assert (seen.reasoning, bool(seen.content)) == ("", True), "so the bias alone would tell it"
