"""What a reader tells beside the text: how likely each token was, and what the client's own stops were."""

from typing import Any

import pytest

from glm_worker.messages import TokenLogprobs
from glm_worker.server.text.deltas import Answer, Content, Delta, TokenLogprob, assemble
from glm_worker.server.text.output import OutputReader
from glm_worker.server.text.parsing import Grammar, PlainText, State
from glm_worker.server.text.stop_words import NO_STOPS, StopWords
from unit.worker.server_builders import TOOLS, a_reader, checkpoint, stop_id, tokenizer


def logprobs_of(reader: OutputReader, ids: list[int]) -> list[int]:
    """Return the ids whose logprobs come, the tokens fed one by one."""
    deltas: list[Delta] = []
    for number, token_id in enumerate(ids):
        last = number == len(ids) - 1
        deltas += reader.feed([token_id], "stop" if last else None, [TokenLogprobs(-0.5, 1, [(token_id, -0.5)])])
    return [delta.token_id for delta in deltas if isinstance(delta, TokenLogprob)]


def test_a_chat_tells_the_logprobs_of_its_content_only() -> None:
    content = tokenizer().encode("yes 1")
    ids = [*tokenizer().encode("<think>hm</think>\n"), *content, stop_id()]
    told = logprobs_of(a_reader({}), ids)
    assert told == content


@pytest.mark.parametrize(
    ("raw", "content"),
    [
        ("🙂", "🙂"),
        ("\n🙂", "🙂"),
        ("<think>🙂</think>\n🙂 é", "🙂 é"),
        ("  yes", "  yes"),
        ("yes \n", "yes \n"),
        ("\n  \n", "  \n"),
        (" \n<think>hm</think>yes", "yes"),
        ("a\n<tool_call>now\n</tool_call>", "a"),
        ("a\n<tool_call>rm\n</tool_call>", "a\n<tool_call>rm\n</tool_call>"),
    ],
)
def test_every_token_of_the_content_has_a_logprob_and_no_other(raw: str, content: str) -> None:
    ids = [*tokenizer().encode(raw), stop_id()]
    assert text_of(logprobs_of(a_reader(TOOLS), ids)) == content
    for size in (2, 3, len(ids)):
        reader, deltas = a_reader(TOOLS), list[Delta]()
        for at in range(0, len(ids), size):
            some = ids[at : at + size]
            deltas += reader.feed(some, "stop" if some[-1] == stop_id() else None, [TokenLogprobs(-0.5, 1)] * len(some))
        answer = assemble(deltas)
        assert text_of([entry.token_id for entry in answer.logprobs]) == answer.content == content


def test_the_bytes_of_a_character_that_is_never_completed_have_logprobs() -> None:
    first = tokenizer().encode("🙂")[0]
    for reader in (a_reader({}), OutputReader(tokenizer(), {}, PlainText, stops=NO_STOPS, stop_token_ids=())):
        answer = assemble(reader.feed([first], "length", [TokenLogprobs(-0.5, 1)]))
        assert (answer.content, [entry.token_id for entry in answer.logprobs]) == ("\ufffd", [first])


@pytest.mark.parametrize("of_grammar", [{"goes_on": True}, {"is_exact": True}])
def test_a_newline_that_is_text_has_a_logprob(of_grammar: dict[str, bool]) -> None:
    ids = [*tokenizer().encode("\n1"), stop_id()]
    assert logprobs_of(a_reader({}, **of_grammar), ids) == ids[:-1]


def test_a_token_without_text_is_told_in_a_completion() -> None:
    ids = [*tokenizer().encode("a"), stop_id(), *tokenizer().encode("b")]
    reader = OutputReader(tokenizer(), {}, PlainText, stops=NO_STOPS, stop_token_ids=())
    assert logprobs_of(reader, [*ids, *tokenizer().encode("c")])[: len(ids)] == ids


def test_tokens_that_turn_out_to_be_content_are_told_late_and_whole() -> None:
    raw = tokenizer().encode("a <tool_call>is what I would write</tool_call>")
    assert logprobs_of(a_reader(TOOLS), [*raw, stop_id()]) == raw


def test_the_tokens_of_a_call_have_no_logprobs() -> None:
    raw = tokenizer().encode("<tool_call>now\n</tool_call>")
    assert logprobs_of(a_reader(TOOLS), [*raw, stop_id()]) == []


