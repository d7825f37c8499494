"""The law of split points on the responses surface: however an answer is cut, its events are the whole response."""

from typing import Any

import pytest

from glm_worker.server.responses.ids import ResponseId
from glm_worker.server.responses.output import Output
from glm_worker.server.text.deltas import ToolArguments, ToolCall, assemble
from unit.worker.responses.response_builders import of_raw_output, put_together, streamed, whole
from unit.worker.server_builders import stop_id, tokenizer
from unit.worker.text.raw_outputs import OUTPUTS, Said

Json = dict[str, Any]
FIELDS = {"include": ["reasoning.encrypted_content"]}


def token_ids(said: Said) -> list[int]:
    return [*tokenizer().encode(said.raw), stop_id()]


def without_times(response: Json) -> Json:
    return {name: value for name, value in response.items() if name != "completed_at"}


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_a_response_in_events_is_the_whole_one_at_every_split(said: Said) -> None:
    asked = of_raw_output(said, **FIELDS)
    ids = token_ids(said)
    expected = without_times(whole(asked, ids))
    for at in range(1, len(ids), 3):
        assert without_times(put_together(streamed(asked, [ids[:at], ids[at:]]))) == expected
    assert without_times(put_together(streamed(asked, [[id_] for id_ in ids]))) == expected


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_a_response_says_what_the_output_means(said: Said) -> None:
    asked = of_raw_output(said)
    ids = token_ids(said)
    answer = assemble(asked.order.jobs[0].reader().feed(ids, "stop"))
    output = whole(asked, ids)["output"]
    texts = {"reasoning": "", "message": ""}
    for item in output:
        if item["type"] != "function_call":
            texts[item["type"]] += "".join(part["text"] for part in item["content"])
    assert texts == {"reasoning": answer.reasoning, "message": answer.content}
    calls = [(item["name"], item["arguments"]) for item in output if item["type"] == "function_call"]
    assert calls == [(call.name, call.arguments) for call in answer.calls]


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_a_cut_call_is_an_incomplete_item_of_an_incomplete_response(said: Said) -> None:
    response = whole(of_raw_output(said), token_ids(said))
    cut = [item for item in response["output"] if item["type"] == "function_call" and item["status"] == "incomplete"]
    has_cut_call = any(isinstance(arguments, str) for _, arguments in said.calls)
    assert bool(cut) == has_cut_call
    assert response["status"] == ("incomplete" if has_cut_call else "completed")


@pytest.mark.parametrize(("arguments", "status"), [("{}", "completed"), ('{"a": 1', "incomplete"), ("", "incomplete")])
def test_a_call_is_complete_where_its_arguments_are_also_if_the_answer_was_cut_behind_it(
    arguments: str, status: str
) -> None:
    output = Output(ResponseId.new("group"), seals=False, logprob=lambda _: {})
    for delta in (ToolCall(0, "f"), ToolArguments(0, arguments)):
        output.feed(delta)
    output.finish(is_complete=False)
    assert (output.items[0]["status"], output.has_cut_call) == (status, status == "incomplete")
