"""One response in the shapes of the API: whole, as events, and as it stands on the way. Values in, dicts out."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from glm_edge.errors.failure import Failure
from glm_worker.server.flights.replies import Answered, Ending, Event
from glm_worker.server.openai.logprobs import chat_logprobs, spelled_in_chat
from glm_worker.server.responses.intake import Accepted
from glm_worker.server.responses.output import Output
from glm_worker.server.responses.schema import ResponseRequest
from glm_worker.server.text.deltas import Delta, TokenLogprob, merged

Json = dict[str, Any]
Keep = Callable[[Json], None]


class ResponseReplies:
    """keep: called with the response once it is complete, before its client can know that.

    The numbers of events are their places in the stream. What opens a stream has the first ones whenever it is asked
    for, because what follows may have been made before.
    """

    def __init__(self, accepted: Accepted, model: str, created: int, keep: Keep = lambda _: None) -> None:
        self._order = accepted.order
        self._keep = keep
        self._frame = _frame(accepted, model, created)
        (job,) = accepted.order.jobs
        self._output = Output(
            accepted.id,
            seals=accepted.request.includes_encrypted,
            logprob=lambda token: chat_logprobs([token], job.tokenizer)["content"][0],
        )
        self._in_background = bool(accepted.request.background)
        self._num_events = len(self.opening())
        self._has_begun = not self._in_background

    def body(self, answers: Sequence[Answered]) -> Json:
        ((deltas, ending),) = answers
        for delta in merged(deltas):
            self._output.feed(delta)
        self._output.finish(is_complete=ending.reason != "length")
        return self._complete(ending)

    def opening(self) -> list[Event]:
        first, second = ("queued", "queued") if self._in_background else ("in_progress", "in_progress")
        events = [
            {"type": "response.created", "response": self.standing(first)},
            {"type": f"response.{second}", "response": self.standing(second)},
        ]
        return [_event(event, number) for number, event in enumerate(events)]

    def chunks(self, index: int, deltas: Sequence[Delta]) -> list[Event]:  # noqa: ARG002 - there is one answer
        return self._events(
            [*self._begin(), *(event for delta in merged(deltas) for event in self._output.feed(delta))]
        )

    def ending(self, index: int, ending: Ending) -> list[Event]:  # noqa: ARG002
        return self._events([*self._begin(), *self._output.finish(is_complete=ending.reason != "length")])

    def closing(self, endings: Sequence[Ending]) -> list[Event]:
        (ending,) = endings
        response = self._complete(ending)
        return self._events([{"type": f"response.{response['status']}", "response": response}])

    def failure(self, failure: Failure) -> list[Event]:
        told = {"code": failure.code or failure.type, "message": failure.message, "param": failure.param}
        return self._events(
            [
                *self._begin(),
                {"type": "error", **told},
                {"type": "response.failed", "response": self.failed(failure)},
            ]
        )

    def spelled(self, token: TokenLogprob) -> TokenLogprob:
        return spelled_in_chat(token, self._order.jobs[0].tokenizer)

    def failed(self, failure: Failure) -> Json:
        """Return, and keep, the response that a failure has ended."""
        self._output.finish(is_complete=False)
        code = "invalid_prompt" if failure.status < 500 else "server_error"
        response = self._response("failed") | {"error": {"code": code, "message": failure.message}}
        self._keep(response)
        return response

    def cancelled(self, deltas: Sequence[Delta], ending: Ending) -> Json:
        """Return, and keep, the response that was cancelled, with what had been made of it."""
        for delta in deltas:
            self._output.feed(delta)
        self._output.finish(is_complete=False)
        response = self._response("cancelled") | {"usage": self._usage(ending)}
        self._keep(response)
        return response

    def standing(self, status: str) -> Json:
        """Return the response on its way, before any of its output."""
        return self._frame | {"status": status}

    def _begin(self) -> list[Json]:
        """Return the event that a response in the background is no more queued, the first time."""
        if self._has_begun:
            return []
        self._has_begun = True
        return [{"type": "response.in_progress", "response": self.standing("in_progress")}]

    def _complete(self, ending: Ending) -> Json:
        is_cut = ending.reason == "length"
        response = self._response("incomplete" if is_cut or self._output.has_cut_call else "completed")
        response["usage"] = self._usage(ending)
        if response["status"] == "incomplete":
            response["incomplete_details"] = {"reason": "max_output_tokens" if is_cut else None}
        else:
            response["completed_at"] = int(time.time())
        self._keep(response)
        return response

    def _response(self, status: str) -> Json:
        return self._frame | {"status": status, "output": self._output.items}

    def _usage(self, ending: Ending) -> Json:
        return {
            "input_tokens": ending.num_prompt_tokens,
            "input_tokens_details": {"cached_tokens": ending.num_cached_tokens, "cache_write_tokens": 0},
            "output_tokens": ending.num_tokens,
            "output_tokens_details": {"reasoning_tokens": ending.num_reasoning_tokens},
            "total_tokens": ending.num_prompt_tokens + ending.num_tokens,
        }

    @property
    def state(self) -> bytes:
        """What another group must know to number the events that follow: depends on how tokens came together."""
        return str(self._num_events).encode()

    def restore(self, state: bytes) -> None:
        """Go on with the numbers of another group."""
        self._num_events = int(state)

    def _events(self, events: Sequence[Json]) -> list[Event]:
        first, self._num_events = self._num_events, self._num_events + len(events)
        return [_event(event, first + number) for number, event in enumerate(events)]


def _event(event: Json, number: int) -> Event:
    return Event({**event, "sequence_number": number}, name=event["type"])


def _frame(accepted: Accepted, model: str, created: int) -> Json:
    """Return all of a response that its request says, and nothing yet of its answer."""
    request, (job,) = accepted.request, accepted.order.jobs
    return {
        "id": str(accepted.id),
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": bool(request.background),
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": None if request.reasoning is None else request.reasoning.effort, "summary": None},
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": bool(request.store),
        "temperature": job.sampling.temperature,
        "text": _text(request),
        "tool_choice": _tool_choice(request),
        "tools": [_tool(tool.model_dump()) for tool in request.functions],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": job.sampling.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": request.user,
    }


def _text(request: ResponseRequest) -> Json:
    text = request.text
    wanted = {"type": "text"} if text is None or text.format is None else text.format.model_dump(by_alias=True)
    return {"format": wanted, "verbosity": (text and text.verbosity) or "medium"}


def _tool(tool: Json) -> Json:
    names = ("type", "name", "description", "parameters")
    return {**{name: tool[name] for name in names}, "strict": bool(tool["strict"])}


def _tool_choice(request: ResponseRequest) -> Json | str:
    choice = request.tool_choice
    if choice is None:
        return "auto"
    return choice if isinstance(choice, str) else choice.model_dump()
