"""The law of split points over every raw output: however it is cut, it means what its author says it means."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from glm_worker.server.flights.replies import Answered, Ending, Event
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.chat.replies import ChatReplies
from glm_worker.server.text.deltas import Answer, assemble
from glm_worker.server.text.lexer import Piece, Tag
from glm_worker.server.text.output import OutputReader
from glm_worker.server.text.parsing import Grammar
from unit.worker.orders import chat_of
from unit.worker.server_builders import a_reader, checkpoint, stop_id, tokenizer
from unit.worker.text.raw_outputs import KNOWN_THREADS, OUTPUTS, THREADS, Said
from unit.worker.told import told


@dataclass(frozen=True)
class Outcome:
    """All that a client sees of an answer, and what is counted of it."""

    answer: Answer
    finish_reason: str | None
    num_tokens: int
    num_reasoning_tokens: int
    has_answer: bool


def test_there_are_at_least_two_hundred_of_them_and_every_thread_has_one() -> None:
    assert len(OUTPUTS) >= 200
    threads = {f"{repository}#{number}" for repository, numbers in KNOWN_THREADS.items() for number in numbers.split()}
    assert {said.thread for said in THREADS} == threads


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_means_what_its_author_says(said: Said) -> None:
    outcome = read(said, [token_ids(said)])
    answer = outcome.answer
    assert (answer.reasoning, answer.content) == (said.reasoning, said.content)
    assert [call.name for call in answer.calls] == [name for name, _ in said.calls]
    for call, (_, arguments) in zip(answer.calls, said.calls, strict=True):
        if isinstance(arguments, str):
            assert call.arguments == arguments
        else:
            assert spelled(json.loads(call.arguments)) == spelled(arguments)
    assert outcome.finish_reason == said.finish_reason
    assert outcome.num_tokens == len(token_ids(said))
    assert outcome.num_reasoning_tokens == len(tokenizer().encode(said.thought))


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_every_split_between_tokens_means_the_same(said: Said) -> None:
    ids = token_ids(said)
    whole = read(said, [ids])
    for at in range(1, len(ids)):
        assert read(said, [ids[:at], ids[at:]]) == whole
    for size in (1, 2, 3, 5):
        assert read(said, [ids[at : at + size] for at in range(0, len(ids), size)]) == whole


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_every_split_between_characters_means_the_same(said: Said) -> None:
    """Tokenizers cut text anywhere, so the grammar is also fed the text cut in two at every character."""
    pieces = whole_pieces(said)
    whole = parsed(said, pieces)
    for position, piece in enumerate(pieces):
        for at in range(1, len(piece.text)) if piece.tag is None else ():
            parts = [Piece(piece.text[:at]), Piece(piece.text[at:])]
            assert parsed(said, [*pieces[:position], *parts, *pieces[position + 1 :]]) == whole
    assert parsed(said, letters(pieces)) == whole
    if said.tools:
        assert whole[0] == read(said, [token_ids(said)]).answer


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_a_chat_in_chunks_is_the_whole_one_at_every_split(said: Said) -> None:
    """As clients get it: two deltas, and chunk by chunk put together as the openai package does."""
    job = an_order(said)
    ids = token_ids(said)
    whole = whole_chat(job, ids)
    for at in range(1, len(ids), 3):
        assert chat_in_chunks(job, [ids[:at], ids[at:]]) == whole
    assert chat_in_chunks(job, [[id_] for id_ in ids]) == whole


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_what_was_streamed_is_always_a_beginning_of_the_whole_answer(said: Said) -> None:
    ids = token_ids(said)
    whole = read(said, [ids]).answer
    reader, deltas = reader_of(said), []
    for id_ in ids[:-1]:
        deltas += reader.feed([id_], None)
        streamed = assemble(deltas)
        assert whole.reasoning.startswith(streamed.reasoning)
        assert whole.content.startswith(streamed.content)
        assert len(streamed.calls) <= len(whole.calls)
        for call, whole_call in zip(streamed.calls, whole.calls, strict=False):
            assert call.name == whole_call.name
            assert whole_call.arguments.startswith(call.arguments)


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_cut_by_its_length_is_never_a_call_to_run(said: Said) -> None:
    ids = token_ids(said)[:-1]
    num_calls = len(read(said, [ids]).answer.calls)
    for end in range(0, len(ids), 3):
        reader = reader_of(said)
        answer = assemble(reader.feed(ids[:end], "length"))
        assert (reader.finish_reason, reader.num_tokens) == ("length", end)
        assert len(answer.calls) <= num_calls


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_a_stop_string_that_does_not_come_changes_nothing(said: Said) -> None:
    """It holds text back from the grammar, but tokens are counted where they are."""
    ids = token_ids(said)
    outcome = read(said, [[id_] for id_ in ids], stops=["\n\n\n\n\n\n\n?", "</tool_call>?", "hm?"])
    assert outcome == read(said, [ids])


def reader_of(said: Said, stops: Iterable[str] = ()) -> OutputReader:
    return a_reader(said.tools, said.state, list(stops), any_name=said.any_name)


def read(said: Said, groups: list[list[int]], stops: Iterable[str] = ()) -> Outcome:
    reader = reader_of(said, stops)
    deltas = [
        delta
        for number, group in enumerate(groups)
        for delta in reader.feed(group, "stop" if number == len(groups) - 1 else None)
    ]
    return Outcome(
        assemble(deltas), reader.finish_reason, reader.num_tokens, reader.num_reasoning_tokens, reader.has_answer
    )


def an_order(said: Said) -> Order:
    body = {"model": "glm-nano", "messages": [{"role": "user", "content": "?"}]}
    tags = checkpoint().think_tags | (checkpoint().tool_tags if said.tools else {})
    order = chat_of(body)
    (job,) = order.jobs
    job = replace(job, tags=tags, state=said.state, tools=said.tools, any_tool_name=said.any_name)
    return replace(order, jobs=(job,))


def ending_of(reader: OutputReader) -> Ending:
    assert reader.finish_reason is not None
    return Ending(
        reason=reader.finish_reason,
        num_prompt_tokens=1,
        num_tokens=reader.num_tokens,
        num_reasoning_tokens=reader.num_reasoning_tokens,
    )


def whole_chat(order: Order, ids: list[int]) -> dict[str, Any]:
    reader = order.jobs[0].reader()
    deltas = reader.feed(ids, "stop")
    (choice,) = ChatReplies(order, "m", 0).body([Answered(deltas, ending_of(reader))])["choices"]
    return {"finish_reason": choice["finish_reason"], **choice["message"]}


def chat_in_chunks(order: Order, groups: list[list[int]]) -> dict[str, Any]:
    reader, replies = order.jobs[0].reader(), ChatReplies(order, "m", 0)
    events: list[Event] = []
    for number, group in enumerate(groups):
        events += replies.chunks(0, reader.feed(group, "stop" if number == len(groups) - 1 else None))
    events += replies.ending(0, ending_of(reader))
    chunks: list[Any] = told(events)
    chat: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    for chunk in chunks:
        (choice,) = chunk["choices"]
        chat["finish_reason"] = choice["finish_reason"]
        for key, value in choice["delta"].items():
            if key != "tool_calls":
                chat[key] = chat.get(key, "") + value
        for call in choice["delta"].get("tool_calls", ()):
            if call["index"] == len(calls):
                calls.append({key: value for key, value in call.items() if key != "index"})
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    if calls:
        chat |= {"tool_calls": calls, "content": chat["content"] or None}
    return chat


def token_ids(said: Said) -> list[int]:
    return [*tokenizer().encode(said.raw), stop_id()]


def whole_pieces(said: Said) -> list[Piece]:
    """Return the output as tags and the longest texts between them."""
    pieces: list[Piece] = []
    text = said.raw
    while text:
        found = [(at, tag) for tag in Tag if (at := text.find(tag.value)) >= 0]
        at, tag = min(found, default=(len(text), None), key=lambda hit: hit[0])
        if at:
            pieces.append(Piece(text[:at]))
        if tag is not None:
            pieces.append(Piece(tag.value, tag))
        text = text[at + (len(tag.value) if tag else 0) :]
    return pieces


def letters(pieces: list[Piece]) -> list[Piece]:
    return list(itertools.chain.from_iterable([piece] if piece.tag else map(Piece, piece.text) for piece in pieces))


def parsed(said: Said, pieces: list[Piece]) -> tuple[Answer, bool, int]:
    grammar = Grammar(said.state, said.tools, any_name=said.any_name)
    deltas = [delta for piece in pieces for delta in grammar.feed(piece)]
    answer = assemble([*deltas, *grammar.finish(is_complete=True)])
    return answer, grammar.has_cut_call, grammar.num_calls


def spelled(value: Any) -> str:
    """Return JSON that tells 1, 1.0 and true apart."""
    return json.dumps(value, ensure_ascii=False)
