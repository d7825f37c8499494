"""Accepted requests of the responses surface, replies to them, and what a client puts together of their events."""

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from glm_worker.messages import Policy
from glm_worker.server.flights.replies import Answered, Ending, Event
from glm_worker.server.jobs.context import Caller, Context, Rules
from glm_worker.server.responses.intake import Accepted, Intake
from glm_worker.server.responses.replies import ResponseReplies
from glm_worker.server.responses.store import Store
from glm_worker.server.text.output import OutputReader
from unit.worker.server_builders import checkpoint

Json = dict[str, Any]
GROUP = "nano-g0"


def a_context(tenant: str = "", policy: Policy | None = None) -> Context:
    return Context(
        checkpoint=checkpoint(),
        rules=Rules(),
        policy=policy or Policy(),
        caller=Caller(request_id="r", tenant=tenant),
    )


def accepted(store: Store | None = None, *, tenant: str = "", **fields: Any) -> Accepted:
    body = {"model": "glm-nano", "input": "hi", **fields}
    return Intake(store or Store(), GROUP).accept(json.dumps(body).encode(), a_context(tenant))


def of_raw_output(said: Any, **fields: Any) -> Accepted:
    """Return a request whose answer is read as a raw output is."""
    asked = accepted(**fields)
    tags = checkpoint().think_tags | (checkpoint().tool_tags if said.tools else {})
    (job,) = asked.order.jobs
    job = replace(job, tags=tags, state=said.state, tools=said.tools, any_tool_name=said.any_name)
    return replace(asked, order=replace(asked.order, jobs=(job,)))


def ending_of(reader: OutputReader) -> Ending:
    assert reader.finish_reason is not None
    return Ending(
        reason=reader.finish_reason,
        num_prompt_tokens=1,
        num_tokens=reader.num_tokens,
        num_reasoning_tokens=reader.num_reasoning_tokens,
    )


def whole(asked: Accepted, ids: Sequence[int], ended: Any = "stop") -> Json:
    reader = asked.order.jobs[0].reader()
    deltas = reader.feed(ids, ended)
    return ResponseReplies(asked, "m", 0).body([Answered(deltas, ending_of(reader))])


def streamed(asked: Accepted, groups: Sequence[Sequence[int]], ended: Any = "stop") -> list[Json]:
    """Return the data of all events, in the order in which they are sent."""
    reader, replies = asked.order.jobs[0].reader(), ResponseReplies(asked, "m", 0)
    events: list[Event] = []
    for number, group in enumerate(groups):
        events += replies.chunks(0, reader.feed(group, ended if number == len(groups) - 1 else None))
    events += replies.ending(0, ending_of(reader))
    events += replies.closing([ending_of(reader)])
    told = [*replies.opening(), *events]
    assert [event.name for event in told] == [event.data["type"] for event in told]  # type: ignore[index]
    return [event.data for event in told]  # type: ignore[misc]


def put_together(events: Sequence[Json]) -> Json:
    """Return the response that a client has after these events, from their deltas alone up to the last event."""
    response: Json = {}
    for number, event in enumerate(events):
        assert event["sequence_number"] == number
        match event["type"].removeprefix("response."):
            case "created":
                assert not response
                response = copy.deepcopy(event["response"])
            case "queued" | "in_progress":
                response |= {"status": event["response"]["status"]}
                assert event["response"]["output"] == []
            case "completed" | "incomplete":
                assert response["output"] == event["response"]["output"], "what was told is what there is"
                response = event["response"] | {"output": response["output"]}
            case _:
                _grow(response["output"], event)
    return response


def _grow(output: list[Json], event: Json) -> None:
    kind = event["type"].removeprefix("response.")
    if kind == "output_item.added":
        assert event["output_index"] == len(output)
        assert not output or output[-1]["status"] != "in_progress", "one item at a time"
        output.append(copy.deepcopy(event["item"]))
        return
    item = output[event["output_index"]]
    assert event["output_index"] == len(output) - 1
    if kind == "output_item.done":
        seals = (
            {"encrypted_content": event["item"].get("encrypted_content")}
            if "encrypted_content" in event["item"]
            else {}
        )
        output[-1] = item | {"status": event["item"]["status"]} | seals
        assert output[-1] == event["item"]
        return
    assert event["item_id"] == item["id"]
    _grow_item(item, kind, event)


def _grow_item(item: Json, kind: str, event: Json) -> None:
    match kind:
        case "content_part.added":
            assert event["content_index"] == len(item["content"])
            item["content"].append(copy.deepcopy(event["part"]))
        case "reasoning_text.delta" | "output_text.delta":
            part = item["content"][event["content_index"]]
            part["text"] += event["delta"]
            if kind == "output_text.delta":
                part["logprobs"] += event["logprobs"]
        case "reasoning_text.done" | "output_text.done":
            assert item["content"][event["content_index"]]["text"] == event["text"]
        case "content_part.done":
            assert item["content"][event["content_index"]] == event["part"]
        case "function_call_arguments.delta":
            item["arguments"] += event["delta"]
        case "function_call_arguments.done":
            assert (item["name"], item["arguments"]) == (event["name"], event["arguments"])
        case _:
            raise AssertionError(f"an event of no known type: {event['type']}")
