"""An answer held against its grammar, with the shipped model's vocabulary."""

import json

import jsonschema
import numpy as np
import pytest
import torch
import xgrammar

from glm_worker.engine.sampling.matcher import AnswerMatcher, GrammarFailed, apply_masks
from unit.worker.sampling.answers import (
    END_THINK,
    EOS,
    STOPS,
    USER,
    VOCAB_SIZE,
    a_matcher,
    a_request,
    compiler,
    ids_of,
    text_of,
)


def allowed(matcher: AnswerMatcher, banned: list[int] | None = None) -> set[int]:
    bits = np.unpackbits(matcher.mask(banned or ()), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def one(char: str) -> int:
    (token_id,) = ids_of(char)
    return token_id


def test_masks_follow_the_answer_and_stop_tokens_come_when_it_is_whole() -> None:
    matcher = a_matcher(a_request(has_grammar=True), "(a|b)c")
    assert allowed(matcher) >= {one("a"), one("b")}
    assert not allowed(matcher) & {one("c"), *STOPS}
    matcher.take(one("a"))
    assert allowed(matcher) == {one("c")}
    matcher.take(one("c"))
    assert allowed(matcher) == set(STOPS)
    assert not matcher.is_over  # a stop token ends it


def test_of_the_stop_tokens_only_those_of_the_request_end_an_answer() -> None:
    matcher = a_matcher(a_request(has_grammar=True, stop_token_ids=[USER]), "a")
    matcher.take(one("a"))
    assert allowed(matcher) == {USER}


def test_a_stop_token_that_is_text_is_allowed_where_the_grammar_has_it_and_nowhere_else() -> None:
    matcher = a_matcher(a_request(has_grammar=True, stop_token_ids=[EOS, one("b"), one("z")]), "ab")
    assert one("z") not in allowed(matcher)
    matcher.take(one("a"))
    assert allowed(matcher) == {one("b")}
    matcher.take(one("b"))
    assert allowed(matcher) == {EOS}


def test_nothing_is_asked_before_the_thought_is_closed() -> None:
    matcher = a_matcher(a_request(has_grammar=True, close_id=END_THINK), "a")
    for token_id in (one("z"), EOS, one("q")):
        assert not matcher.has_begun
        matcher.take(token_id)
    matcher.take(END_THINK)
    assert matcher.has_begun
    assert allowed(matcher) == {one("a")}
    with pytest.raises(GrammarFailed, match="the answer left the grammar"):
        matcher.take(END_THINK)


@pytest.mark.parametrize("stop_token_ids", [[], [one("q")]])
def test_an_answer_without_an_end_token_is_over_when_nothing_more_may_follow(stop_token_ids: list[int]) -> None:
    matcher = a_matcher(a_request(has_grammar=True, stop_token_ids=stop_token_ids), "a(bc)?")
    matcher.take(one("a"))
    assert allowed(matcher) == {one("b")}  # it is whole, and goes on: no token that ends it is wanted
    assert not matcher.is_over
    matcher.take(one("b"))
    matcher.take(one("c"))
    assert matcher.is_over


def test_bans_yield_to_a_grammar_that_leaves_nothing_else() -> None:
    matcher = a_matcher(a_request(has_grammar=True), "[ab]c")
    assert one("a") not in allowed(matcher, [one("a")])
    matcher.take(one("b"))
    assert allowed(matcher, [one("c")]) == {one("c")}
    assert allowed(matcher, [one("d")]) == {one("c")}


def test_a_token_that_the_grammar_does_not_allow_is_named_without_its_text() -> None:
    matcher = a_matcher(a_request(has_grammar=True), "a")
    with pytest.raises(GrammarFailed, match=r"^the answer left the grammar of this request$"):
        matcher.take(one("z"))


def test_a_grammar_that_dawdles_ends_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glm_worker.engine.sampling.matcher.MAX_TOKEN_CPU_S", 0.0)
    with pytest.raises(GrammarFailed, match=r"took 0\.0 s for one token; simplify it"):
        a_matcher(a_request(has_grammar=True), "a").mask()


def test_masks_leave_the_allowed_logits_as_they_are_and_touch_no_other_row() -> None:
    logits_SV = torch.randn(3, VOCAB_SIZE)
    before_SV = logits_SV.clone()
    masks = {row: a_matcher(a_request(has_grammar=True), regex).mask() for row, regex in ((0, "a"), (2, "[0-9]"))}
    apply_masks(logits_SV, masks)
    assert logits_SV[1].equal(before_SV[1])
    assert set(logits_SV[0].isfinite().nonzero().flatten().tolist()) == {one("a")}
    digits = [one(char) for char in "0123456789"]
    assert logits_SV[2, digits].equal(before_SV[2, digits])
    assert int(logits_SV[2].isfinite().sum()) == 10


@pytest.mark.parametrize("vocab_size", [1, 31, 32, 33, 100])
def test_masks_fit_vocabularies_of_any_width(vocab_size: int) -> None:
    tokens = [bytes([97 + i % 26]) + bytes([48 + i // 26]) for i in range(vocab_size)]
    vocabulary = xgrammar.TokenizerInfo(tokens, xgrammar.VocabType.RAW, vocab_size=vocab_size, stop_token_ids=[])
    grammar = xgrammar.GrammarCompiler(vocabulary, max_threads=1).compile_regex("[a-z][0-9]")
    logits_SV = torch.zeros(1, vocab_size)
    apply_masks(logits_SV, {0: AnswerMatcher(grammar, a_request(has_grammar=True)).mask()})
    assert logits_SV.isfinite().all()


def test_any_json_that_is_drawn_through_masks_is_json_of_its_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z]{0,9}$"},
            "kind": {"enum": ["a", "b"]},
            "many": {"type": "array", "items": {"type": "integer", "maximum": 99}, "maxItems": 3},
        },
        "required": ["name", "kind"],
        "additionalProperties": False,
    }
    grammar = compiler().compile_json_schema(schema, any_whitespace=False)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        matcher, answer = AnswerMatcher(grammar, a_request(has_grammar=True)), []
        while not answer or answer[-1] not in STOPS:
            logits_SV = torch.randn(1, VOCAB_SIZE, generator=generator)
            apply_masks(logits_SV, {0: matcher.mask()})
            answer.append(int(logits_SV.argmax()))
            matcher.take(answer[-1])
        jsonschema.validate(json.loads(text_of(answer[:-1])), schema)
