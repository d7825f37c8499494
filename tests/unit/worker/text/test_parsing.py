"""The output grammar: what each raw output means, and that no way of cutting a stream changes it."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_worker.server.text.argument_types import parameters_of
from glm_worker.server.text.deltas import Answer, Call, Content, ToolArguments, ToolCall, assemble
from glm_worker.server.text.lexer import Piece, Tag
from glm_worker.server.text.parsing import Grammar, State, initial_state
from unit import cpu_time
from unit.worker.server_builders import TOOLS, a_reader, answer_to, checkpoint, read, stop_id, tokenizer

CALL = "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Bonn</arg_value>\n</tool_call>"
VALUE_OF_CITY = Piece("get_weather\n<arg_key>city</arg_key><arg_value>")
VALUE_OF_NOW = Piece("now\n<arg_key>at</arg_key><arg_value>")
BONN = Call("get_weather", '{"city": "Bonn"}')
NOW = Call("now", "{}")

MEANINGS: dict[str, tuple[str, Answer]] = {
    "answer only": ("\nHello", Answer("", "Hello")),
    "thinking, then an answer": ("\n<think>1+1=2</think>\nIt is 2.", Answer("1+1=2", "It is 2.")),
    "newlines around the reasoning": ("\n<think>\nhm\n</think>\n\nyes", Answer("hm", "yes")),
    "inner white space stays": ("\n<think>a\n\nb</think>\n  x\n\n  y", Answer("a\n\nb", "  x\n\n  y")),
    "white space at the very end stays": ("a line\n", Answer("", "a line\n")),
    "nothing but blanks": ("\n  \t\n", Answer("", "  \t\n")),
    "thinking, then blanks": ("<think>hm</think>\n ", Answer("hm", " ")),
    "nothing but the newline of the format": ("\n\n", Answer("", "")),
    "blanks before a thought": (" \n<think>hm</think>\nyes", Answer("hm", "yes")),
    "blanks before a call": (f"  \n{CALL}", Answer("", "", [BONN])),
    "empty thinking": ("\n<think></think>\nHello", Answer("", "Hello")),
    "no opening tag": ("hm</think>\nyes", Answer("", "hm\nyes")),
    "stray end of thinking": ("Hello</think> you", Answer("", "Hello\n you")),
    "thinking ended twice": ("\n<think>hm</think>\n</think>\nyes", Answer("hm", "yes")),
    "nested thinking": ("\n<think><think>hm</think>\nyes", Answer("hm", "yes")),
    "thinking twice": ("<think>a</think>\nb\n<think>\nc</think>\nd", Answer("a\nc", "b\nd")),
    "stopped while thinking": ("\n<think>hm", Answer("hm", "")),
    "a call": (f"\n{CALL}", Answer("", "", [BONN])),
    "thinking, text and a call": (f"<think>hm</think>\nLet me see.\n{CALL}", Answer("hm", "Let me see.", [BONN])),
    "a call inside thinking": (f"\n<think>hm\n{CALL}", Answer("hm", "", [BONN])),
    "thinking ended after the call": (f"\n<think>hm\n{CALL}\n</think>\nyes", Answer("hm", "yes", [BONN])),
    "two calls": (f"{CALL}\n<tool_call>now\n</tool_call>", Answer("", "", [BONN, NOW])),
    "text between calls": (f"a\n{CALL}\nb\n{CALL}\n", Answer("", "a\nb", [BONN, BONN])),
    "no newlines, as in GLM-4.7": (CALL.replace("\n", ""), Answer("", "", [BONN])),
    "no arguments": ("<tool_call>now\n</tool_call>", Answer("", "", [NOW])),
    "no arguments and no newline": ("<tool_call>now</tool_call>", Answer("", "", [NOW])),
    "no end of the call": ("<tool_call>now\n", Answer("", "", [NOW])),
    "no end of the call, with arguments": (CALL.removesuffix("\n</tool_call>"), Answer("", "", [BONN])),
    "no end of the value": (
        CALL.replace("</arg_value>", ""),
        Answer("", "", [Call("get_weather", '{"city": "Bonn\\n</tool_call>')]),
    ),
    "a call begins in a call": (f"<tool_call>now\n{CALL}", Answer("", "", [NOW, BONN])),
    "a call without a name": ("x<tool_call>\n</tool_call>", Answer("", "x")),
    "think tags in an argument": (
        CALL.replace("Bonn", "<think>x</think>"),
        Answer("", "", [Call("get_weather", '{"city": "<think>x</think>"}')]),
    ),
    "a tool that was not declared": ("<tool_call>rm\n</tool_call>", Answer("", "<tool_call>rm\n</tool_call>")),
    "characters of several tokens": ("\n<think>数字 🙂</think>\nÄ – 🙂é", Answer("数字 🙂", "Ä – 🙂é")),
}


@pytest.mark.parametrize("case", MEANINGS)
def test_an_output_means_what_the_table_says(case: str) -> None:
    raw, expected = MEANINGS[case]
    assert answer_to(raw)[0] == expected


@pytest.mark.parametrize("case", MEANINGS)
def test_every_grouping_of_tokens_means_the_same(case: str) -> None:
    raw, expected = MEANINGS[case]
    token_ids = [*tokenizer().encode(raw), stop_id()]
    for groups in groupings(token_ids):
        assert assemble(read(a_reader(), groups)) == expected


@pytest.mark.parametrize("case", MEANINGS)
def test_every_split_of_the_text_means_the_same(case: str) -> None:
    """Tokenizers cut text anywhere, so the grammar is also fed the text cut in two and three at every character."""
    raw, expected = MEANINGS[case]
    pieces = whole_pieces(raw)
    for position, piece in enumerate(pieces):
        if piece.tag is not None:
            continue
        for cuts in itertools.chain(itertools.combinations(range(len(piece.text)), 1), all_pairs(piece.text)):
            parts = [Piece(text) for text in cut(piece.text, cuts)]
            assert meaning([*pieces[:position], *parts, *pieces[position + 1 :]]) == expected
    letters = [part for piece in pieces for part in ([piece] if piece.tag else map(Piece, piece.text))]
    assert meaning(letters) == expected


FORMAT = ["\n", " \n", "</arg_val", "<", "now", "get_weather", "city", "days", "12", " " * 65]
FORMAT += ["<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<arg_key>city</arg_key>\n<arg_value>"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(FORMAT)


@settings(deadline=None)
@given(st.lists(st.sampled_from([tag.value for tag in Tag]) | TEXT, max_size=12), st.randoms())
def test_no_grouping_of_any_tokens_changes_the_answer(parts: list[str], random: Any) -> None:
    token_ids = [*tokenizer().encode("".join(parts)), stop_id()]
    cuts = sorted(random.sample(range(len(token_ids)), random.randint(0, len(token_ids) - 1)))
    whole, split, held = a_reader(), a_reader(), a_reader(stops=["</tool_call>?", "\n\n\n\n?"])
    answer = assemble(read(whole, [token_ids]))
    for reader in (split, held):
        assert assemble(read(reader, list(grouped(token_ids, cuts)))) == answer
        assert (reader.finish_reason, reader.num_reasoning_tokens) == (whole.finish_reason, whole.num_reasoning_tokens)
        assert (reader.num_tokens, reader.has_answer) == (len(token_ids), whole.has_answer)


@settings(deadline=None)
@given(st.lists(st.sampled_from(list(Tag)) | TEXT, max_size=14))
def test_text_letter_by_letter_means_the_same_as_at_once(parts: list[Tag | str]) -> None:
    pieces = [Piece(part.value, part) if isinstance(part, Tag) else Piece(part) for part in parts]
    letters = [letter for piece in pieces for letter in ([piece] if piece.tag else map(Piece, piece.text))]
    assert meaning(letters) == meaning(pieces)


PROSE = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<"), min_size=1)
    .map(str.strip)
    .filter(bool)
)
NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)
# What a value may hold besides text: every tag, and pieces of them. Only what goes on like a call cannot come back.
TAGS = ["<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "</arg_val", "\n", *(tag.value for tag in Tag)]
GOES_ON = re.compile(r"</arg_value>[ \t\r\n]{0,64}(?:<arg_key>|</tool_call>|<tool_call>)")
STRINGS = (
    st.lists(st.sampled_from(TAGS) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<|")))
    .map("".join)
    .filter(lambda text: not GOES_ON.search(text))
)
ARGUMENTS = st.dictionaries(NAMES, VALUES | STRINGS, max_size=3)
CALLS = st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3, unique_by=lambda call: call[0])  # each with its own schema


@settings(deadline=None)
@given(PROSE, PROSE | st.just(""), CALLS)
def test_what_the_template_writes_is_read_back(
    reasoning: str, content: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    """The template shows the model its own turns in the format that it answers in: the grammar is its inverse."""
    schemas = {name: schema_of(arguments) for name, arguments in calls}
    calls = [
        (name, {key: value for key, value in arguments.items() if key in schemas[name]["properties"]})
        for name, arguments in calls
    ]
    tools = {name: parameters_of(schema) for name, schema in schemas.items()}
    called = [{"function": {"name": name, "arguments": arguments}} for name, arguments in calls]
    turn = {"role": "assistant", "reasoning_content": reasoning, "content": content, "tool_calls": called}
    question = {"role": "user", "content": "?"}
    template = checkpoint().template
    prompt = template.render([question], [])
    raw = template.render([question, turn], []).removeprefix(prompt).removesuffix("<|assistant|>")
    reader = a_reader(tools or TOOLS)
    answer = assemble(reader.feed([*tokenizer().encode(raw), stop_id()], "stop"))
    assert (answer.reasoning, answer.content) == (reasoning, content)
    assert [call.name for call in answer.calls] == [name for name, _ in calls]
    for call, (_, arguments) in zip(answer.calls, calls, strict=True):
        types = {key: type(value) for key, value in arguments.items()}
        read_back = json.loads(call.arguments)
        assert {key: type(value) for key, value in read_back.items()} == types
        assert read_back == arguments
    assert reader.finish_reason == ("tool_calls" if calls else "stop")


def test_a_prompt_that_ends_with_an_open_think_tag_starts_in_reasoning() -> None:
    assert initial_state("<|assistant|><think>") is State.REASONING
    assert initial_state("<|assistant|>\n<think>\n") is State.REASONING
    assert initial_state("<|assistant|>") is State.CONTENT
    assert initial_state("<|assistant|>\n<think></think>") is State.CONTENT
    assert answer_to("hm</think>yes", state=State.REASONING)[0] == Answer("hm", "yes")


@pytest.mark.parametrize(
    ("state", "raw", "answer"),
    [
        (State.CONTENT, "\n\n- two", Answer("", "\n\n- two")),
        (State.CONTENT, " \n", Answer("", " \n")),
        (State.CONTENT, "\n", Answer("", "\n")),
        (State.CONTENT, "", Answer("", "")),
        (State.CONTENT, "\n<think>hm</think>\nyes", Answer("hm", "\nyes")),
        (State.CONTENT, f"\n{CALL}", Answer("", "", [BONN])),
        (State.CONTENT, f"\nb\n{CALL}", Answer("", "\nb", [BONN])),
        (State.REASONING, "\nso</think>\nyes", Answer("\nso", "yes")),
    ],
)
def test_an_answer_that_goes_on_begins_in_the_middle_however_it_is_cut(state: State, raw: str, answer: Answer) -> None:
    ids = [*tokenizer().encode(raw), stop_id()]
    cuts = [[ids], [[id_] for id_ in ids], *([ids[:at], ids[at:]] for at in range(1, len(ids)))]
    for groups in cuts:
        assert assemble(read(a_reader(state=state, goes_on=True), groups)) == answer


@pytest.mark.parametrize("content", ["\nyes", "\n", "  ", " yes ", "\r\n", "yes\n", "é\n"])
@pytest.mark.parametrize(("begin", "state"), [("", State.CONTENT), ("\nhm</think>", State.REASONING)])
def test_exact_content_is_told_as_it_was_generated(begin: str, state: State, content: str) -> None:
    ids = [*tokenizer().encode(begin), *tokenizer().encode(content), stop_id()]
    reasoning = "hm" if begin else ""
    for groups in ([ids], [[id_] for id_ in ids]):
        for stops in ([], ["\n\n\n?"]):
            reader = a_reader(state=state, stops=stops, is_exact=True)
            assert assemble(read(reader, groups)) == Answer(reasoning, content)


def test_without_thinking_nothing_is_reasoning() -> None:
    answer, reader = answer_to("\nParis</think>", state=initial_state("<|assistant|>\n<think></think>"))
    assert answer == Answer("", "Paris")
    assert reader.num_reasoning_tokens == 0


def test_tool_tags_are_text_when_no_tools_are_offered() -> None:
    answer, reader = answer_to(f"a\n{CALL}", tools={})
    assert answer == Answer("", f"a\n{CALL}")
    assert reader.finish_reason == "stop"


def test_a_tag_spelled_in_ordinary_tokens_is_text() -> None:
    letters = [id_ for char in "<think>hm" for id_ in tokenizer().encode(char)]
    assert assemble(read(a_reader(), [[*letters, stop_id()]])) == Answer("", "<think>hm")


def test_a_string_argument_streams_and_the_name_comes_whole() -> None:
    reader = a_reader()
    token_ids = tokenizer().encode(CALL.replace("Bonn", 'a "long" name of a town'))
    deltas = [delta for id_ in token_ids for delta in reader.feed([id_], None)]
    assert deltas[0] == ToolCall(0, "get_weather")
    fragments = [delta.text for delta in deltas if isinstance(delta, ToolArguments)]
    assert len(fragments) > 8
    assert json.loads("".join(fragments)) == {"city": 'a "long" name of a town'}


LAG = 250  # characters: two runs of white space and the name of a tool, between tags


@pytest.mark.parametrize(
    "text",
    [
        "a" * 2000,
        "</arg_value>" * 200,
        ("</arg_value>" + " " * 100) * 20,
        ("</arg_value>\n<arg_ke") * 100,
        "</tool_call>" * 200,
        ("</arg_value>" + " " * 60 + "<tool_call>" + " " * 60 + "get_weather_in_the_town_of_") * 10,
    ],
)
def test_what_is_held_back_of_a_string_is_bounded(text: str) -> None:
    opening = "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>"
    grammar = Grammar(State.CONTENT, TOOLS)
    deltas = [delta for piece in whole_pieces(opening) for delta in grammar.feed(piece)]
    num_fed = 0
    for piece in whole_pieces(text):
        for part in [piece] if piece.tag else map(Piece, piece.text):
            deltas += grammar.feed(part)
            num_fed += len(part.text)
            (call,) = assemble(deltas).calls
            assert len(json.loads(call.arguments + '"}')["city"]) >= num_fed - LAG


def test_what_is_held_back_of_a_name_is_bounded() -> None:
    grammar = Grammar(State.CONTENT, TOOLS, any_name=True)
    deltas = grammar.feed(Piece(Tag.TOOL_CALL.value, Tag.TOOL_CALL))
    deltas += [delta for char in "n" * 129 for delta in grammar.feed(Piece(char))]
    assert assemble(deltas).content == "<tool_call>" + "n" * 129


ENDLESS: dict[str, list[Piece]] = {
    "white space": [Piece("x"), *[Piece(" " * 100)] * 20_000, Piece("x")],
    "a key": [Piece("<tool_call>", Tag.TOOL_CALL), Piece("now\n<arg_key>"), *[Piece("k" * 100)] * 20_000],
    "a string": [Piece("<tool_call>", Tag.TOOL_CALL), VALUE_OF_CITY, *[Piece("</arg_value>x" * 8)] * 5_000],
    "tags in a string": [Piece("<tool_call>", Tag.TOOL_CALL), VALUE_OF_CITY, *[Piece("<think>", Tag.THINK)] * 20_000],
    "a list": [Piece("<tool_call>", Tag.TOOL_CALL), VALUE_OF_NOW, *[Piece("[" * 100)] * 20_000],
}


@pytest.mark.parametrize("case", ENDLESS)
def test_what_a_model_writes_without_end_costs_what_it_is_long(case: str) -> None:
    """White space that was held back was copied with every token: 2 MB of it took 10 seconds of the event loop."""
    grammar = Grammar(State.CONTENT, TOOLS)
    with cpu_time.at_most(3):
        num_out = sum(len(getattr(delta, "text", "")) for piece in ENDLESS[case] for delta in grammar.feed(piece))
        deltas = grammar.finish(is_complete=False)
    if case == "white space":
        assert (num_out, deltas) == (2_000_002, [])


def test_an_answer_cut_in_a_call_leaves_its_json_open() -> None:
    raw = CALL[: CALL.index("nn</arg")]
    reader = a_reader()
    answer = assemble(reader.feed(tokenizer().encode(raw), "length"))
    assert answer.calls == [Call("get_weather", '{"city": "Bo')]
    assert reader.finish_reason == "length"


def test_a_turn_that_ends_in_a_value_leaves_its_json_open() -> None:
    answer, reader = answer_to(CALL[: CALL.index("nn</arg")], eos="<|observation|>")
    assert answer.calls == [Call("get_weather", '{"city": "Bo')]
    assert reader.finish_reason == "stop"


def test_a_name_that_was_cut_is_no_call() -> None:
    reader = a_reader()
    assert reader.feed(tokenizer().encode("<tool_call>get_wea"), "length") == []
    assert reader.finish_reason == "length"


@pytest.mark.parametrize(
    ("raw", "num_reasoning", "has_answer"),
    [
        ("\n<think>", 1, False),
        ("\n<think>7</think>", 3, False),
        ("\n<think>7</think>\n", 3, False),
        ("<think>7</think>8", 3, True),
    ],
)
def test_reasoning_tokens_are_those_from_tag_to_tag(raw: str, num_reasoning: int, has_answer: bool) -> None:
    reader = a_reader()
    reader.feed(tokenizer().encode(raw), None)
    assert (reader.num_reasoning_tokens, reader.has_answer) == (num_reasoning, has_answer)


@pytest.mark.parametrize("stops", [[], ["?"]])
@pytest.mark.parametrize("ended", ["stop", "length"])
@pytest.mark.parametrize("raw", ["<think>hm<tool_call>", "<think>hm<tool_call>\n", "<think>hm"])
def test_a_call_that_never_began_leaves_the_thought_open(raw: str, ended: Any, stops: list[str]) -> None:
    reader = a_reader(stops=stops)
    ids = [*tokenizer().encode(raw), *([stop_id()] if ended == "stop" else [])]
    assert assemble(read(reader, [[id_] for id_ in ids], ended=ended)).reasoning == "hm"
    assert (reader.num_reasoning_tokens, reader.has_answer) == (len(ids), False)


def test_the_stop_token_counts_and_is_not_shown() -> None:
    answer, reader = answer_to("Hi")
    assert answer.content == "Hi"
    assert reader.num_tokens == len(tokenizer().encode("Hi")) + 1


def test_a_stop_token_of_an_answer_that_ignores_them_is_not_shown_either() -> None:
    reader = a_reader()
    deltas = reader.feed([*tokenizer().encode("a"), stop_id(), *tokenizer().encode("b")], "length")
    assert assemble(deltas) == Answer("", "ab")


def schema_of(arguments: dict[str, Any]) -> dict[str, Any]:
    names = {str: "string", int: "integer", bool: "boolean", type(None): "null", list: "array"}
    return {"properties": {key: {"type": names[type(value)]} for key, value in arguments.items()}}


def groupings(token_ids: list[int]) -> Iterator[list[list[int]]]:
    """Yield every way to cut a short list into groups; of a long one every cut in two and every group size."""
    inner = range(1, len(token_ids))
    if len(token_ids) <= 9:
        all_cuts = itertools.chain.from_iterable(itertools.combinations(inner, n) for n in range(len(token_ids)))
    else:
        all_cuts = itertools.chain(
            ((at,) for at in inner), (tuple(inner[size::size]) for size in range(len(token_ids))[1:])
        )
    return (list(grouped(token_ids, cuts)) for cuts in all_cuts)


def grouped(token_ids: list[int], cuts: Any) -> Iterator[list[int]]:
    for start, end in itertools.pairwise([0, *cuts, len(token_ids)]):
        yield token_ids[start:end]


def all_pairs(text: str) -> Iterator[tuple[int, ...]]:
    return itertools.combinations(range(len(text)), 2) if len(text) <= 40 else iter(())


def cut(text: str, cuts: tuple[int, ...]) -> Iterator[str]:
    for start, end in itertools.pairwise([0, *cuts, len(text)]):
        yield text[start:end]


def whole_pieces(raw: str) -> list[Piece]:
    """Return the output as tags and the longest texts between them."""
    pieces: list[Piece] = []
    while raw:
        found = [(at, tag) for tag in Tag if (at := raw.find(tag.value)) >= 0]
        at, tag = min(found, default=(len(raw), None), key=lambda hit: hit[0])
        if at:
            pieces.append(Piece(raw[:at]))
        if tag is not None:
            pieces.append(Piece(tag.value, tag))
        raw = raw[at + (len(tag.value) if tag else 0) :]
    return pieces


def meaning(pieces: list[Piece]) -> Answer:
    grammar = Grammar(State.CONTENT, TOOLS)
    deltas = [delta for piece in pieces for delta in grammar.feed(piece)]
    assert all(delta.text for delta in deltas if isinstance(delta, Content | ToolArguments))
    return assemble([*deltas, *grammar.finish(is_complete=True)])
