"""What is computed of prompts that begin alike, counted in the real engine on the model that is shipped.

Prompts are rendered by the server's own code, turn after turn as a client sends them; answers are read by it too.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from glm_worker.kernels.cpu import library
from glm_worker.kernels.cpu.library import KernelsUnavailable, Library, available_isas
from glm_worker.messages import EngineReady, Policy
from glm_worker.model import glm_moe
from glm_worker.request import EngineRequest
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.jobs.context import Caller, Context, Rules
from glm_worker.server.jobs.job import Room
from glm_worker.server.openai.chat.intake import chat_order
from glm_worker.server.text import deltas
from integration.engine_group import Answer, EngineGroup, engine_group
from integration.tiny_models import NANO

BLOCK_SIZE = 4
SETTINGS: Any = {"block_size": BLOCK_SIZE, "threads_per_rank": 1}
CHECKPOINT = Checkpoint.read(NANO, name="glm-nano", max_model_len=2048)
QUESTIONS = ("What is 12+30?", "What is the capital of France?", "And what is 7+8?")
Messages = list[dict[str, Any]]
Engine = tuple[EngineGroup, EngineReady]


@dataclass
class Turn:
    """One turn of a chat, as it was computed."""

    num_prompt: int
    num_computed: int  # of the prompt
    num_said_cached: int
    num_generated: int
    message: dict[str, Any]
    token_ids: list[int]


def the_request(
    name: str, messages: Messages, *, tenant: str = "", is_shared: bool = True
) -> tuple[Any, EngineRequest]:
    body = {
        "model": "glm-nano",
        "messages": messages,
        "temperature": 0,
        "max_tokens": 60,
        "thinking": {"type": "disabled"},
    }
    rules = Rules(prefix_block_size=BLOCK_SIZE if is_shared else 0)
    caller = Caller(request_id=name, tenant=tenant)
    context = Context(checkpoint=CHECKPOINT, rules=rules, policy=Policy(), caller=caller)
    (job,) = chat_order(json.dumps(body).encode(), context).jobs
    return job, job.engine_request(Room(2048))


def turn(group: EngineGroup, name: str, messages: Messages, **how: Any) -> Turn:
    """Ask, alone; return what it took."""
    job, request = the_request(name, messages, **how)
    first_step = len(group.steps)
    (answer,) = group.answer(request)
    ended: Any = answer.endings[0]
    read = deltas.assemble(job.reader().feed(answer.token_ids, ended))
    return Turn(
        num_prompt=len(job.prompt_token_ids),
        num_computed=sum(step.prefill_tokens for step in group.steps[first_step:]),
        num_said_cached=cached_tokens(group, request, first_step),
        num_generated=len(answer.token_ids),
        message={"role": "assistant", "content": read.content},
        token_ids=answer.token_ids,
    )


def cached_tokens(group: EngineGroup, request: EngineRequest, first_step: int) -> int:
    outputs = [o for step in group.steps[first_step:] for o in step.outputs if o.request_id == request.request_id]
    assert all(output.cached_tokens == 0 for output in outputs[1:])
    return outputs[0].cached_tokens


def chat(group: EngineGroup, name: str, **how: Any) -> list[Turn]:
    turns: list[Turn] = []
    messages: Messages = []
    for number, question in enumerate(QUESTIONS):
        messages.append({"role": "user", "content": question})
        turns.append(turn(group, f"{name}-{number}", messages, **how))
        messages.append(turns[-1].message)
    return turns


@dataclass(frozen=True)
class Way:
    """What all ranks compute by, and in which type. isa: of the kernels in C; empty: the best; None: torch computes."""

    isa: str | None
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __str__(self) -> str:
        return f"{'torch' if self.isa is None else self.isa or 'the best'}-{self.dtype}"

    def choose(self) -> None:
        """Run in a rank before it loads."""
        if self.isa is None:
            glm_moe.load = _unavailable
        else:
            os.environ[library.VARIABLE] = self.isa

    def is_of(self, ready: EngineReady) -> bool:
        return ready.kernels == ("torch" if self.isa is None else f"cpu-{self.isa or available_isas()[-1]}")


def _unavailable() -> Library:
    raise KernelsUnavailable("not wanted here")


OFTEN = [Way(None), Way(""), Way("", "bfloat16")]
SELDOM = [Way(isa, dtype) for isa in available_isas()[:-1] for dtype in ("float32", "bfloat16")]


@pytest.fixture(
    scope="module", params=[*OFTEN, *(pytest.param(way, marks=pytest.mark.long) for way in SELDOM)], ids=str
)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


def engine_by(way: Way, world_size: int = 1, **settings: Any) -> AbstractContextManager[Engine]:
    return engine_group(NANO, world_size, changed=way.choose, dtype=way.dtype, **settings)


@pytest.fixture(scope="module")
def group(way: Way) -> Iterator[EngineGroup]:
    with engine_by(way, **SETTINGS) as (group, ready):
        assert way.is_of(ready)
        assert ready.deterministic
        yield group


def test_every_turn_of_a_chat_computes_only_what_is_new(group: EngineGroup) -> None:
    first, *later = chat(group, "turns")
    assert (first.num_computed, first.num_said_cached) == (first.num_prompt, 0)
    before = first
    for each in later:
        # All that was said, but the block that was not full, and the last token, which is never computed
        kept = before.num_prompt + before.num_generated - 1
        new = each.num_prompt - kept
        assert new <= each.num_computed <= new + BLOCK_SIZE
        assert each.num_computed + each.num_said_cached == each.num_prompt
        before = each


def test_a_chat_says_the_same_whether_or_not_it_is_cached(group: EngineGroup) -> None:
    cached, again, uncached = (
        chat(group, name, tenant="same", is_shared=is_shared)
        for name, is_shared in (("cached", True), ("again", True), ("uncached", False))
    )
    assert all(each.num_computed == each.num_prompt for each in uncached)
    assert all(each.num_computed <= BLOCK_SIZE for each in again)
    assert [each.token_ids for each in cached] == [each.token_ids for each in uncached]
    assert [each.token_ids for each in again] == [each.token_ids for each in uncached]


def test_a_prompt_that_is_there_as_a_whole_computes_its_last_token(group: EngineGroup) -> None:
    messages: Messages = [{"role": "user", "content": "What is 3+4?"}]
    once, twice = (turn(group, name, messages) for name in ("once", "twice"))
    assert 1 <= twice.num_computed <= BLOCK_SIZE
    assert twice.token_ids == once.token_ids


def test_a_tenant_finds_nothing_of_another(group: EngineGroup) -> None:
    messages: Messages = [{"role": "user", "content": "What is 5+6?"}]
    turn(group, "of-a", messages, tenant="a")
    of_b = turn(group, "of-b", messages, tenant="b")
    assert of_b.num_computed == of_b.num_prompt


def together(group: EngineGroup, prefix: str) -> tuple[list[EngineRequest], Sequence[Answer]]:
    texts = [f"What is {n}+{n + 1}? Think of the capital of France, too." for n in range(6)]
    requests = [the_request(f"{prefix}-{n}", [{"role": "user", "content": text}])[1] for n, text in enumerate(texts)]
    return requests, group.answer(*requests)


@pytest.mark.parametrize("world_size", [1, 2])
def test_tokens_are_the_same_preempted_found_again_and_undisturbed(
    group: EngineGroup, way: Way, world_size: int
) -> None:
    requests, undisturbed = together(group, f"undisturbed-{world_size}")
    num_blocks = max(len(each.prompt_token_ids) for each in requests) + 60 // BLOCK_SIZE
    settings = SETTINGS | {"kv_cache_bytes": num_blocks * block_bytes(way)}
    with engine_by(way, world_size, **settings) as (tight, ready):
        assert way.is_of(ready)
        assert ready.limits.num_blocks == num_blocks
        first, second = (together(tight, name)[1] for name in ("first", "second"))
        last = tight.steps[-1]
        assert (last.num_preemptions > 0, last.kv_blocks_used) == (True, 0)
    for each in (first, second):
        assert [answer.token_ids for answer in each] == [answer.token_ids for answer in undisturbed]


def block_bytes(way: Way) -> int:
    config = json.loads((NANO / "config.json").read_text())
    numbers = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * BLOCK_SIZE
    return int(numbers * (4 if way.dtype == "float32" else 2))
