"""Callers from whom reasoning is hidden: no text, stop, bias or prompt gets at it. And who a caller is."""

from typing import Any

import pytest
from starlette.datastructures import Headers

from glm_worker.errors import RequestRefused
from glm_worker.messages import Policy, ReasoningPolicy
from glm_worker.server.jobs.accept import accept_chat, accept_text
from glm_worker.server.jobs.context import Caller, Context, Rules, request_id_of
from glm_worker.server.jobs.conversation import AssistantTurn, Conversation, Said
from glm_worker.server.jobs.job import Room
from glm_worker.server.jobs.order import Order
from glm_worker.server.jobs.wishes import ParamNames, Wishes
from glm_worker.server.structured.formats import Choice, JsonObject
from glm_worker.server.text.parsing import State
from glm_worker.server.thinking.wish import include_reasoning, zai_thinking
from unit.worker.orders import a_context
from unit.worker.server_builders import checkpoint, tokenizer

HIDDEN = Policy(reasoning=ReasoningPolicy(visibility="hidden"))
BY_ROLE = Policy(reasoning=ReasoningPolicy(visibility="by_role", visible_to=["developer"]), trust_proxy_headers=True)
TRUSTED = Policy(trust_proxy_headers=True)
HELLO = (Said(role="user", text="hi"),)


def a_completion(*prompts: str, policy: Policy = HIDDEN, role: str | None = None, **wishes: Any) -> Order:
    caller = Caller(request_id="r", role=role)
    context = Context(checkpoint=checkpoint(), rules=Rules(), policy=policy, caller=caller)
    return accept_text(prompts, Wishes(**wishes), context, order_id="o", params=ParamNames(prompt="prompt"))


def a_chat(policy: Policy = HIDDEN, *, wishes: Wishes | None = None, **fields: Any) -> Order:
    conversation = Conversation(**{"turns": HELLO, **fields})
    return accept_chat(conversation, wishes or Wishes(), a_context(policy=policy), order_id="o")


def think(token: str = "<think>") -> int:
    found = tokenizer().token_id(token)
    assert found is not None
    return found


@pytest.mark.parametrize("headers", [{}, {"x-glm-tenant": ""}, {"x-glm-tenant": "a" * 64, "x-glm-role": "dev"}])
def test_a_caller_is_who_a_trusted_proxy_says(headers: dict[str, str]) -> None:
    caller = Caller.of(Headers(headers), TRUSTED)
    assert (caller.tenant, caller.role) == (headers.get("x-glm-tenant", ""), headers.get("x-glm-role"))
    assert Caller.of(Headers(headers), Policy()).tenant == ""


@pytest.mark.parametrize("header", ["x-glm-tenant", "x-glm-role"])
@pytest.mark.parametrize(
    "values", [["two words"], ["a" * 65], ["m\xfcller"], ["\t"], ["a", "b"], ["a", "a"], ["", "a"]]
)
def test_a_name_that_cannot_be_kept_is_refused_and_never_left_out(header: str, values: list[str]) -> None:
    headers = Headers(raw=[(header.encode(), each.encode("latin-1")) for each in values])
    with pytest.raises(RequestRefused, match=f"the header {header} ") as caught:
        Caller.of(headers, TRUSTED)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, header, "invalid_value")
    assert len(request_id_of(headers)) == 32  # errors can be told
    assert Caller.of(headers, Policy()).tenant == ""  # nobody is heard who is not trusted


@pytest.mark.parametrize(("role", "policy"), [(None, HIDDEN), (None, BY_ROLE), ("user", BY_ROLE)])
def test_a_completion_leaves_out_the_thoughts_that_its_caller_may_not_read(role: str | None, policy: Policy) -> None:
    order = a_completion("1", policy=policy, role=role)
    assert not order.shows_reasoning
    assert order.jobs[0].tags == checkpoint().think_tags
    seen = a_completion("1", policy=BY_ROLE, role="developer")
    assert (seen.shows_reasoning, seen.jobs[0].tags) == (True, {})


def test_an_answer_to_a_prompt_that_ends_in_an_open_thought_begins_hidden() -> None:
    order = a_completion("a", "a<think>so", "a<think>so</think>b", num_answers=2)
    states = [State.CONTENT, State.REASONING, State.CONTENT]
    assert [job.state for job in order.jobs] == [state for state in states for _ in range(2)]
    assert all(job.reader().feed(tokenizer().encode("x"), None) for job in order.jobs)
    seen = a_completion("a<think>so", policy=Policy())
    assert seen.jobs[0].state is State.CONTENT


def test_an_answer_that_continues_an_open_thought_is_a_thought() -> None:
    turns = (*HELLO, AssistantTurn(text="<think>so"))
    context = Context(
        checkpoint=checkpoint(),
        rules=Rules(control_tokens_are_text=False),
        policy=HIDDEN,
        caller=Caller(request_id="r"),
    )
    order = accept_chat(Conversation(turns=turns, goes_on=True), Wishes(), context, order_id="o")
    assert order.jobs[0].state is State.REASONING


