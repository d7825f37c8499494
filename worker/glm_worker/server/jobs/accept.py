"""From a conversation or a text, and wishes, to an order: checked against the checkpoint, rendered and tokenised.

No I/O, any thread. Everything here raises RequestRefused, with the surface's own names of parameters.
"""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from glm_worker.errors import RequestRefused
from glm_worker.request import SamplingParams
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.conversation import (
    NO_WISH,
    AssistantTurn,
    Conversation,
    Named,
    OfferedTool,
    Said,
    ToolResult,
    Turn,
)
from glm_worker.server.jobs.job import Job, Room
from glm_worker.server.jobs.order import Order
from glm_worker.server.jobs.wishes import ParamNames, Wishes
from glm_worker.server.refusals import model_not_found, shortened
from glm_worker.server.structured.answers import recipe_of
from glm_worker.server.structured.formats import AnswerFormat, AnyText, Calls, Function
from glm_worker.server.text.argument_types import (
    REQUEST_STEP_BUDGET,
    STEP_BUDGET,
    SchemaTooLarge,
    Steps,
    Tools,
    parameters_of,
)
from glm_worker.server.text.chat import Message, in_call_order
from glm_worker.server.text.control_tokens import as_sent, disarmed
from glm_worker.server.text.lexer import Tag
from glm_worker.server.text.parsing import State, initial_state, state_after
from glm_worker.server.thinking.features import Features, PastTurn, features_of
from glm_worker.server.thinking.resolve import Thinking, behind_thought, resolve
from glm_worker.server.thinking.thought import thought_of
from glm_worker.server.thinking.visibility import visible
from glm_worker.server.thinking.wish import THRESHOLD_HEADER, combine, text_switch, threshold_header

_SEED_MASK = 2**63 - 1
Prompt = str | Sequence[int]


def accept_chat(conversation: Conversation, wishes: Wishes, context: Context, *, order_id: str) -> Order:
    """Return the order that goes on with a conversation."""
    checkpoint, rules, params = context.checkpoint, context.rules, conversation.params
    reasoning = context.policy.reasoning
    offered = () if conversation.tool_choice == "none" else conversation.tools
    tools = _tools(offered)
    if conversation.goes_on and not isinstance(conversation.content, AnyText):
        param = params.answer_format
        raise RequestRefused(
            f"{param} does not go with an answer that has begun: it would have to hold for what was said as well;"
            " end with a message of the user",
            param=param,
            code="invalid_value",
        )
    wish = combine(
        (
            conversation.thinking,
            text_switch(_last_of_user(conversation), params.prompt),
            threshold_header(context.caller.headers.get(THRESHOLD_HEADER)),
        )
    )
    thinking = (
        behind_thought(wish, checkpoint.traits)
        if conversation.goes_on
        else resolve(wish, lambda: _features(conversation, offered), reasoning, checkpoint.traits)
    )
    shows_reasoning = visible(reasoning, context.caller.role, wish)
    recipe = recipe_of(_format(conversation, offered), checkpoint.call_tokens, begins_line=not conversation.goes_on)
    _check_texts(conversation, checkpoint)
    prompt = _rendered_prompt(conversation, offered, thinking, context)
    if recipe is not None and thinking.enabled and initial_state(prompt) is not State.REASONING:
        prompt += f"\n{Tag.THINK.value}"  # so that what comes before `</think>` is thought, and all after it the answer
    _check_length(as_sent(prompt), params.prompt, checkpoint)
    token_ids = _some(checkpoint.tokenizer.encode_prompt(prompt), params.prompt)
    state = state_after(token_ids, checkpoint.think_tags) if conversation.goes_on else initial_state(prompt)
    order = _order(
        order_id,
        [token_ids],
        wishes,
        context,
        params,
        is_chat=True,
        thinking=thinking.enabled,
        tags=checkpoint.think_tags | checkpoint.tool_tags if offered else checkpoint.think_tags,
        states=[state],
        hides_reasoning=not shows_reasoning,
        tools=tools,
        any_tool_name=rules.any_tool_name,
        thought=thought_of(
            thinking,
            checkpoint.traits,
            begins_open=state is State.REASONING,
            token_id=checkpoint.tokenizer.token_id,
            encode=checkpoint.tokenizer.encode,
        ),
    )
    return replace(
        order,
        thinking=thinking,
        shows_reasoning=shows_reasoning,
        has_both_reasoning_fields=reasoning.fields == "both",
        recipe=recipe,
        recipe_close_id=checkpoint.tokenizer.token_id(Tag.END_THINK.value) if thinking.enabled else None,
        ignored=(*wishes.ignored, *thinking.ignored),
    )


