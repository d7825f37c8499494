"""What a reader tells beside the text: how likely each token was, and what the client's own stops were."""

from glm_worker.messages import TokenLogprobs
from glm_worker.server.text.deltas import Delta, TokenLogprob, assemble
from glm_worker.server.text.output import OutputReader
from glm_worker.server.text.parsing import Grammar, PlainText, State
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


def test_tokens_that_turn_out_to_be_content_are_told_late_and_whole() -> None:
    raw = tokenizer().encode("a <tool_call>is what I would write</tool_call>")
    assert logprobs_of(a_reader(TOOLS), [*raw, stop_id()]) == raw


def test_the_tokens_of_a_call_have_no_logprobs() -> None:
    raw = tokenizer().encode("<tool_call>now\n</tool_call>")
    assert logprobs_of(a_reader(TOOLS), [*raw, stop_id()]) == []


def test_a_completion_tells_every_token_before_the_text_that_it_adds() -> None:
    reader = OutputReader(tokenizer(), {}, PlainText, stop_strings=(), stop_token_ids=checkpoint().stop_token_ids)
    ids = tokenizer().encode("1 2")
    deltas = reader.feed(ids, "length", [TokenLogprobs(-1.0, 1)] * len(ids))
    assert [isinstance(delta, TokenLogprob) for delta in deltas] == [True, False] * len(ids)
    assert [entry.token_id for entry in assemble(deltas).logprobs] == ids


def test_a_stop_of_the_clients_own_is_told_and_the_checkpoints_is_not() -> None:
    colon = tokenizer().token_id(":")
    assert colon is not None

    def reader() -> OutputReader:
        ids = (*checkpoint().stop_token_ids, colon)
        return OutputReader(
            tokenizer(),
            checkpoint().tool_tags,
            lambda: Grammar(State.CONTENT, TOOLS),
            stop_strings=("END",),
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


def test_a_call_that_the_clients_stop_token_cuts_is_not_finished() -> None:
    colon = tokenizer().token_id(":")
    assert colon is not None
    reader = OutputReader(
        tokenizer(),
        checkpoint().tool_tags,
        lambda: Grammar(State.CONTENT, TOOLS),
        stop_strings=(),
        stop_token_ids=(*checkpoint().stop_token_ids, colon),
        client_stop_ids=(colon,),
    )
    reader.feed([*tokenizer().encode("<tool_call>get_weather\n<arg_key>city"), colon], "stop")
    assert reader.finish_reason == "stop"
