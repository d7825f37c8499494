"""What each token of the shipped model is to a grammar."""

import json
import lzma
import shutil
from pathlib import Path

import pytest
import tokenizers
import xgrammar

from glm_worker.errors import ConfigError
from glm_worker.model.grammar_vocabulary import grammar_vocabulary, pack_grammar, token_bytes, unpack_grammar

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


def test_tokens_and_tags_have_the_ids_that_the_tokenizer_gives_them() -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(NANO / "tokenizer.json"))
    added = tokenizer.get_added_tokens_decoder()
    found = token_bytes(NANO, VOCAB_SIZE)
    tags = {token_id: b"\xff" + tag.content.encode() for token_id, tag in added.items() if not tag.special}
    assert {token_id: found[token_id] for token_id in added if found[token_id]} == tags
    assert {token_id for token_id, token in enumerate(found) if token} - tags.keys() == (
        set(tokenizer.get_vocab(with_added_tokens=False).values()) - added.keys()
    )


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
    packed = pack_grammar(compiler.compile_json_schema('{"type": "boolean"}'))
    grammar, _ = unpack_grammar(packed, grammar_vocabulary(NANO))
    assert xgrammar.GrammarMatcher(grammar).accept_string("true")


def test_a_large_grammar_packs_to_little(compiler: xgrammar.GrammarCompiler) -> None:
    properties = {f"property_{i}": {"type": "integer"} for i in range(60)}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    grammar = compiler.compile_json_schema(schema)
    assert len(grammar.serialize_json()) > 1_000_000
    assert len(pack_grammar(grammar)) < 30_000


def a_packed_grammar(compiler: xgrammar.GrammarCompiler) -> bytes:
    return pack_grammar(compiler.compile_regex("a+"))


def test_what_is_no_packed_grammar_is_an_error_that_says_so(
    compiler: xgrammar.GrammarCompiler, vocabulary: xgrammar.TokenizerInfo
) -> None:
    packed = a_packed_grammar(compiler)
    texts = [
        b"",
        b"no grammar",
        packed[: len(packed) // 2],
        lzma.compress(b"{}"),
        lzma.compress(b"\xff"),
        lzma.compress(b"["),
    ]
    for broken in texts:
        with pytest.raises(ValueError, match="the compiled grammar cannot be read: "):
            unpack_grammar(broken, vocabulary)


def test_a_grammar_of_another_vocabulary_is_refused(compiler: xgrammar.GrammarCompiler) -> None:
    other = xgrammar.TokenizerInfo([b"a", b"b"], xgrammar.VocabType.RAW, vocab_size=4, stop_token_ids=[3])
    with pytest.raises(ValueError, match="cannot be read"):
        unpack_grammar(a_packed_grammar(compiler), other)


def test_a_grammar_too_large_is_neither_packed_nor_unpacked(
    compiler: xgrammar.GrammarCompiler, vocabulary: xgrammar.TokenizerInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = a_packed_grammar(compiler)
    monkeypatch.setattr("glm_worker.model.grammar_vocabulary.MAX_SERIALISED_BYTES", 1000)
    with pytest.raises(ValueError, match="at most 1000 are allowed"):
        a_packed_grammar(compiler)
    with pytest.raises(ValueError, match="has more than 1000 bytes"):
        unpack_grammar(packed, vocabulary)


def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    shutil.copy(NANO / "config.json", tmp_path)
    with pytest.raises(ConfigError, match=r"tokenizer\.json cannot be read"):
        grammar_vocabulary(tmp_path)