def test_a_completion_tells_every_token_before_the_text_that_it_adds() -> None:
    reader = OutputReader(tokenizer(), {}, PlainText, stops=NO_STOPS, stop_token_ids=checkpoint().stop_token_ids)
    ids = tokenizer().encode("1 2")
    deltas = reader.feed(ids, "length", [TokenLogprobs(-1.0, 1)] * len(ids))
    assert [isinstance(delta, TokenLogprob) for delta in deltas] == [True, False] * len(ids)
    assert [entry.token_id for entry in assemble(deltas).logprobs] == ids


def text_of(ids: list[int]) -> str:
    return b"".join(map(tokenizer().bytes_of, ids)).decode(errors="replace")


CUTS = [
    ("one two three", "two"),
    ("one two three", "e t"),
    ("one two three", "one"),
    ("one two three", "three"),
    ("one two three", "no such"),
    ("one two thre", "three"),  # what could have become one is told at the end
    ("数字 🙂 is it", "🙂"),
    ("数字 🙂 is it", "字"),
    ("1 2 3 4 5 6 7 8", " 4 5 6"),
    ("\n\nab\n\ncd", "\n\nc"),
    ("yes<tool_call>now\n</tool_call> no", "now"),
    ("yes <tool_call>is what I write</tool_call> no", "write"),
    ("<think>a stop</think>\nthe answer stop it", "stop it"),
]


@pytest.mark.parametrize(("raw", "stop"), CUTS)
@pytest.mark.parametrize("of_chat", [True, False])
def test_no_token_behind_a_stop_string_has_a_logprob_however_the_tokens_come(
    raw: str, stop: str, *, of_chat: bool
) -> None:
    ids = tokenizer().encode(raw)

    def reader() -> OutputReader:
        return OutputReader(
            tokenizer(),
            checkpoint().think_tags | checkpoint().tool_tags if of_chat else {},
            lambda: Grammar(State.CONTENT, TOOLS) if of_chat else PlainText(),
            stops=StopWords((stop,)),
            stop_token_ids=checkpoint().stop_token_ids,
        )

    def read(size: int) -> list[Delta]:
        reading, deltas = reader(), list[Delta]()
        for at in range(0, len(ids), size):
            some = ids[at : at + size]
            ended = "length" if at + size >= len(ids) else None
            deltas += reading.feed(some, ended, [TokenLogprobs(-0.5, 1)] * len(some))
        return deltas

    whole = assemble(read(len(ids)))
    told = [entry.token_id for entry in whole.logprobs]
    assert len(text_of(told).lstrip()) >= len(whole.content.strip()), "every token of the text has one"
    before_last = b"".join(map(tokenizer().bytes_of, told[:-1])).decode(errors="ignore")
    assert len(before_last.strip()) < max(len(whole.content), 1), "and none behind it"
    assert bool(told) == bool(whole.content)
    for size in (1, 2, 3, 5):
        deltas = read(size)
        assert assemble(deltas) == whole
        num_told = 0
        for index, delta in enumerate(deltas):  # of each text there is a token before it
            num_told += isinstance(delta, TokenLogprob)
            if isinstance(delta, Content):
                assert len(text_of(told[:num_told]).lstrip()) >= len(assemble(deltas[: index + 1]).content.strip())


def test_a_stop_of_the_clients_own_is_told_and_the_checkpoints_is_not() -> None:
    colon = tokenizer().token_id(":")
    assert colon is not None

    def reader() -> OutputReader:
        ids = (*checkpoint().stop_token_ids, colon)
        return OutputReader(
            tokenizer(),
            checkpoint().tool_tags,
            lambda: Grammar(State.CONTENT, TOOLS),
            stops=StopWords(("END",)),
            stop_token_ids=ids,
            client_stop_ids=(colon,),
        )

    own, other, text = reader(), reader(), reader()
    own.feed([*tokenizer().encode("hi"), colon], "stop")
    other.feed([*tokenizer().encode("hi"), stop_id()], "stop")
    text.feed(tokenizer().encode("hi END"), None)
    assert (own.finish_reason, own.stop) == ("stop", colon)
    assert (other.finish_reason, other.stop) == ("stop", None)
    assert (text.finish_reason, text.stop) == ("stop", "END")


def hiding(state: State = State.CONTENT, stops: tuple[str, ...] = (), *ids: int, **of: Any) -> OutputReader:
    return OutputReader(
        tokenizer(),
        checkpoint().think_tags | checkpoint().tool_tags,
        lambda: Grammar(state, TOOLS),
        stops=StopWords(stops),
        stop_token_ids=checkpoint().stop_token_ids,
        client_stop_ids=ids,
        **of,
    )


