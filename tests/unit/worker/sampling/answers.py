"""Builders for tests of sampling: sequences, and grammars of the shipped model's vocabulary."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import tokenizers
import xgrammar

from glm_worker.engine.sampling.matcher import AnswerMatcher
from glm_worker.model.grammar_vocabulary import grammar_vocabulary
from glm_worker.request import AnswerGrammar, EngineRequest, SamplingParams, Thought
from glm_worker.scheduler.sequence import SequenceState

NANO = Path(__file__).parents[4] / "worker" / "models" / "glm-nano"
VOCAB_SIZE = 1024
EOS, USER, THINK, END_THINK = 1003, 1010, 1013, 1014
STOPS = [EOS, USER, 1012]


@cache
def tokenizer() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(NANO / "tokenizer.json"))


@cache
def compiler() -> xgrammar.GrammarCompiler:
    return xgrammar.GrammarCompiler(grammar_vocabulary(NANO), max_threads=1)


def ids_of(text: str) -> list[int]:
    return list(tokenizer().encode(text, add_special_tokens=False).ids)


def text_of(token_ids: Sequence[int]) -> str:
    return str(tokenizer().decode(list(token_ids), skip_special_tokens=False))


def a_request(
    request_id: str = "a",
    *,
    sampling: SamplingParams = SamplingParams(temperature=0),  # noqa: B008 - frozen
    prompt: Sequence[int] = (5, 6, 7),
    stop_token_ids: Sequence[int] = STOPS,
    min_tokens: int = 0,
    bad_words: Sequence[list[int]] = (),
    num_logprobs: int | None = None,
    thought: Thought | None = None,
    has_grammar: bool = False,
    close_id: int | None = None,
) -> EngineRequest:
    return EngineRequest(
        request_id=request_id,
        prompt_token_ids=list(prompt),
        max_tokens=500,
        stop_token_ids=list(stop_token_ids),
        sampling=sampling,
        min_tokens=min_tokens,
        bad_words=list(bad_words),
        num_logprobs=num_logprobs,
        thought=thought,
        grammar=AnswerGrammar(key="k", compiled=b"", close_id=close_id) if has_grammar else None,
    )


def a_sequence(request: EngineRequest, answer: Sequence[int] = ()) -> SequenceState:
    sequence = SequenceState(request, arrival=0)
    sequence.token_ids.extend(answer)
    return sequence


def a_thought(max_tokens: int, *, begins_open: bool = True) -> Thought:
    return Thought(
        open_id=THINK, close_id=END_THINK, begins_open=begins_open, max_tokens=max_tokens, forced_ids=[10, END_THINK]
    )


def a_matcher(request: EngineRequest, regex: str) -> AnswerMatcher:
    return AnswerMatcher(compiler().compile_regex(regex), request)
