"""Stop strings end an answer before their first character, however the text arrives."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_worker.server.text.deltas import Answer, Call, assemble
from glm_worker.server.text.lexer import Piece, Tag
from glm_worker.server.text.stop_words import StopWords
from glm_worker.server.text.stops import StopScanner
from unit.worker.server_builders import a_reader, read, tokenizer


def scanned(parts: list[str], stops: list[str]) -> tuple[str, str | None]:
    scanner = StopScanner(StopWords(stops))
    pieces = [piece for part in parts for piece in scanner.feed([Piece(part)])]
    return "".join(piece.text for piece in pieces + scanner.finish()), scanner.hit


@pytest.mark.parametrize(
    ("text", "stops", "kept", "hit"),
    [
        ("one two", ["two"], "one ", "two"),
        ("one two", ["three"], "one two", None),
        ("aab", ["ab"], "a", "ab"),
        ("abcd", ["bcd", "c"], "ab", "c"),  # the one that is complete first
        ("abcd", ["cd", "bcd"], "a", "bcd"),  # of two complete together the longer
        ("END", ["END"], "", "END"),
        ("EN", ["END"], "EN", None),
        ("text", [], "text", None),
    ],
)
def test_the_first_complete_stop_string_ends_the_text(text: str, stops: list[str], kept: str, hit: str | None) -> None:
    assert scanned([text], stops) == (kept, hit)
    for at in range(1, len(text)):
        assert scanned([text[:at], text[at:]], stops) == (kept, hit)


@settings(deadline=None)
@given(st.text("abc", max_size=12), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), st.randoms())
def test_how_the_text_is_cut_does_not_matter(text: str, stops: list[str], random) -> None:
    cuts = sorted(random.sample(range(len(text)), random.randint(0, len(text)))) if text else []
    parts = [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]
    kept, hit = scanned(parts, stops)
    assert (kept, hit) == scanned([text], stops)
    assert text.startswith(kept)
    assert not any(stop in kept for stop in stops)


def plainly(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Return the same, found the slow way: at each character, every string."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


@settings(deadline=None, max_examples=300)
@given(st.text("ab]^-", max_size=24), st.lists(st.text("ab]^-", min_size=1, max_size=6), max_size=5))
def test_the_automaton_finds_what_a_plain_search_finds(text: str, stops: list[str]) -> None:
    assert scanned([text], stops) == scanned(list(text), stops) == plainly(text, stops)


class Counted(dict[int, int]):
    """Counts how often it is looked into."""

    num_looks = 0

    def get(self, key: int, default: Any = None) -> Any:
        self.num_looks += 1
        return super().get(key, default)


@pytest.mark.parametrize("num_chars", [1000, 2000, 4000])
def test_long_stop_strings_of_which_nothing_but_the_end_is_missing_cost_two_looks_a_character(num_chars: int) -> None:
    stops = StopWords([f"{'a' * 1000}{end}" for end in "bcdefghijklmnopq"])
    scanner = StopScanner(stops)
    looked = stops._beyond = Counted(stops._beyond)
    for _ in range(num_chars):
        scanner.feed([Piece("a")])
        assert len(scanner._held) <= 1001
    assert scanner.num_released == num_chars - min(num_chars, 1000)
    assert looked.num_looks <= 2 * num_chars


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    scanner = StopScanner(StopWords(["\n\nUser"]))
    assert scanner.feed([Piece("Hello\n")]) == [Piece("Hello")]
    assert scanner.feed([Piece("there")]) == [Piece("\n"), Piece("there")]


def test_a_tag_is_never_cut() -> None:
    scanner = StopScanner(StopWords(["k>x"]))
    assert scanner.feed([Piece("a"), Piece("<think>", Tag.THINK)]) == [Piece("a")]
    assert scanner.feed([Piece("y")]) == [Piece("<think>", Tag.THINK), Piece("y")]


def test_a_stop_string_may_be_a_tag() -> None:
    reader = a_reader(stops=["</think>"])
    deltas = reader.feed(tokenizer().encode("\n<think>hm</think>\nyes"), None)
    assert assemble(deltas) == Answer("hm", "")
    assert reader.finish_reason == "stop"


def test_tokens_after_a_stop_string_count_for_nothing() -> None:
    reader = a_reader(stops=["5"])
    token_ids = tokenizer().encode("1 2 3 4 5 6 7")
    together = assemble(reader.feed(token_ids, "length"))
    one_by_one = a_reader(stops=["5"])
    singly = assemble([delta for token_id in token_ids for delta in one_by_one.feed([token_id], None)])
    assert together == singly == Answer("", "1 2 3 4 ")
    assert reader.num_tokens == one_by_one.num_tokens < len(token_ids)
    assert reader.finish_reason == one_by_one.finish_reason == "stop"


def test_held_text_comes_out_when_the_answer_ends() -> None:
    reader = a_reader(stops=["ab"])
    assert assemble(reader.feed(tokenizer().encode("xa"), "length")) == Answer("", "xa")
    assert reader.finish_reason == "length"


@pytest.mark.parametrize(
    ("raw", "stops", "answer"),
    [
        ("\n<think>hm</think>\n\none\ntwo", ["\n"], Answer("hm", "one")),
        ("\none\ntwo", ["\n"], Answer("", "one")),
        ("\n\none\n\ntwo", ["\n\n"], Answer("", "one")),
        ("\n\none", ["\n\n"], Answer("", "one")),
        ("one</think>\ntwo\nthree", ["\n"], Answer("", "one\ntwo")),
        ("<think>\n\na\nb</think>\nc", ["\n"], Answer("a", "")),
        ("<tool_call>now</tool_call>\n<tool_call>now</tool_call>", ["\n"], Answer("", "", [Call("now", "{}")] * 2)),
        ("\n<tool_call>now\n</tool_call>", ["\n"], Answer("", "")),  # a line of the call
        ("\nEND", ["\nEND"], Answer("", "")),  # more than newlines
        ("</think>\n\nyes", ["</think>\n"], Answer("", "")),
        (" \nyes", ["\n"], Answer("", " ")),
        ("\n\nyes", ["\ny", "\n"], Answer("", "")),
    ],
)
def test_the_newlines_of_the_format_are_no_stop_string_however_the_text_is_cut(
    raw: str, stops: list[str], answer: Answer
) -> None:
    ids = tokenizer().encode(raw)
    whole = a_reader(stops=stops)
    assert assemble(whole.feed(ids, "length")) == answer
    for size in (1, 2, 3):
        reader = a_reader(stops=stops)
        groups = [ids[at : at + size] for at in range(0, len(ids), size)]
        assert assemble(read(reader, groups, ended="length")) == answer
        assert (reader.stop, reader.num_tokens) == (whole.stop, whole.num_tokens)
        assert reader.finish_reason == whole.finish_reason


@pytest.mark.parametrize("of_grammar", [{"goes_on": True}, {"is_exact": True}])
def test_a_newline_that_is_text_is_a_stop_string(of_grammar: dict[str, bool]) -> None:
    reader = a_reader(stops=["\n"], **of_grammar)
    assert assemble(reader.feed(tokenizer().encode("\nyes"), None)) == Answer()
    assert reader.stop == "\n"