def _rendered_prompt(
    conversation: Conversation, offered: Sequence[OfferedTool], thinking: Thinking, context: Context
) -> str:
    disarm = _Disarm.of(context.checkpoint) if context.rules.control_tokens_are_text else _Disarm()
    return context.checkpoint.template.render(
        in_call_order([_rendered(turn, disarm) for turn in conversation.turns]),
        [disarmed(dict(tool.as_rendered), disarm.text) for tool in offered],
        {**thinking.template_variables, **({"enable_thinking": False} if conversation.goes_on else {})},
        goes_on=conversation.goes_on,
    )


def _format(conversation: Conversation, offered: Sequence[OfferedTool]) -> AnswerFormat:
    """Return what the answer must look like."""
    choice = conversation.tool_choice
    if not offered:
        if choice not in ("auto", "none"):
            raise RequestRefused(
                "tool_choice asks for a call, and there are no tools to call",
                param="tool_choice",
                code="invalid_value",
            )
        return conversation.content
    if isinstance(choice, Named) and choice.name not in {tool.name for tool in offered}:
        raise RequestRefused(
            f"tool_choice names the function {shortened(choice.name)}, which is not among the tools",
            param="tool_choice",
            code="invalid_value",
        )
    return Calls(
        tuple(Function(tool.name, tool.schema, tool.param, tool.is_strict) for tool in offered),
        is_required=choice == "required",
        named=choice.name if isinstance(choice, Named) else None,
        is_parallel=conversation.parallel_calls,
        content=conversation.content,
    )


def _features(conversation: Conversation, offered: Sequence[OfferedTool]) -> Features:
    return features_of([_past(turn) for turn in conversation.turns], len(offered))


def _past(turn: Turn) -> PastTurn:
    match turn:
        case Said():
            return PastTurn(turn.role, turn.text)
        case ToolResult():
            return PastTurn("tool", turn.text)
        case AssistantTurn():
            return PastTurn("assistant", turn.text, bool(turn.reasoning), len(turn.calls))


def accept_text(
    prompts: Sequence[Prompt], wishes: Wishes, context: Context, *, order_id: str, params: ParamNames
) -> Order:
    """Return the order that goes on with each of these texts, or lists of token ids. Its answers go prompt by prompt.

    There is no template, and nothing that would read thoughts or calls out of the answers, but where the caller may not
    read thoughts: those are left out.
    """
    checkpoint = context.checkpoint
    token_ids = [_prompt_ids(prompt, checkpoint, params.prompt) for prompt in prompts]
    shows_reasoning = visible(context.policy.reasoning, context.caller.role, NO_WISH)
    tags = {} if shows_reasoning else checkpoint.think_tags
    order = _order(
        order_id,
        token_ids,
        wishes,
        context,
        params,
        is_chat=False,
        thinking=False,
        tags=tags,
        states=[state_after(each, tags) for each in token_ids],
        hides_reasoning=not shows_reasoning,
        tools={},
    )
    return replace(order, shows_reasoning=shows_reasoning)


def _last_of_user(conversation: Conversation) -> str:
    said = (turn.text for turn in reversed(conversation.turns) if isinstance(turn, Said) and turn.role == "user")
    return next(said, "")


def check_model(model: str, checkpoint: Checkpoint) -> None:
    if model != checkpoint.name:
        raise model_not_found(model, checkpoint.name)