def one_by_one(reader: OutputReader, raw: str) -> Answer:
    deltas: list[Delta] = []
    for token_id in [*tokenizer().encode(raw), stop_id()]:
        if reader.finish_reason is None:
            deltas += reader.feed([token_id], "stop" if token_id == stop_id() else None, [TokenLogprobs(-0.5, 1)])
    return assemble(deltas)


@pytest.mark.parametrize(
    ("stop", "state", "raw"),
    [
        ("secret", State.CONTENT, "<think>the secret is 7</think>\nno"),
        ("secret", State.REASONING, "the secret is 7</think>\nno"),
        ("secret", State.REASONING, "a <tool_call>secret</tool_call> b</think>\nno"),
        ("</think>", State.REASONING, "7</think>\nno"),
        ("<think>", State.CONTENT, "<think>7</think>\nno"),
        ("7</think>\nno", State.REASONING, "7</think>\nno"),
    ],
)
def test_a_stop_string_cannot_ask_what_a_hidden_thought_has(stop: str, state: State, raw: str) -> None:
    reader = hiding(state, (stop,), hides_reasoning=True)
    assert one_by_one(reader, raw).content == "no"
    assert (reader.finish_reason, reader.stop) == ("stop", None)
    seen = hiding(state, (stop,))
    one_by_one(seen, raw)
    assert seen.stop == stop


def test_a_stop_string_ends_the_answer_after_a_hidden_thought() -> None:
    reader = hiding(State.REASONING, ("END",), hides_reasoning=True)
    answer = one_by_one(reader, "I say END</think>\nyes END no")
    assert (answer.content, reader.finish_reason, reader.stop) == ("yes ", "stop", "END")


def test_what_may_become_a_stop_string_before_a_hidden_thought_is_told() -> None:
    reader = hiding(State.CONTENT, ("END",), hides_reasoning=True)
    assert one_by_one(reader, "the EN<think>D</think>").content == "the EN"
    assert reader.stop is None


def test_a_stop_token_counts_outside_of_a_hidden_thought_only() -> None:
    colon = tokenizer().token_id(":")
    end = tokenizer().token_id("</think>")
    assert colon is not None
    assert end is not None
    reader = hiding(State.REASONING, (), colon, end, hides_reasoning=True)
    answer = one_by_one(reader, "it is:7</think>\nso:7")
    assert (answer.content, reader.finish_reason, reader.stop) == ("so", "stop", colon)
    assert colon not in [entry.token_id for entry in answer.logprobs]


def test_a_stop_token_that_is_the_newline_of_the_format_is_none() -> None:
    (newline,) = tokenizer().encode("\n")
    reader = hiding(State.REASONING, (), newline, hides_reasoning=True)
    answer = one_by_one(reader, "\nhm\nso</think>\nyes\nno")
    assert (answer.content, reader.finish_reason, reader.stop) == ("yes", "stop", newline)


def test_no_stop_of_the_client_counts_before_min_tokens() -> None:
    colon = tokenizer().token_id(":")
    assert colon is not None
    first = len(tokenizer().encode("a END b: "))
    text = hiding(State.CONTENT, ("END",), min_tokens=first)
    assert one_by_one(text, "a END b: c END d").content == "a END b: c "
    assert text.stop == "END"
    own = hiding(State.CONTENT, (), colon, hides_reasoning=True, min_tokens=first)
    assert one_by_one(own, "a END b: c: d").content == "a END b: c"
    assert own.stop == colon


def test_a_hidden_thought_is_no_text_of_a_completion() -> None:
    ids = tokenizer().encode("a<think>hm</think>b<think>cut")
    reader = OutputReader(
        tokenizer(),
        checkpoint().think_tags,
        PlainText,
        stops=StopWords(("hm",)),
        stop_token_ids=checkpoint().stop_token_ids,
        hides_reasoning=True,
    )
    answer = assemble(reader.feed(ids, "length"))
    assert (answer.content, answer.reasoning) == ("ab", "hmcut")
    assert reader.num_reasoning_tokens == len(ids) - len(tokenizer().encode("a")) - len(tokenizer().encode("b"))


def test_a_call_that_the_clients_stop_token_cuts_is_not_finished() -> None:
    colon = tokenizer().token_id(":")
    assert colon is not None
    reader = OutputReader(
        tokenizer(),
        checkpoint().tool_tags,
        lambda: Grammar(State.CONTENT, TOOLS),
        stops=NO_STOPS,
        stop_token_ids=(*checkpoint().stop_token_ids, colon),
        client_stop_ids=(colon,),
    )
    reader.feed([*tokenizer().encode("<tool_call>get_weather\n<arg_key>city"), colon], "stop")
    assert reader.finish_reason == "stop"