@pytest.mark.parametrize(
    ("wishes", "param"),
    [
        ({"logit_bias": {think(): -1.0}}, "logit_bias"),
        ({"logit_bias": {think("</think>"): -100.0}}, "logit_bias"),
        ({"bad_words": ("<think>",)}, "bad_words"),
        ({"bad_words": ("hm</think>",)}, "bad_words"),
    ],
)
def test_what_would_keep_a_hidden_thought_from_being_marked_is_refused(wishes: dict[str, Any], param: str) -> None:
    for is_chat in (True, False):
        with pytest.raises(RequestRefused, match=f"{param} makes </?think> less likely") as caught:
            a_chat(wishes=Wishes(**wishes)) if is_chat else a_completion("1", **wishes)
        assert (caught.value.param, caught.value.code) == (param, "invalid_value")
    a_chat(Policy(), wishes=Wishes(**wishes))
    a_chat(Policy(), wishes=Wishes(**wishes), thinking=include_reasoning(False))  # who may read it, and does not


def test_no_bias_makes_the_beginning_of_a_hidden_thought_less_likely_than_it_was() -> None:
    bias = {think(): 5.0, 7: 20.0, 8: -5.0}
    for given in (bias, {7: 20.0, 8: -5.0}):
        for order in (a_chat(wishes=Wishes(logit_bias=given)), a_completion("1", logit_bias=given)):
            assert order.jobs[0].sampling.logit_bias == {**bias, think(): 20.0}
        assert a_chat(Policy(), wishes=Wishes(logit_bias=given)).jobs[0].sampling.logit_bias == given
        assert a_completion("1", policy=Policy(), logit_bias=given).jobs[0].sampling.logit_bias == given
    for as_it_is in (
        a_chat(wishes=Wishes(logit_bias={8: -5.0})),
        a_chat(wishes=Wishes(logit_bias={8: -5.0}), thinking=zai_thinking(type="disabled")),
        a_completion("a<think>so", logit_bias={8: -5.0}),
    ):
        assert as_it_is.jobs[0].sampling.logit_bias == {8: -5.0}
    off = a_chat(wishes=Wishes(logit_bias={7: 20.0}), thinking=zai_thinking(type="disabled"))
    assert off.jobs[0].sampling.logit_bias == {7: 20.0}  # no thought is to come
    open_ = a_completion("a<think>so", logit_bias={7: 20.0})
    assert open_.jobs[0].sampling.logit_bias == {7: 20.0}  # it is open already


def test_no_penalty_touches_the_tags_of_a_hidden_thought() -> None:
    wishes = {"repetition_penalty": 10.0, "frequency_penalty": 2.0, "presence_penalty": 2.0}
    for order in (a_chat(wishes=Wishes(**wishes)), a_completion("1", **wishes)):
        assert set(order.jobs[0].sampling.unpenalised_ids) == {think(), think("</think>")}
    assert a_chat(Policy(), wishes=Wishes(**wishes)).jobs[0].sampling.unpenalised_ids == []
    with pytest.raises(RequestRefused, match=r"repetition_penalty is 0\.5; allowed: 1 and above") as caught:
        a_chat(wishes=Wishes(repetition_penalty=0.5))
    assert caught.value.param == "repetition_penalty"


def test_other_biases_and_words_are_taken_where_reasoning_is_hidden() -> None:
    a_chat(wishes=Wishes(logit_bias={think(): 5.0, 7: -5.0}, bad_words=("think", "<tool_call>")))


def test_the_engine_does_not_end_a_hidden_thought_at_the_clients_stop_tokens() -> None:
    colon = tokenizer().token_id(":")
    eos = checkpoint().stop_token_ids
    assert colon is not None
    wishes = Wishes(stop_token_ids=(colon, eos[0]))
    for policy, known in ((HIDDEN, set(eos)), (Policy(), {*eos, colon})):
        for order in (a_chat(policy, wishes=wishes), a_completion("1", policy=policy, stop_token_ids=(colon, eos[0]))):
            (job,) = order.jobs
            assert (set(job.engine_request(Room(2048)).stop_token_ids), job.client_stop_ids) == (known, (colon,))
            assert job.hides_reasoning == (policy is HIDDEN)


def test_an_answer_that_has_begun_names_the_wish_to_think_as_ignored() -> None:
    turns = (*HELLO, AssistantTurn(text="so"))
    order = a_chat(Policy(), turns=turns, goes_on=True, thinking=zai_thinking(type="enabled"))
    assert order.headers == {"x-glm-thinking": "disabled; by=template", "x-glm-ignored": "thinking.type"}


@pytest.mark.parametrize("content", [JsonObject(), Choice(("a", "b"), "guided_choice")])
def test_an_answer_that_has_begun_has_no_format(content: Any) -> None:
    turns = (*HELLO, AssistantTurn(text="so"))
    with pytest.raises(RequestRefused, match="response_format does not go with an answer that has begun") as caught:
        a_chat(Policy(), turns=turns, goes_on=True, content=content)
    assert (caught.value.param, caught.value.code) == ("response_format", "invalid_value")


@pytest.mark.parametrize("prompt", ["", [], [-1]])
def test_a_prompt_that_is_refused_has_a_code(prompt: Any) -> None:
    with pytest.raises(RequestRefused) as caught:
        a_completion(prompt)
    assert (caught.value.param, caught.value.code) == ("prompt", "invalid_value")


def test_an_error_of_the_context_begins_as_proxies_expect() -> None:
    for room, end in ((Room(16), ""), (Room(16, "the KV cache of this group holds"), ", for the KV cache of")):
        with pytest.raises(RequestRefused) as caught:
            a_completion("1" * 8, max_tokens=16).jobs[0].engine_request(room)
        assert caught.value.message.startswith(f"this model's maximum context length is 16 tokens{end}")