def _order(
    order_id: str,
    prompts: Sequence[list[int]],
    wishes: Wishes,
    context: Context,
    params: ParamNames,
    states: Sequence[State],
    hides_reasoning: bool,
    **of_job: Any,
) -> Order:
    """Return the order. states: how the answers to each prompt begin. of_job: further fields of the jobs."""
    checkpoint = context.checkpoint
    bad_words = _bad_words(wishes.bad_words, checkpoint)
    if not visible(context.policy.reasoning, context.caller.role, NO_WISH):
        _check_tags_are_free(wishes, bad_words, checkpoint, params)
    client_stop_ids = tuple(set(wishes.stop_token_ids) - set(checkpoint.stop_token_ids))
    stop_token_ids = (*(() if wishes.ignore_eos else checkpoint.stop_token_ids), *wishes.stop_token_ids)
    if hides_reasoning:
        stop_token_ids = tuple(each for each in stop_token_ids if each not in client_stop_ids)
    deadline_ms = None if wishes.deadline_s is None else int((time.monotonic() + wishes.deadline_s) * 1000)
    shared: dict[str, Any] = {
        "max_tokens": wishes.max_tokens,
        "stop_token_ids": stop_token_ids,
        "client_stop_ids": client_stop_ids,
        "hides_reasoning": hides_reasoning,
        "stop_strings": wishes.stop_strings,
        "tokenizer": checkpoint.tokenizer,
        "min_tokens": wishes.min_tokens,
        "bad_words": bad_words,
        "num_logprobs": wishes.num_logprobs,
        "priority": wishes.priority,
        "deadline_ms": deadline_ms,
        "params": params,
        **of_job,
    }
    seed = secrets.randbits(63) if wishes.seed is None else wishes.seed & _SEED_MASK
    answers = [
        (token_ids, state, number)
        for token_ids, state in zip(prompts, states, strict=True)
        for number in range(wishes.num_answers)
    ]
    jobs = tuple(
        Job(
            id=order_id if len(answers) == 1 else f"{order_id}-{index}",
            prompt_token_ids=token_ids,
            state=state,
            sampling=_sampling(wishes, checkpoint, (seed + number) & _SEED_MASK),
            **shared,
        )
        for index, (token_ids, state, number) in enumerate(answers)
    )
    return Order(
        id=order_id,
        jobs=jobs,
        stream=wishes.stream,
        include_usage=wishes.include_usage,
        deadline_s=wishes.deadline_s,
        ignored=wishes.ignored,
    )


def _sampling(wishes: Wishes, checkpoint: Checkpoint, seed: int) -> SamplingParams:
    defaults = checkpoint.defaults
    temperature = defaults.temperature if defaults.do_sample else 0.0
    top_k = defaults.top_k if wishes.top_k is None else wishes.top_k
    return SamplingParams(
        temperature=temperature if wishes.temperature is None else wishes.temperature,
        top_p=defaults.top_p if wishes.top_p is None else wishes.top_p,
        top_k=max(top_k, 0),
        min_p=defaults.min_p if wishes.min_p is None else wishes.min_p,
        seed=seed,
        frequency_penalty=wishes.frequency_penalty,
        presence_penalty=wishes.presence_penalty,
        repetition_penalty=wishes.repetition_penalty,
        logit_bias=dict(wishes.logit_bias),
    )


def _bad_words(words: Sequence[str], checkpoint: Checkpoint) -> tuple[tuple[int, ...], ...]:
    """Return the token sequences of words: as they begin a text, and as they follow a space."""
    forms = [form for word in words for form in dict.fromkeys((word, f" {word.lstrip()}"))]
    return tuple(tuple(checkpoint.tokenizer.encode(form)) for form in forms)


def _check_tags_are_free(
    wishes: Wishes, bad_words: Sequence[Sequence[int]], checkpoint: Checkpoint, params: ParamNames
) -> None:
    """Refuse what keeps the model from marking a thought as one, which nobody could hide then."""
    biased = [
        checkpoint.think_tags[each]
        for each, bias in wishes.logit_bias.items()
        if bias < 0 and each in checkpoint.think_tags
    ]
    banned = [checkpoint.think_tags[each] for word in bad_words for each in word if each in checkpoint.think_tags]
    for param, tags in ((params.logit_bias, biased), (params.bad_words, banned)):
        if tags:
            raise RequestRefused(
                f"{param} makes {tags[0].value} less likely; reasoning is hidden from this caller, and known by that"
                " token, so leave it out",
                param=param,
                code="invalid_value",
            )


