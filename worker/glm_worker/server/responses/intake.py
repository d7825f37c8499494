"""From the body of a response's request to an order. No I/O, any thread. Raises RequestRefused."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

from pydantic import TypeAdapter

from glm_worker.errors import RequestRefused
from glm_worker.messages import Effort
from glm_worker.server.jobs.accept import accept_chat, check_model
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.conversation import Conversation, Named, OfferedTool, Said, ToolChoice, Turn
from glm_worker.server.jobs.order import Order
from glm_worker.server.jobs.wishes import ParamNames, Wishes
from glm_worker.server.refusals import parse, shortened
from glm_worker.server.responses.ids import ResponseId, digits_of, tag_of
from glm_worker.server.responses.items import InputItem, ItemReference, MessageItem, OtherItem, ReadItem
from glm_worker.server.responses.schema import (
    AllowedTools,
    AnyFormat,
    ChosenFunction,
    FunctionTool,
    ResponseRequest,
    SchemaFormat,
)
from glm_worker.server.responses.store import Kept, Store
from glm_worker.server.responses.turns import Placed, listed, turns_of
from glm_worker.server.structured.formats import AnyText, Content, JsonObject, JsonSchema
from glm_worker.server.thinking.wish import (
    THRESHOLD_HEADER,
    ThinkingWish,
    combine,
    openai_effort,
    openrouter_reasoning,
    template_arguments,
    threshold_header,
    zai_thinking,
)

Json = dict[str, Any]

NAMES = ParamNames(prompt="input", max_tokens="max_output_tokens", thinking="reasoning", answer_format="text.format")
_PREVIOUS = "previous_response_id"
_item: TypeAdapter[InputItem] = TypeAdapter(InputItem)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A request that can be answered. items: all that the model reads, in the form in which items are kept."""

    id: ResponseId
    request: ResponseRequest
    order: Order
    items: tuple[Json, ...]
    tenant: str


class Intake:
    """Reads bodies against what is stored. group: the name of the group that answers."""

    def __init__(self, store: Store, group: str) -> None:
        self._store = store
        self._group = group

    def accept(self, body: bytes, context: Context) -> Accepted:
        """Return the order in a body."""
        request = parse(ResponseRequest, body)
        check_model(request.model, context)
        tenant = context.caller.tenant
        placed = [*self._earlier(request, tenant), *self._said(request, tenant)]
        id_ = ResponseId.parse(context.order_id("")) or ResponseId.new(self._group)
        order = accept_chat(_conversation(request, placed, context), _wishes(request), context, order_id=str(id_))
        items = tuple(listed(item, id_, number) for number, (item, _) in enumerate(placed))
        return Accepted(id=id_, request=request, order=order, items=items, tenant=tenant)

    def _earlier(self, request: ResponseRequest, tenant: str) -> list[Placed]:
        """Return what the model read and said up to the end of the response that this one goes on from."""
        if request.previous_response_id is None:
            return []
        kept = find(self._store, tenant, request.previous_response_id, self._group, param=_PREVIOUS)
        body = kept.body()
        if body["status"] not in ("completed", "incomplete"):
            raise RequestRefused(
                f"{_PREVIOUS}: the response is {body['status'].replace('_', ' ')};"
                " one can go on from those that are completed or incomplete",
                param=_PREVIOUS,
                code="invalid_value",
            )
        return [Placed(_read(item), _PREVIOUS) for item in (*kept.items(), *body["output"])]

    def _said(self, request: ResponseRequest, tenant: str) -> list[Placed]:
        """Return the items of the request itself, references resolved."""
        if isinstance(request.input, str):
            return [Placed(MessageItem(role="user", content=request.input), "input")]
        stored = cache(partial(self._store.items_of, tenant))  # by digits: a thousand references may be to one response
        return [
            Placed(_resolved(item, stored, f"input[{number}]"), f"input[{number}]")
            for number, item in enumerate(request.input)
        ]


def _resolved(item: InputItem, stored: Callable[[str], Mapping[str, Json]], param: str) -> ReadItem:
    """Return an item itself. stored: returns the items of a response by the digits of its id."""
    assert not isinstance(item, OtherItem)
    if not isinstance(item, ItemReference):
        return item
    digits = digits_of(item.id)
    found = None if digits is None else stored(digits).get(item.id)
    if found is None:
        raise RequestRefused(
            f"{param}: no item {shortened(item.id)} is stored here; send the item itself",
            param=param,
            code="item_not_found",
            status=404,
        )
    return _read(found)


