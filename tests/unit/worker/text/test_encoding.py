"""Long texts are encoded where the cores are nobody's first; the ids are the same."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from glm_worker.models import resolve
from glm_worker.server.text.encoding import LONG_CHARACTERS, NICENESS, token_ids_of
from glm_worker.server.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load(resolve("builtin://glm-nano"))
DEADLINE_S = 60.0


class Noting:
    """Encodes nothing, and notes by which thread it was asked to."""

    def __init__(self) -> None:
        self.thread = 0
        self.niceness = 0

    def encode_batch_fast(self, texts: list[str], *, add_special_tokens: bool) -> list[Any]:
        assert not add_special_tokens
        self.thread, self.niceness = threading.get_ident(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        return [SimpleNamespace(ids=[1]) for _ in texts]


def test_a_long_text_gives_way_to_everything_else_in_the_process() -> None:
    noting, own = Noting(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert token_ids_of(noting, "x" * LONG_CHARACTERS) == [1]  # type: ignore[arg-type]
    assert noting.thread != threading.get_ident()
    assert noting.niceness == min(own + NICENESS, 19)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_a_short_text_is_encoded_at_once() -> None:
    noting = Noting()
    assert token_ids_of(noting, "x" * (LONG_CHARACTERS - 1)) == [1]  # type: ignore[arg-type]
    assert noting.thread == threading.get_ident()


@pytest.mark.parametrize("length", [LONG_CHARACTERS - 1, LONG_CHARACTERS, 100_000])
def test_the_ids_are_those_of_the_text(length: int) -> None:
    text = ("12 + 30 = 42, said he, and é. " * length)[:length]
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert TOKENIZER.encode_prompt(text) == TOKENIZER.encode(text)


def test_what_fails_while_a_long_text_is_encoded_is_raised() -> None:
    with pytest.raises(TypeError):
        token_ids_of(SimpleNamespace(encode_batch_fast=lambda: None), "x" * LONG_CHARACTERS)  # type: ignore[arg-type]


def test_many_threads_may_encode_at_once() -> None:
    text = "the quick brown fox " * 2_000
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(TOKENIZER.encode, text) for _ in range(16)]
        assert len({tuple(each.result(DEADLINE_S)) for each in found}) == 1


@pytest.mark.parametrize("sentence", ["The answer is 42. ", "12 + 30 = 42\n", "数字 und Wörter ", "    x = y\n", "a"])
def test_of_a_text_that_is_far_too_long_no_more_is_encoded_than_shows_it(sentence: str) -> None:
    text = sentence * (1_000_000 // len(sentence))
    enough = 2_000
    known = TOKENIZER.min_tokens(text, enough)
    assert known >= enough
    assert known <= len(TOKENIZER.encode(text))


def test_a_text_that_is_not_too_long_is_never_taken_for_one() -> None:
    for text in ("The answer is 42. " * 500, " " * 200_000, "The answer is 42. " * 20_000):
        num_tokens = len(TOKENIZER.encode(text))
        assert TOKENIZER.min_tokens(text, num_tokens + 1) <= num_tokens
