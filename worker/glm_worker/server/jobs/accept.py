"""From a conversation or a text, and wishes, to an order: checked against the checkpoint, rendered and tokenised.

No I/O, any thread. Everything here raises RequestRefused, with the surface's own names of parameters.
"""

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from glm_worker.errors import RequestRefused
from glm_worker.request import SamplingParams, TokenIds
from glm_worker.scheduler.prefix import hashes_of, seed_of
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.conversation import (
    NO_WISH,
    AssistantTurn,
    Conversation,
    OfferedTool,
    Said,
    ToolResult,
    Turn,
)
from glm_worker.server.jobs.job import Job
from glm_worker.server.jobs.offer import answer_format, argument_types
from glm_worker.server.jobs.order import Order
from glm_worker.server.jobs.prompt import Prompt, encoded, ids_of, rendered
from glm_worker.server.jobs.wishes import ParamNames, Wishes
from glm_worker.server.refusals import model_not_found
from glm_worker.server.structured.answers import recipe_of
from glm_worker.server.structured.formats import Choice, Regex
from glm_worker.server.text.lexer import Tag
from glm_worker.server.text.parsing import State, initial_state, state_after
from glm_worker.server.text.stop_words import StopWords
from glm_worker.server.thinking.features import Features, PastTurn, features_of
from glm_worker.server.thinking.resolve import Thinking, behind_thought, resolve
from glm_worker.server.thinking.thought import thought_of
from glm_worker.server.thinking.visibility import visible
from glm_worker.server.thinking.wish import THRESHOLD_HEADER, ThinkingWish, combine, text_switch, threshold_header

_SEED_MASK = 2**63 - 1
_numbers = itertools.count()


def accept_chat(conversation: Conversation, wishes: Wishes, context: Context, *, order_id: str) -> Order:
    """Return the order that goes on with a conversation."""
    checkpoint, rules, params = context.checkpoint, context.rules, conversation.params
    reasoning = context.policy.reasoning
    offered = () if conversation.tool_choice == "none" else conversation.tools
    tools = argument_types(offered)
    wish = combine(
        (
            conversation.thinking,
            text_switch(_last_of_user(conversation), params.prompt),
            *map(threshold_header, context.caller.headers.getlist(THRESHOLD_HEADER)),
        )
    )
    thinking = context.carried.thinking or _thinking(conversation, wish, offered, context)
    shows_reasoning = visible(reasoning, context.caller.role, wish)
    unheard = (wish.param("shows") or "shows",) if wish.shows and not shows_reasoning else ()
    form = answer_format(conversation, offered)
    recipe = recipe_of(form, checkpoint.call_tokens, begins_line=not conversation.goes_on)
    prompt = rendered(conversation, offered, thinking, context, switch_is_text=bool(wish.overruled))
    if recipe is not None and thinking.enabled and initial_state(prompt) is not State.REASONING:
        prompt += f"\n{Tag.THINK.value}"  # so that what comes before `</think>` is thought, and all after it the answer
    token_ids = encoded(prompt, params.prompt, checkpoint)
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
        goes_on=conversation.goes_on,
        is_exact=isinstance(conversation.content, Regex | Choice),
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
        ignored=(*wishes.ignored, *thinking.ignored, *unheard),
    )


def _thinking(
    conversation: Conversation, wish: ThinkingWish, offered: Sequence[OfferedTool], context: Context
) -> Thinking:
    traits = context.checkpoint.traits
    if conversation.goes_on:
        return behind_thought(wish, traits)
    policy, overload = context.policy.reasoning, context.caller.overload
    return resolve(wish, lambda: _features(conversation, offered), policy, traits, overload)


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
    token_ids = [ids_of(prompt, params.prompt, checkpoint) for prompt in prompts]
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
    unheard = (THRESHOLD_HEADER,) if THRESHOLD_HEADER in context.caller.headers else ()
    return replace(order, shows_reasoning=shows_reasoning, ignored=(*wishes.ignored, *unheard))


def _last_of_user(conversation: Conversation) -> str:
    said = (turn.text for turn in reversed(conversation.turns) if isinstance(turn, Said) and turn.role == "user")
    return next(said, "")