def find(store: Store, tenant: str, id_: str, group: str, *, param: str | None = None) -> Kept:
    """Return a stored response, or raise RequestRefused with all that can be known about where it is.

    One that was begun at another group, and finished here, is here, and its id names that group.
    """
    code = "response_not_found" if param is None else "previous_response_not_found"
    parsed = ResponseId.parse(id_)
    shown = shortened(id_)
    where = "" if param is None else f"{param}: "
    if parsed is None:
        raise RequestRefused(f"{where}there is no response {shown}", param=param, code=code, status=404)
    kept = store.find(tenant, parsed.digits)
    if kept is not None and str(kept.id) == id_:
        return kept
    if parsed.tag != tag_of(group):
        raise RequestRefused(
            f"{where}the response {shown} was made by the group {parsed.tag}, and this is {tag_of(group)}: it is stored"
            " there, or was lost with that group",
            param=param,
            code=code,
            status=404,
        )
    raise RequestRefused(
        f"{where}the response {shown} is not stored: it was made without store: true, was deleted, is older than"
        f" {store.limits.ttl_s:g} seconds, made room for others, or was lost when this group's server started anew",
        param=param,
        code=code,
        status=404,
    )


def _read(item: Json) -> ReadItem:
    """Return an item of ours as the model of its kind."""
    read = _item.validate_python(item)
    assert not isinstance(read, ItemReference | OtherItem)
    return read


def _conversation(request: ResponseRequest, placed: list[Placed], context: Context) -> Conversation:
    instructions: list[Turn] = [] if not request.instructions else [Said(role="system", text=request.instructions)]
    offered = set(request.chosen) if isinstance(request.tool_choice, AllowedTools) else None
    return Conversation(
        turns=(*instructions, *turns_of(placed)),
        tools=tuple(
            _offered(number, tool)
            for number, tool in enumerate(request.functions)
            if offered is None or tool.name in offered
        ),
        tool_choice=_choice(request),
        parallel_calls=request.parallel_tool_calls is not False,
        thinking=_thinking(request, context),
        content=_content(request),
        params=NAMES,
    )


def _offered(number: int, tool: FunctionTool) -> OfferedTool:
    function: Json = {"name": tool.name}
    for name in ("description", "parameters"):
        if (value := getattr(tool, name)) is not None:
            function[name] = value
    return OfferedTool(
        name=tool.name,
        schema=tool.parameters,
        as_rendered={"type": "function", "function": function},
        is_strict=bool(tool.strict),
        param=f"tools[{number}].parameters",
    )


def _choice(request: ResponseRequest) -> ToolChoice:
    match request.tool_choice:
        case None:
            return "auto"
        case ChosenFunction(name=name):
            return Named(name)
        case AllowedTools(mode=mode):
            return mode
        case "auto" | "none" | "required" as choice:
            return choice
        case _:
            raise AssertionError("refused by the schema")


def _content(request: ResponseRequest) -> Content:
    wanted = None if request.text is None else request.text.format
    match wanted:
        case AnyFormat(type="json_object"):
            return JsonObject()
        case SchemaFormat():
            return JsonSchema(wanted.json_schema, param="text.format.schema")
        case _:
            return AnyText()


def _thinking(request: ResponseRequest, context: Context) -> ThinkingWish:
    wishes = [threshold_header(context.caller.headers.get(THRESHOLD_HEADER))]
    if (reasoning := request.reasoning) is not None:
        wishes += [
            openai_effort(_effort(reasoning.effort), "reasoning.effort"),
            openrouter_reasoning(enabled=reasoning.enabled, max_tokens=reasoning.max_tokens, exclude=reasoning.exclude),
            _history(reasoning.context),
        ]
    if (thinking := request.thinking) is not None:
        wishes.append(
            zai_thinking(
                type=thinking.type,
                clear_thinking=thinking.clear_thinking,
                budget_tokens=thinking.budget_tokens,
                threshold=thinking.threshold,
            )
        )
    if (arguments := request.chat_template_kwargs) is not None:
        wishes.append(
            template_arguments(enable_thinking=arguments.enable_thinking, clear_thinking=arguments.clear_thinking)
        )
    return combine(wishes)


def _effort(effort: Effort | Literal["none", "max"] | None) -> Effort | Literal["none"] | None:
    return "xhigh" if effort == "max" else effort


def _history(context: str | None) -> ThinkingWish:
    if context in (None, "auto"):
        return ThinkingWish()
    spelled = {"keeps_history": f"reasoning.context: {context}"}
    return ThinkingWish(keeps_history=context == "all_turns", spelled=spelled)


def _wishes(request: ResponseRequest) -> Wishes:
    return Wishes(
        max_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        seed=request.seed,
        num_logprobs=request.num_logprobs,
        priority=request.priority or 0,
        deadline_s=request.deadline_s,
        ignored=tuple(request.ignored()),
        stream=bool(request.stream),
        include_usage=True,
    )
