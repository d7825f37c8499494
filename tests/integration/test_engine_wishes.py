"""What requests ask of their tokens, in real rank processes: alone, in a batch, after preemptions, on two ranks.

A tiny random model with the shipped model's vocabulary, so that grammars and tags mean something. As in test_engine.py
tokens are compared where numbers of ranks differ; at equal ranks everything is equal to the bit.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import msgspec
import pytest
import tokenizers
import xgrammar

from glm_worker.model.grammar_vocabulary import grammar_vocabulary, pack_grammar
from glm_worker.request import AnswerGrammar, EngineRequest, SamplingParams, Thought
from integration.engine_group import Answer, EngineGroup, a_request, engine_group
from integration.rank_pool import hold_torch_to_one_thread
from integration.tiny_models import NANO, a_config, write_checkpoint

EOS, USER, OBSERVATION, THINK, END_THINK = 1003, 1010, 1012, 1013, 1014
STOPS = [EOS, USER, OBSERVATION]
BLOCK_SIZE = 4
BLOCK_BYTES = 2 * 3 * BLOCK_SIZE * 4 * 16 * 4  # K and V, layers, tokens, KV heads, head_dim, fp32
NUM_BLOCKS = 24
MAX_TOKENS = 40
SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["x", "yy"]}, "n": {"type": "integer", "minimum": 0, "maximum": 999}},
    "required": ["a", "n"],
    "additionalProperties": False,
}
WARM = SamplingParams(temperature=1.3, seed=7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hold_torch_to_one_thread()
    config = a_config(vocab_size=1024, eos_token_id=STOPS, pad_token_id=EOS)
    folder = write_checkpoint(tmp_path_factory.mktemp("wishes"), config)
    shutil.copy(NANO / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="module")
def compiler(folder: Path) -> xgrammar.GrammarCompiler:
    return xgrammar.GrammarCompiler(grammar_vocabulary(folder), max_threads=1)


def a_grammar(compiled: xgrammar.CompiledGrammar, close_id: int | None = None) -> AnswerGrammar:
    packed = pack_grammar(compiled)
    return AnswerGrammar(key=hashlib.sha256(packed).hexdigest(), compiled=packed, close_id=close_id)


def a_thought(max_tokens: int) -> Thought:
    return Thought(
        open_id=THINK, close_id=END_THINK, begins_open=True, max_tokens=max_tokens, forced_ids=[10, END_THINK]
    )


def asking(request_id: str, sampling: SamplingParams = WARM, **wishes: object) -> EngineRequest:
    seed = sum(request_id.encode())
    request = a_request(request_id, [seed % 900, 5, 6, seed % 7], MAX_TOKENS, sampling, STOPS)
    return msgspec.structs.replace(request, **wishes)


@pytest.fixture(scope="module")
def requests(compiler: xgrammar.GrammarCompiler) -> dict[str, EngineRequest]:
    """One request of each kind, and one of all kinds at once."""
    schema = compiler.compile_json_schema(SCHEMA, any_whitespace=False)
    penalties = SamplingParams(
        temperature=1.0, seed=2, frequency_penalty=0.8, presence_penalty=0.4, repetition_penalty=1.3
    )
    both = SamplingParams(temperature=1.1, top_p=0.9, seed=3, frequency_penalty=0.5, logit_bias={17: 2.0})
    kinds = [
        asking("plain"),
        asking("penalties", penalties),
        asking("bias", SamplingParams(temperature=0.7, seed=4, logit_bias={200: 4.5, 201: 5.0, EOS: -100.0})),
        asking("bad-words", SamplingParams(temperature=0, logit_bias={40: 60, 41: 59}), bad_words=[[40, 40], [41]]),
        asking("min-tokens", SamplingParams(temperature=0, logit_bias={EOS: 90.0}), min_tokens=9),
        asking("logprobs", num_logprobs=4),
        asking("thought", thought=a_thought(6)),
        asking("grammar", grammar=a_grammar(schema)),
        asking("endless", grammar=a_grammar(compiler.compile_regex("[a-f]{5}")), stop_token_ids=[]),
        asking(
            "all",
            both,
            thought=a_thought(5),
            grammar=a_grammar(schema, END_THINK),
            bad_words=[[3], [4, 5]],
            num_logprobs=0,
            min_tokens=3,
        ),
    ]
    return {request.request_id: request for request in kinds}


@pytest.fixture(scope="module")
def one_rank(folder: Path) -> Iterator[EngineGroup]:
    with engine_group(folder, block_size=BLOCK_SIZE) as (group, _):
        yield group


@pytest.fixture(scope="module")
def alone(one_rank: EngineGroup, requests: dict[str, EngineRequest]) -> dict[str, Answer]:
    return {name: one_rank.answer(request)[0] for name, request in requests.items()}


def text_of(token_ids: list[int]) -> str:
    tokenizer = tokenizers.Tokenizer.from_file(str(NANO / "tokenizer.json"))
    return str(tokenizer.decode([i for i in token_ids if i not in STOPS], skip_special_tokens=False))


def test_each_wish_has_its_effect(alone: dict[str, Answer]) -> None:
    answers = {name: answer.token_ids for name, answer in alone.items()}
    assert set(answers["bias"]) == {200, 201} or {200, 201} <= set(answers["bias"])
    assert answers["bad-words"].count(40) >= MAX_TOKENS // 2 - 1
    assert 41 not in answers["bad-words"]
    assert all(pair != (40, 40) for pair in zip(answers["bad-words"], answers["bad-words"][1:], strict=False))
    assert (len(answers["min-tokens"]), answers["min-tokens"][-1], alone["min-tokens"].endings) == (10, EOS, ["stop"])
    assert not set(answers["min-tokens"][:9]) & set(STOPS)
    assert answers["thought"][6:8] == [10, END_THINK]
    assert END_THINK not in answers["thought"][:6]


def test_an_answer_that_its_grammar_ends_is_whole(alone: dict[str, Answer]) -> None:
    assert alone["grammar"].endings == ["stop"]
    assert alone["grammar"].token_ids[-1] in STOPS
    jsonschema.validate(json.loads(text_of(alone["grammar"].token_ids)), SCHEMA)
    assert alone["endless"].endings == ["stop"]
    assert len(text_of(alone["endless"].token_ids)) == 5
    both = alone["all"].token_ids
    assert both[5:7] == [10, END_THINK]
    assert alone["all"].endings == ["stop"]
    jsonschema.validate(json.loads(text_of(both[7:])), SCHEMA)


def test_logprobs_stand_beside_every_token(alone: dict[str, Answer]) -> None:
    answer = alone["logprobs"]
    assert len(answer.logprobs) == len(answer.token_ids)
    for token_id, logprobs in zip(answer.token_ids, answer.logprobs, strict=True):
        assert len(logprobs.top) == 4
        assert logprobs.logprob <= 0
        best = [id_ for id_, _ in logprobs.top]
        assert (token_id in best) == (logprobs.rank <= 4)
    assert len(alone["all"].logprobs) == len(alone["all"].token_ids)
    assert all(logprobs.top == [] for logprobs in alone["all"].logprobs)
    assert alone["plain"].logprobs == []


def named(requests: dict[str, EngineRequest], prefix: str) -> list[EngineRequest]:
    return [msgspec.structs.replace(request, request_id=f"{prefix}-{name}") for name, request in requests.items()]


def assert_same(group: EngineGroup, requests: dict[str, EngineRequest], prefix: str, alone: dict[str, Answer]) -> None:
    for name, answer in zip(requests, group.answer(*named(requests, prefix)), strict=True):
        assert (answer.token_ids, answer.endings) == (alone[name].token_ids, alone[name].endings), name
        for found, expected in zip(answer.logprobs, alone[name].logprobs, strict=True):
            assert found.logprob == pytest.approx(expected.logprob, abs=1e-4)
            assert [id_ for id_, _ in found.top] == [id_ for id_, _ in expected.top]


def test_a_batch_gets_what_each_gets_alone(
    one_rank: EngineGroup, requests: dict[str, EngineRequest], alone: dict[str, Answer]
) -> None:
    assert_same(one_rank, requests, "batched", alone)


@pytest.mark.parametrize(("world_size", "tensor_parallel"), [(1, 1), (2, 1), (2, 2)])
def test_preemptions_ranks_and_a_new_generation_change_nothing(
    folder: Path,
    requests: dict[str, EngineRequest],
    alone: dict[str, Answer],
    world_size: int,
    tensor_parallel: int,
) -> None:
    """A new group is what a re-run meets: nothing is known there but the request."""
    cache_bytes = NUM_BLOCKS * BLOCK_BYTES // tensor_parallel
    with engine_group(
        folder,
        world_size,
        tensor_parallel=tensor_parallel,
        block_size=BLOCK_SIZE,
        kv_cache_bytes=cache_bytes,
        max_batch_tokens=16,
    ) as (group, ready):
        assert ready.limits.num_blocks == NUM_BLOCKS
        assert_same(group, requests, "tight", alone)
        last = group.steps[-1]
        assert last.num_preemptions > 0
        assert (last.kv_blocks_used, last.num_running, last.num_waiting) == (0, 0, 0)


@pytest.mark.parametrize(("world_size", "tensor_parallel"), [(1, 1), (2, 1), (2, 2)])
def test_an_answer_goes_on_from_any_point_to_the_bit(
    folder: Path, requests: dict[str, EngineRequest], world_size: int, tensor_parallel: int
) -> None:
    """Beside others and with preemptions, as after the loss of a group; logprobs are compared as they are."""
    cache_bytes = NUM_BLOCKS * BLOCK_BYTES // tensor_parallel
    settings = {"tensor_parallel": tensor_parallel, "block_size": BLOCK_SIZE, "kv_cache_bytes": cache_bytes}
    with engine_group(folder, world_size, max_batch_tokens=16, **settings) as (group, ready):
        assert ready.deterministic
        undisturbed = {name: group.answer(request)[0] for name, request in requests.items()}
        assert not group.steps[-1].num_preemptions
        resumed = [
            (name, num_given, f"{name}-from-{num_given}")
            for name, answer in undisturbed.items()
            for num_given in range(0, len(answer.token_ids), 4)
        ]
        answers = group.answer(
            *(
                msgspec.structs.replace(
                    requests[name], request_id=id_, answer_token_ids=undisturbed[name].token_ids[:num_given]
                )
                for name, num_given, id_ in resumed
            )
        )
        assert group.steps[-1].num_preemptions > 0
        for (name, num_given, id_), answer in zip(resumed, answers, strict=True):
            whole = undisturbed[name]
            assert (answer.token_ids, answer.endings) == (whole.token_ids[num_given:], whole.endings), id_
            assert answer.logprobs == whole.logprobs[num_given:], id_


@pytest.mark.parametrize("world_size", [1, 2])
def test_what_is_broken_ends_alone_and_the_ranks_stay_in_step(
    folder: Path, requests: dict[str, EngineRequest], alone: dict[str, Answer], world_size: int
) -> None:
    with engine_group(folder, world_size, block_size=BLOCK_SIZE) as (group, _):
        broken = asking("broken", grammar=AnswerGrammar(key="broken", compiled=b"broken"))
        outside = asking("outside", SamplingParams(logit_bias={5000: 1.0}))
        ended, refused, *others = group.answer(broken, outside, *named(requests, "beside"))
        assert (ended.token_ids, ended.endings) == ([], ["failed"])
        assert ended.errors[0].startswith("the compiled grammar cannot be read: ")
        assert (refused.endings, refused.errors) == (
            ["failed"],
            ["token id 5000 in logit_bias is outside of the vocabulary of 1024 tokens"],
        )
        assert [answer.token_ids for answer in others] == [answer.token_ids for answer in alone.values()]


def test_a_request_that_waits_for_its_grammar_can_be_cancelled(
    one_rank: EngineGroup, compiler: xgrammar.GrammarCompiler
) -> None:
    properties = {f"property_{i}": {"type": "integer"} for i in range(150)}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    slow = asking("slow", grammar=a_grammar(compiler.compile_json_schema(schema)))
    one_rank.submit(slow)
    one_rank.cancel("slow")
    (after,) = one_rank.answer(a_request("after-slow", [1, 2, 3], 2))
    assert len(after.token_ids) == 2
    one_rank.receive_until(lambda: bool(one_rank.answers["slow"].endings))
    assert one_rank.answers["slow"].endings == ["cancelled"]


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_important_go_first_and_every_answer_is_its_own(folder: Path, world_size: int) -> None:
    with engine_group(folder, world_size, block_size=BLOCK_SIZE, max_num_seqs=1) as (group, _):
        blocker = a_request("blocker", [1, 2, 3], 30)
        waiting = [
            asking("low", priority=2, max_tokens=3),
            asking("late", deadline_ms=900, max_tokens=3),
            asking("soon", deadline_ms=100, max_tokens=3),
            asking("high", priority=-1, max_tokens=3),
        ]
        group.submit(blocker)
        group.receive_until(lambda: len(group.answers["blocker"].token_ids) >= 1)
        group.answer(*waiting)
        scheduled = [request_id for step in group.steps for request_id in step.scheduled]
        assert scheduled == ["blocker", "high", "soon", "late", "low"]
        assert len(group.answers["blocker"].token_ids) == 30
