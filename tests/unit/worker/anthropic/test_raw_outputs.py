"""The law of split points on this surface: a stream put together is the message that comes whole, for every output."""

import json
from dataclasses import replace
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event

from glm_worker.server.jobs.order import Order
from glm_worker.server.text.deltas import assemble
from unit.worker.anthropic.bodies import as_json, data_of, events_of, order_of, put_together, whole
from unit.worker.server_builders import checkpoint, stop_id, tokenizer
from unit.worker.text.raw_outputs import OUTPUTS, Said


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_a_message_in_events_is_the_whole_one_at_every_split(said: Said) -> None:
    order, ids = an_order(said), token_ids(said)
    message = whole(order, ids)
    for at in range(1, len(ids), 3):
        assert streamed(order, [ids[:at], ids[at:]]) == message
    assert streamed(order, [[id_] for id_ in ids]) == message


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_the_vendors_own_package_puts_the_same_message_together(said: Said) -> None:
    order, ids = an_order(said), token_ids(said)
    assert by_package(order, [[id_] for id_ in ids]) == whole(order, ids)


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_a_message_says_what_the_author_of_the_output_says(said: Said) -> None:
    message = whole(an_order(said), token_ids(said))
    blocks = message["content"]
    assert "\n".join(block["thinking"] for block in blocks if block["type"] == "thinking") == said.reasoning
    assert "\n".join(block["text"] for block in blocks if block["type"] == "text") == said.content
    calls = [block for block in blocks if block["type"] == "tool_use"]
    assert [call["name"] for call in calls] == [name for name, _ in said.calls]
    for call, (_, arguments) in zip(calls, said.calls, strict=True):
        if not isinstance(arguments, str):
            assert spelled(call["input"]) == spelled(arguments)
    assert (message["stop_reason"] == "tool_use") == (said.finish_reason == "tool_calls")


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_a_message_that_was_cut_is_the_same_in_a_stream(said: Said) -> None:
    """Of a call that was cut, what the vendor's package makes of the beginning of its input is what comes whole."""
    order, ids = an_order(said), token_ids(said)[:-1]
    for end in range(1, len(ids), 7):
        message = whole(order, ids[:end], "length")
        assert message["stop_reason"] == "max_tokens"
        assert by_package(order, [ids[:end]], "length") == message


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_blocks_hold_all_that_the_answer_holds_and_none_is_empty(said: Said) -> None:
    order, ids = an_order(said), token_ids(said)
    answer = assemble(order.jobs[0].reader().feed(ids, "stop"))
    blocks = whole(order, ids)["content"]
    assert all(block.get("text", "x") and block.get("thinking", "x") for block in blocks)
    kinds = {block["type"] for block in blocks}
    assert ("thinking" in kinds, "text" in kinds) == (bool(answer.reasoning), bool(answer.content))
    assert sum(block["type"] == "tool_use" for block in blocks) == len(answer.calls)


def an_order(said: Said) -> Order:
    tags = checkpoint().think_tags | (checkpoint().tool_tags if said.tools else {})
    order = order_of()
    (job,) = order.jobs
    job = replace(job, tags=tags, state=said.state, tools=said.tools, any_tool_name=said.any_name)
    return replace(order, jobs=(job,))


def token_ids(said: Said) -> list[int]:
    return [*tokenizer().encode(said.raw), stop_id()]


def streamed(order: Order, groups: list[list[int]], ended: Any = "stop") -> dict[str, Any]:
    return put_together(events_of(order, groups, ended))


def by_package(order: Order, groups: list[list[int]], ended: Any = "stop") -> dict[str, Any]:
    message: Any = None
    buffers: dict[int, bytes] = {}
    for event in events_of(order, groups, ended):
        data: Any = as_json(data_of(event))
        message = accumulate_event(event=data, current_snapshot=message, json_bufs=buffers)
    dumped: dict[str, Any] = json.loads(message.to_json(exclude_unset=True))
    return {key: value for key, value in dumped.items() if key != "stop_details"}


def spelled(value: Any) -> str:
    """Return JSON that tells 1, 1.0 and true apart."""
    return json.dumps(value, ensure_ascii=False)