def _prompt_ids(prompt: Prompt, checkpoint: Checkpoint, param: str) -> list[int]:
    if isinstance(prompt, str):
        _check_length(prompt, param, checkpoint)
        return _some(checkpoint.tokenizer.encode(prompt, add_special_tokens=True), param)
    for token_id in prompt:
        if not 0 <= token_id < checkpoint.vocab_size:
            raise RequestRefused(
                f"{param} has the token id {shortened(str(token_id))}; allowed are 0 to {checkpoint.vocab_size - 1}",
                param=param,
                code="invalid_value",
            )
    return _some(list(prompt), param)


def _check_texts(conversation: Conversation, checkpoint: Checkpoint) -> None:
    """Refuse texts that cannot fit before the work of rendering them. Of an answer a template may leave out a part."""
    texts = [turn.text.strip() for turn in conversation.turns if not isinstance(turn, AssistantTurn)]
    _check_fits(sum(map(checkpoint.tokenizer.min_tokens, texts)), conversation.params.prompt, checkpoint)


def _check_length(text: str, param: str, checkpoint: Checkpoint) -> None:
    """Refuse a prompt that cannot fit before the work of encoding it; engine_request is exact."""
    _check_fits(checkpoint.tokenizer.min_tokens(text), param, checkpoint)


def _check_fits(min_tokens: int, param: str, checkpoint: Checkpoint) -> None:
    if min_tokens >= checkpoint.max_model_len:
        raise RequestRefused(
            f"{Room(checkpoint.max_model_len)}; the prompt alone has at least {min_tokens}",
            param=param,
            code="context_length_exceeded",
        )


def _some(token_ids: list[int], param: str) -> list[int]:
    if not token_ids:
        raise RequestRefused(
            f"{param} is empty: there must be at least one token to go on from", param=param, code="invalid_value"
        )
    return token_ids


def _tools(offered: Sequence[OfferedTool]) -> Tools:
    """Return the types of the arguments of each tool. Raises RequestRefused for schemas that take too long."""
    tools = {}
    together = Steps(REQUEST_STEP_BUDGET)
    for tool in offered:
        try:
            tools[tool.name] = parameters_of(tool.schema, Steps(STEP_BUDGET, within=together))
        except SchemaTooLarge as error:
            what = (
                f"the schema of the tool {tool.name} takes more than {error.budget} steps to read,"
                " which is what this server spends on one"
                if error.budget == STEP_BUDGET
                else f"the schemas of the tools up to {tool.name} take more than {error.budget} steps to read,"
                " which is what this server spends on those of a request"
            )
            raise RequestRefused(
                f"{tool.param}: {what}; declare fewer arguments, references and alternatives",
                param=tool.param,
                code="schema_too_large",
            ) from error
    return tools


@dataclass(frozen=True)
class _Disarm:
    """What makes control tokens text. turn: in the content of an assistant that may have its thought in it."""

    text: Callable[[str], str] = str
    turn: Callable[[str], str] = str

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "_Disarm":
        return cls(checkpoint.disarm, checkpoint.disarm_turn)


def _rendered(turn: Turn, disarm: _Disarm) -> Message:
    """Return a turn as chat templates want it."""
    match turn:
        case Said():
            return {"role": turn.role, "content": disarm.text(turn.text)}
        case ToolResult():
            message: Message = {"role": "tool", "content": disarm.text(turn.text)}
            return message if turn.call_id is None else {**message, "tool_call_id": disarm.text(turn.call_id)}
        case AssistantTurn():
            return _rendered_assistant(turn, disarm)


def _rendered_assistant(turn: AssistantTurn, disarm: _Disarm) -> Message:
    rendered: Message = {"role": "assistant"}
    if turn.reasoning is None:
        rendered["content"] = disarm.turn(turn.text)
    else:
        rendered["content"] = disarm.text(turn.text)
        rendered["reasoning_content"] = disarm.text(turn.reasoning)
    if turn.calls:
        rendered["tool_calls"] = [
            {
                "id": None if call.id is None else disarm.text(call.id),
                "type": "function",
                "function": {
                    "name": disarm.text(call.name),
                    "arguments": _disarmed_arguments(call.arguments, disarm),
                },
            }
            for call in turn.calls
        ]
    return rendered


def _disarmed_arguments(arguments: Mapping[str, Any], disarm: _Disarm) -> Any:
    return disarmed(dict(arguments), disarm.text)
