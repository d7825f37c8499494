"""The law of split points in Z.ai's dialect: calls come whole, and all of it is what comes unstreamed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from glm_worker.server.flights.replies import Answered, Ending
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.zai.replies import ZaiReplies
from glm_worker.server.text.output import OutputReader
from unit.worker.orders import chat_of
from unit.worker.server_builders import checkpoint, stop_id, tokenizer
from unit.worker.text.raw_outputs import OUTPUTS, Said
from unit.worker.told import told


def an_order(said: Said) -> Order:
    order = chat_of({"model": "glm-nano", "messages": [{"role": "user", "content": "?"}]})
    tags = checkpoint().think_tags | (checkpoint().tool_tags if said.tools else {})
    job = replace(order.jobs[0], tags=tags, state=said.state, tools=said.tools, any_tool_name=said.any_name)
    return replace(order, jobs=(job,))


def ending_of(reader: OutputReader) -> Ending:
    assert reader.finish_reason is not None
    return Ending(
        reason=reader.finish_reason,
        num_prompt_tokens=1,
        num_tokens=reader.num_tokens,
        num_reasoning_tokens=reader.num_reasoning_tokens,
    )


def replies(order: Order) -> ZaiReplies:
    return ZaiReplies(order, "m", 0, "r", streams_arguments=False)


def whole(order: Order, ids: list[int]) -> dict[str, Any]:
    reader = order.jobs[0].reader()
    deltas = reader.feed(ids, "stop")
    body = replies(order).body([Answered(deltas, ending_of(reader))])
    (choice,) = body["choices"]
    return {"finish_reason": choice["finish_reason"], "usage": body["usage"], "tool_calls": [], **choice["message"]}


def in_chunks(order: Order, groups: Sequence[list[int]]) -> dict[str, Any]:
    reader, streamed = order.jobs[0].reader(), replies(order)
    events = []
    for number, group in enumerate(groups):
        events += streamed.chunks(0, reader.feed(group, "stop" if number == len(groups) - 1 else None))
    events += streamed.ending(0, ending_of(reader))
    chat: dict[str, Any] = {"tool_calls": []}
    for chunk in told(events):
        (choice,) = chunk["choices"]
        chat |= {"finish_reason": choice["finish_reason"], "usage": chunk.get("usage")}
        for key, value in choice["delta"].items():
            chat[key] = chat.get(key, "") + value if key != "tool_calls" else [*chat[key], *value]
    for number, call in enumerate(chat["tool_calls"]):
        assert call.pop("index") == number
    return {**chat, "content": chat["content"] or (None if chat["tool_calls"] else "")}


@pytest.mark.parametrize("said", OUTPUTS.values(), ids=OUTPUTS)
def test_a_chat_in_chunks_is_the_whole_one_at_every_split(said: Said) -> None:
    order, ids = an_order(said), [*tokenizer().encode(said.raw), stop_id()]
    expected = whole(order, ids)
    assert in_chunks(order, [[id_] for id_ in ids]) == expected
    for at in range(1, len(ids), 5):
        assert in_chunks(order, [ids[:at], ids[at:]]) == expected
