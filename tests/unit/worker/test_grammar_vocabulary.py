"""What each token of the shipped model is to a grammar."""

import json
import shutil
from pathlib import Path

import pytest
import tokenizers
import xgrammar

from glm_worker.errors import ConfigError
from glm_worker.model.grammar_vocabulary import grammar_vocabulary, token_bytes

NANO = Path(__file__).parents[3] / "worker" / "models" / "glm-nano"
VOCAB_SIZE, EOS, TOOL_CALL, END_TOOL_CALL = 1024, 1003, 1015, 1016


@pytest.fixture(scope="module")
def vocabulary() -> xgrammar.TokenizerInfo:
    return grammar_vocabulary(NANO)


@pytest.fixture(scope="module")
def compiler(vocabulary: xgrammar.TokenizerInfo) -> xgrammar.GrammarCompiler:
    return xgrammar.GrammarCompiler(vocabulary, max_threads=1)


def allowed(matcher: xgrammar.GrammarMatcher) -> set[int]:
    mask = xgrammar.allocate_token_bitmask(1, VOCAB_SIZE)
    matcher.fill_next_token_bitmask(mask)
    return {i for i in range(VOCAB_SIZE) if int(mask[0, i // 32]) >> (i % 32) & 1}


def test_ordinary_tokens_are_the_bytes_of_their_text() -> None:
    found = token_bytes(NANO, VOCAB_SIZE)
    tokenizer = tokenizers.Tokenizer.from_file(str(NANO / "tokenizer.json"))
    text = 'Grüße 🙂\n{"a": [1, 2]}\t€'
    assert b"".join(found[i] for i in tokenizer.encode(text, add_special_tokens=False).ids) == text.encode()


def test_the_vocabulary_is_as_wide_as_the_logits_and_stops_where_the_config_does(
    vocabulary: xgrammar.TokenizerInfo,
) -> None:
    assert vocabulary.vocab_size == VOCAB_SIZE
    assert vocabulary.stop_token_ids == [1003, 1010, 1012]


@pytest.mark.parametrize("vocab_size", [3, 1000, 1024, 1100])
def test_a_vocabulary_of_another_width_is_cut_or_padded(vocab_size: int) -> None:
    found = token_bytes(NANO, vocab_size)
    assert len(found) == vocab_size
    assert found[1024:] == [b""] * max(0, vocab_size - 1024)


def test_no_tag_and_no_special_token_is_text_of_any_grammar(compiler: xgrammar.GrammarCompiler) -> None:
    any_text = {"type": "structural_tag", "format": {"type": "any_text"}}
    for grammar in (
        compiler.compile_json_schema('{"type": "string"}'),
        compiler.compile_structural_tag(json.dumps(any_text)),
        compiler.compile_regex('"[^a]*"'),
    ):
        matcher = xgrammar.GrammarMatcher(grammar)
        assert matcher.accept_string('"')
        inside = allowed(matcher)
        assert len(inside) > 500
        assert not inside & set(range(1003, 1024)) - {1003, 1010, 1012}


def test_a_tag_is_named_by_its_id_and_matched_by_no_spelling(compiler: xgrammar.GrammarCompiler) -> None:
    elements = [{"type": "token", "token": TOOL_CALL}, {"type": "any_text"}, {"type": "token", "token": END_TOOL_CALL}]
    tag = {"type": "structural_tag", "format": {"type": "sequence", "elements": elements}}
    matcher = xgrammar.GrammarMatcher(compiler.compile_structural_tag(json.dumps(tag)))
    assert allowed(matcher) == {TOOL_CALL}
    assert matcher.accept_token(TOOL_CALL)
    assert matcher.accept_string("a </tool_call> b")
    assert not matcher.is_completed()
    assert END_TOOL_CALL in allowed(matcher)
    assert matcher.accept_token(END_TOOL_CALL)
    assert EOS in allowed(matcher)
    assert matcher.is_completed()


def test_what_one_process_compiles_another_can_read(compiler: xgrammar.GrammarCompiler) -> None:
    text = compiler.compile_json_schema('{"type": "boolean"}').serialize_json()
    grammar = xgrammar.CompiledGrammar.deserialize_json(text, grammar_vocabulary(NANO))
    assert xgrammar.GrammarMatcher(grammar).accept_string("true")


def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    shutil.copy(NANO / "config.json", tmp_path)
    with pytest.raises(ConfigError, match=r"tokenizer\.json cannot be read"):
        grammar_vocabulary(tmp_path)
