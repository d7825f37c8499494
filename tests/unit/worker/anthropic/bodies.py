"""Orders as the Anthropic surface makes them of bodies, and messages put together as its clients do it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from pydantic_core import from_json
from starlette.datastructures import Headers

from glm_worker.messages import Policy
from glm_worker.server.anthropic.intake import Intake
from glm_worker.server.anthropic.replies import MessageReplies
from glm_worker.server.flights.replies import Answered, Ending, Event
from glm_worker.server.jobs.context import Caller, Context, Rules
from glm_worker.server.jobs.job import Room
from glm_worker.server.jobs.order import Order
from glm_worker.server.text.output import OutputReader
from unit.worker.server_builders import checkpoint

USER = {"role": "user", "content": "hi"}


def a_context(headers: Mapping[str, str] | None = None, *, policy: Policy | None = None) -> Context:
    return Context(
        checkpoint=checkpoint(),
        rules=Rules(),
        policy=policy or Policy(),
        caller=Caller(request_id="r", headers=Headers(headers or {})),
    )


def order_of(
    room: int = 2048, *, intake: Intake | None = None, headers: Mapping[str, str] | None = None, **fields: Any
) -> Order:
    body = {"model": "glm-nano", "max_tokens": 100, "messages": [USER], **fields}
    return (intake or Intake()).message(json.dumps(body).encode(), a_context(headers), Room(room))


def prompt_of(order: Order) -> str:
    (job,) = order.jobs
    return checkpoint().tokenizer._inner.decode(job.prompt_token_ids, skip_special_tokens=False)


def ending_of(reader: OutputReader) -> Ending:
    assert reader.finish_reason is not None
    return Ending(
        reason=reader.finish_reason,
        num_prompt_tokens=1,
        num_tokens=reader.num_tokens,
        num_reasoning_tokens=reader.num_reasoning_tokens,
        stop=reader.stop,
    )


def whole(order: Order, ids: Sequence[int], ended: Any = "stop") -> dict[str, Any]:
    reader = order.jobs[0].reader()
    deltas = reader.feed(ids, ended)
    return as_json(MessageReplies(order, "m", 0).body([Answered(deltas, ending_of(reader))]))


def events_of(order: Order, groups: Sequence[Sequence[int]], ended: Any = "stop") -> list[Event]:
    """Return the stream of an answer whose tokens come in these groups."""
    reader, replies = order.jobs[0].reader(), MessageReplies(order, "m", 0)
    events = replies.opening()
    for number, group in enumerate(groups):
        events += replies.chunks(0, reader.feed(group, ended if number == len(groups) - 1 else None))
    ending = ending_of(reader)
    return [*events, *replies.ending(0, ending), *replies.closing([ending])]


def put_together(events: Iterable[Event]) -> dict[str, Any]:
    """Return the message that these events are the stream of. Fails where their order is not the API's."""
    first, *rest = [data_of(event) for event in events]
    assert first["type"] == "message_start"
    message: dict[str, Any] = as_json(first["message"])
    content: list[dict[str, Any]] = message["content"]
    arguments: dict[int, str] = {}
    is_open = False
    for event in rest:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(content)
                content.append(dict(event["content_block"]))
                is_open = True
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(content) - 1
                kind, *added = event["delta"].items()
                if kind == ("type", "input_json_delta"):
                    ((_, text),) = added
                    arguments[event["index"]] = arguments.get(event["index"], "") + text
                else:
                    ((name, text),) = added
                    assert text
                    content[-1][name] += text
            case "content_block_stop":
                assert is_open
                assert event["index"] == len(content) - 1
                is_open = False
            case "message_delta":
                assert not is_open
                message |= event["delta"]
                message["usage"] |= event["usage"]
            case _:
                assert event == rest[-1] == {"type": "message_stop"}
    for index, text in arguments.items():
        content[index]["input"] = from_json(text, allow_partial=True)  # as clients read a call that was cut
    return message


def data_of(event: Event) -> dict[str, Any]:
    assert isinstance(event.data, Mapping)
    assert event.name == event.data["type"]
    return event.data


def as_json(body: Any) -> dict[str, Any]:
    """Return a body as a client reads it."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(body))
    return decoded
