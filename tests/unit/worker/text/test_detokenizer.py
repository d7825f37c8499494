"""Streaming text never holds half a character and adds up to the decoding of all tokens at once."""

import threading

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_worker.errors import ConfigError
from glm_worker.models import resolve
from glm_worker.server.text.lexer import THINK_TAGS, Lexer, Piece, Tag, tag_ids
from glm_worker.server.text.tokenizer import Tokenizer
from unit.worker.server_builders import checkpoint, tokenizer

INNER = tokenizers.Tokenizer.from_file(str(resolve("builtin://glm-nano") / "tokenizer.json"))


def streamed(token_ids: list[int]) -> list[str]:
    lexer = Lexer(tokenizer(), {})
    pieces = [piece for token_id in token_ids for piece in lexer.feed(token_id)] + lexer.finish()
    return [piece.text for piece in pieces]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_comes_back_without_broken_characters(text: str) -> None:
    texts = streamed(tokenizer().encode(text))
    special = [token.content for token in INNER.get_added_tokens_decoder().values() if token.special]
    if not any(token in text for token in special):
        assert "".join(texts) == text
        assert all("\ufffd" not in part for part in texts) or "\ufffd" in text


@settings(deadline=None)
@given(st.lists(st.integers(0, checkpoint().vocab_size + 50), max_size=30))
def test_any_tokens_decode_as_the_tokenizers_library_decodes_them(token_ids: list[int]) -> None:
    assert "".join(streamed(token_ids)) == INNER.decode(token_ids, skip_special_tokens=True)


def test_a_character_comes_when_its_last_byte_does() -> None:
    token_ids = tokenizer().encode("🙂")
    assert len(token_ids) == 4
    lexer = Lexer(tokenizer(), {})
    assert [len(lexer.feed(token_id)) for token_id in token_ids] == [0, 0, 0, 1]


def test_a_character_that_is_never_completed_ends_as_a_replacement() -> None:
    assert streamed(tokenizer().encode("🙂")[:2]) == ["\ufffd"]


def test_a_tag_ends_a_character_that_was_cut_before_it() -> None:
    tags = tag_ids(tokenizer(), THINK_TAGS)
    lexer = Lexer(tokenizer(), tags)
    token_ids = [*tokenizer().encode("🙂")[:2], *tokenizer().encode("<think>"), *tokenizer().encode("é")]
    pieces = [piece for token_id in token_ids for piece in lexer.feed(token_id)]
    assert pieces == [Piece("\ufffd"), Piece("<think>", Tag.THINK), Piece("é")]


def test_a_tokenizer_that_is_not_byte_level_is_refused(tmp_path) -> None:
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    inner.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ConfigError, match="ByteLevel"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_has_at_least_its_bytes_by_the_longest_token(text: str) -> None:
    assert tokenizer().min_tokens(text) <= len(tokenizer().encode(text))


def test_the_longest_token_is_found_whether_special_or_not() -> None:
    assert tokenizer().longest_token_bytes == 20
    assert tokenizer().min_tokens("x" * 41) == 3
    inner = tokenizers.Tokenizer.from_str(INNER.to_str())
    inner.add_special_tokens([tokenizers.AddedToken("<" + "ü" * 20 + ">", special=True)])
    assert Tokenizer(inner).longest_token_bytes == 42


def test_nothing_is_promised_when_text_is_stripped_or_changed() -> None:
    changing, stripping = (tokenizers.Tokenizer.from_str(INNER.to_str()) for _ in range(2))
    changing.normalizer = tokenizers.normalizers.NFC()
    stripping.add_special_tokens([tokenizers.AddedToken("<s>", special=True, lstrip=True)])
    for inner in (changing, stripping):
        assert Tokenizer(inner).min_tokens("x" * 1000) == 0


def test_other_threads_run_while_a_long_text_is_encoded() -> None:
    """With the GIL held there is no turn for us, or one. A busy machine may starve us once, not every time."""
    assert any(turns_beside_an_encode() > 5 for _ in range(20))


def turns_beside_an_encode() -> int:
    begun, done = threading.Event(), threading.Event()

    def encode() -> None:
        begun.set()
        tokenizer().encode("a b c " * 20_000)
        done.set()

    thread = threading.Thread(target=encode)
    thread.start()
    begun.wait()
    num_turns = 0
    while not done.wait(0.001):
        num_turns += 1
    thread.join()
    return num_turns