def check_model(model: str, context: Context) -> None:
    """Refuse what is meant for another model. Where the gateway says which one is, a body may name any."""
    meant, served = context.caller.model or model, context.checkpoint.name
    if meant != served:
        raise model_not_found(meant, served)


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
        may_open = State.CONTENT in states and (of_job["thinking"] or not of_job["is_chat"])
        wishes = _with_free_tags(wishes, checkpoint, may_open=may_open)
    client_stop_ids = tuple(set(wishes.stop_token_ids) - set(checkpoint.stop_token_ids))
    stop_token_ids = (*(() if wishes.ignore_eos else checkpoint.stop_token_ids), *wishes.stop_token_ids)
    if hides_reasoning:
        stop_token_ids = tuple(each for each in stop_token_ids if each not in client_stop_ids)
    deadline_ms = None if wishes.deadline_s is None else int((context.arrived_s + wishes.deadline_s) * 1000)
    shared: dict[str, Any] = {
        "max_tokens": wishes.max_tokens,
        "most_tokens": _most_tokens(prompts, wishes.num_answers, context.caller.context_tokens, params),
        "stop_token_ids": stop_token_ids,
        "client_stop_ids": client_stop_ids,
        "hides_reasoning": hides_reasoning,
        "stops": StopWords(wishes.stop_strings),
        "tokenizer": checkpoint.tokenizer,
        "min_tokens": wishes.min_tokens,
        "bad_words": bad_words,
        "num_logprobs": wishes.num_logprobs,
        "priority": wishes.priority,
        "deadline_ms": deadline_ms,
        "params": params,
        **of_job,
    }
    seed = secrets.randbits(63) if wishes.seed is None else wishes.seed
    block_size = context.rules.prefix_block_size
    cache_seed = seed_of(context.caller.tenant) if block_size else b""
    packed = [TokenIds.of(token_ids) for token_ids in prompts]
    hashes = [hashes_of(token_ids, cache_seed, block_size) if block_size else b"" for token_ids in packed]
    answers = [
        (token_ids, block_hashes, state, number)
        for token_ids, block_hashes, state in zip(packed, hashes, states, strict=True)
        for number in range(wishes.num_answers)
    ]
    begun = context.begun
    if begun is not None and not len(begun.seeds) == len(begun.answers) == len(answers):
        raise RequestRefused(
            f"{len(begun.answers)} answers were begun, and the request asks for {len(answers)}",
            code="cannot_continue",
            status=409,
        )
    seeds = [(seed + number) & _SEED_MASK for *_, number in answers] if begun is None else begun.seeds
    jobs = tuple(
        Job(
            id=_job_id(order_id, index, len(answers), is_begun=begun is not None),
            prompt_token_ids=token_ids,
            state=state,
            sampling=_sampling(wishes, checkpoint, seeds[index]),
            begun=None if begun is None else begun.answers[index],
            cache_seed=cache_seed,
            block_hashes=block_hashes,
            **shared,
        )
        for index, (token_ids, block_hashes, state, _) in enumerate(answers)
    )
    return Order(
        id=order_id,
        jobs=jobs,
        stream=wishes.stream,
        include_usage=wishes.include_usage,
        created=context.created,
        begun_state=context.carried.replies,
        arrived_s=context.arrived_s,
        deadline_s=wishes.deadline_s,
        ignored=wishes.ignored,
    )


def _most_tokens(
    prompts: Sequence[Sequence[int]], num_answers: int, context_tokens: int | None, params: ParamNames
) -> int | None:
    """Return how many tokens each answer may have of those that the caller's request may have; None: it is not bounded.

    num_answers: to each prompt. All have the same part of what the prompts leave. Raises RequestRefused where that is
    less than a token.
    """
    if context_tokens is None:
        return None
    num_prompt_tokens, num_all = sum(map(len, prompts)), num_answers * len(prompts)
    most = (context_tokens - num_prompt_tokens) // num_all
    if most < 1:
        raise RequestRefused(
            f"one request may have {context_tokens} tokens here, its prompt and its answer together; the prompt has"
            f" {num_prompt_tokens}, and at least {num_all} of answer {'is' if num_all == 1 else 'are'} needed",
            param=params.prompt,
            code="context_length_exceeded",
        )
    return most


def _job_id(order_id: str, index: int, num_answers: int, *, is_begun: bool) -> str:
    """Return what the engine knows an answer by. One that was begun may be in flight here, unseen by its gateway."""
    own = f"{order_id}~{next(_numbers)}" if is_begun else order_id
    return own if num_answers == 1 else f"{own}-{index}"


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
        unpenalised_ids=list(wishes.unpenalised_ids),
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
    if wishes.repetition_penalty < 1:
        raise RequestRefused(
            f"repetition_penalty is {wishes.repetition_penalty:g}; allowed: 1 and above, for reasoning is hidden from"
            " this caller, and known by a token that would be less likely than those of the prompt",
            param="repetition_penalty",
            code="invalid_value",
        )


def _with_free_tags(wishes: Wishes, checkpoint: Checkpoint, *, may_open: bool) -> Wishes:
    """Return the wishes with no token more likely than before next to the one that opens a thought.

    That one gets the largest bias that any token has; a bias that is the same for all is none. may_open: whether the
    answer may open a thought. Penalties leave the tags alone.
    """
    opens = next((token_id for token_id, tag in checkpoint.think_tags.items() if tag is Tag.THINK), None)
    most = max(wishes.logit_bias.values(), default=0.0)
    bias = wishes.logit_bias
    if may_open and opens is not None and most > 0:
        bias = {**bias, opens: most}
    return replace(wishes, logit_bias=bias, unpenalised_ids=tuple(checkpoint.think_tags))
