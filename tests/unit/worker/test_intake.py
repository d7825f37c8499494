"""From a body to a job: the prompt, the sampling, and what the model cannot hold."""

import json
from dataclasses import replace
from typing import Any

import pytest

from glm_worker.errors import RequestRefused
from glm_worker.messages import EngineLimits, Policy, ReasoningPolicy
from glm_worker.request import EngineRequest, SamplingParams, TokenIds
from glm_worker.scheduler.prefix import hashes_of, seed_of
from glm_worker.server.checkpoint import GenerationDefaults
from glm_worker.server.jobs.accept import accept_chat
from glm_worker.server.jobs.context import Caller, Rules
from glm_worker.server.jobs.conversation import AssistantTurn, Conversation, Said
from glm_worker.server.jobs.job import Job, Room, room_of
from glm_worker.server.jobs.wishes import Wishes
from glm_worker.server.openai.completions.intake import completion_order
from glm_worker.server.structured.formats import Choice, Regex
from glm_worker.server.text.chat import ChatTemplate
from glm_worker.server.text.deltas import assemble
from glm_worker.server.text.lexer import Tag
from unit import cpu_time
from unit.worker.orders import a_context, chat_job, completion_job
from unit.worker.server_builders import checkpoint, stop_id, tokenizer

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def a_chat(of: Any = None, **fields: Any) -> Job:
    return chat_job(json.dumps({"model": "glm-nano", "messages": [USER], **fields}).encode(), of or checkpoint())


def a_completion(**fields: Any) -> Job:
    return completion_job(json.dumps({"model": "glm-nano", **fields}).encode(), checkpoint())


def prompt_of(job: Job) -> str:
    return checkpoint().tokenizer._inner.decode(job.prompt_token_ids, skip_special_tokens=False)


def test_a_chat_is_rendered_through_the_template() -> None:
    assert prompt_of(a_chat()) == "[gMASK]<sop><|user|>\nhi<|assistant|>"
    assert (
        prompt_of(a_chat(thinking={"type": "disabled"}))
        == "[gMASK]<sop><|user|>\nhi/nothink<|assistant|>\n<think></think>"
    )


def test_developer_is_system_and_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    job = a_chat(messages=[{"role": "developer", "content": parts}, USER])
    assert prompt_of(job) == "[gMASK]<sop><|system|>\nab<|user|>\nhi<|assistant|>"


def test_an_earlier_call_is_rendered_with_its_arguments_as_an_object() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "x", "b": [1, "ü"]}'}}
    turn = {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call]}
    prompt = prompt_of(a_chat(messages=[USER, turn, {"role": "tool", "content": "4", "tool_call_id": "c"}]))
    assert "<think>hm</think>\n<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x</arg_value>" in prompt
    assert '<arg_value>[1, "ü"]</arg_value>' in prompt
    assert prompt.endswith("<|observation|>\n<tool_response>\n4\n</tool_response><|assistant|>")


@pytest.mark.parametrize("arguments", ["[1]", "5", "nonsense", '{"a":"\\ud83d"}', '{"\\ude00": 1}'])
def test_an_earlier_call_with_bad_arguments_is_refused_by_its_path(arguments: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    with pytest.raises(RequestRefused) as caught:
        a_chat(messages=[USER, {"role": "assistant", "tool_calls": [call]}])
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


def test_an_earlier_call_without_arguments_is_accepted() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert "<tool_call>f\n</tool_call>" in prompt_of(
        a_chat(messages=[USER, {"role": "assistant", "tool_calls": [call]}])
    )


def test_tools_are_offered_unless_the_choice_is_none() -> None:
    offered = a_chat(tools=[TOOL], tool_choice="auto")
    assert json.dumps(TOOL) in prompt_of(offered)
    assert Tag.TOOL_CALL in offered.tags.values()
    silent = a_chat(tools=[TOOL], tool_choice="none")
    assert prompt_of(silent) == prompt_of(a_chat())
    assert Tag.TOOL_CALL not in silent.tags.values()


def test_the_types_of_a_tools_arguments_are_read_at_intake() -> None:
    schema = {"anyOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"properties": {"n": {"type": "integer"}}}}}
    job = a_chat(tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])
    assert job.tools["f"]["n"].names == {"integer"}


def test_a_branching_schema_of_278_bytes_costs_nothing() -> None:
    """It took 31 seconds, in which no other request of the group went on."""
    loop = {"properties": {"x": {"$ref": "#/x"}}, "x": {"anyOf": [{"$ref": "#/x"}, {"$ref": "#/x"}]}}
    tool = {"type": "function", "function": {"name": "f", "parameters": loop}}
    with cpu_time.at_most(1):
        reader = a_chat(tools=[tool]).reader()
        assert reader.feed(tokenizer().encode("<tool_call>f\n<arg_key>x</arg_key><arg_value>1</arg_value>"), None)


def test_a_schema_past_its_budget_is_refused_with_its_tool_and_the_budget() -> None:
    chain = {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(20_000)}
    large = {"properties": {"x": {"$ref": "#/$defs/0"}}, "$defs": chain}
    tools = [TOOL, {"type": "function", "function": {"name": "large", "parameters": large}}]
    with pytest.raises(RequestRefused, match=r"the tool large takes more than 40000 steps") as caught:
        a_chat(tools=tools)
    refused = caught.value
    assert (refused.status, refused.code) == (400, "schema_too_large")
    assert refused.param == "tools[1].function.parameters"


def test_many_large_schemas_are_refused_together() -> None:
    """Each within the budget of one, 40 of them took 1.5 seconds."""
    large = {"properties": {f"p{n}": {"anyOf": [{}, {}]} for n in range(1000)}}
    tools = [{"type": "function", "function": {"name": f"f{n}", "parameters": large}} for n in range(40)]
    with pytest.raises(RequestRefused, match=r"tools up to f\d+ take more than 200000 steps") as caught:
        a_chat(tools=tools)
    assert (caught.value.status, caught.value.code) == (400, "schema_too_large")


def test_null_in_a_tools_schema_is_kept() -> None:
    schema = {"type": "object", "properties": {"a": {"default": None}}}
    assert json.dumps(schema) in prompt_of(
        a_chat(tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])
    )


def test_sampling_defaults_come_from_the_checkpoint() -> None:
    assert a_chat().sampling.temperature == 0  # glm-nano says do_sample: false
    assert a_chat(temperature=0.5).sampling.temperature == 0.5
    sampled = replace(checkpoint(), defaults=GenerationDefaults(temperature=0.6, top_p=0.95, top_k=40))
    sampling = a_chat(sampled).sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.6, 0.95, 40)
    assert replace(checkpoint(), defaults=GenerationDefaults()).defaults.temperature == 1.0


def test_sampling_is_passed_on() -> None:
    sampling = a_chat(temperature=0.7, top_p=0.9, top_k=-1, min_p=0.1, seed=7).sampling
    assert sampling == SamplingParams(temperature=0.7, top_p=0.9, top_k=0, min_p=0.1, seed=7)


def test_a_negative_seed_becomes_one_of_63_bits() -> None:
    assert 0 <= a_chat(seed=-5).sampling.seed < 2**63
    assert a_chat(seed=-5).sampling == a_chat(seed=-5).sampling


def test_without_a_seed_every_request_has_its_own() -> None:
    assert a_chat().sampling.seed != a_chat().sampling.seed


def test_ignoring_the_end_means_no_stop_tokens() -> None:
    assert a_chat().stop_token_ids == checkpoint().stop_token_ids
    assert a_chat(ignore_eos=True).stop_token_ids == ()


def test_another_model_is_not_found() -> None:
    with pytest.raises(RequestRefused, match="glm-nano") as caught:
        chat_job(json.dumps({"model": "gpt-4", "messages": [USER]}).encode(), checkpoint())
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


def test_what_the_prompt_leaves_is_the_default_of_max_tokens() -> None:
    job = a_completion(prompt=[5] * 10)
    assert job.engine_request(Room(16)).max_tokens == 6
    assert job.engine_request(Room(11)).max_tokens == 1


@pytest.mark.parametrize(("num_prompt", "max_tokens"), [(10, 7), (16, 1), (17, None), (16, None)])
def test_what_is_longer_than_the_model_is_refused_with_both_numbers(num_prompt: int, max_tokens: int | None) -> None:
    job = a_completion(prompt=[5] * num_prompt, max_tokens=max_tokens)
    with pytest.raises(RequestRefused) as caught:
        job.engine_request(Room(16))
    assert caught.value.code == "context_length_exceeded"
    assert "16 tokens" in caught.value.message
    assert str(num_prompt + (max_tokens or 1)) in caught.value.message


def test_what_fits_exactly_is_accepted() -> None:
    assert a_completion(prompt=[5] * 10, max_tokens=6).engine_request(Room(16)).max_tokens == 6


def test_a_small_cache_is_the_limit() -> None:
    assert room_of(EngineLimits(max_model_len=100, num_blocks=3, block_size=16)) == Room(
        48, "the KV cache of this group holds"
    )
    assert room_of(EngineLimits(max_model_len=40, num_blocks=3, block_size=16)) == Room(40)


@pytest.mark.parametrize("token_id", [-1, 1024])
def test_token_ids_past_the_vocabulary_are_refused(token_id: int) -> None:
    with pytest.raises(RequestRefused, match="0 to 1023") as caught:
        a_completion(prompt=[5, token_id])
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("prompt", ["", []])
def test_an_empty_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(RequestRefused, match="at least one token"):
        a_completion(prompt=prompt)


def test_a_text_prompt_is_taken_as_it_is() -> None:
    job = a_completion(prompt="2+2=", stop="\n")
    assert job.prompt_token_ids == tokenizer().encode("2+2=")
    assert job.stops.strings == ("\n",)
    assert not job.tags


@pytest.mark.parametrize("is_chat", [True, False])
def test_a_prompt_that_cannot_fit_is_refused_before_it_is_tokenised(
    is_chat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: Any, **__: Any) -> list[int]:
        raise AssertionError("tokenised")

    monkeypatch.setattr(tokenizer(), "encode", encode)
    text = "x" * (checkpoint().max_model_len * 20)  # 20: the longest token of glm-nano
    with pytest.raises(RequestRefused, match=r"maximum context length is 2048 tokens.*at least (2048|2050)$") as caught:
        a_chat(messages=[{"role": "user", "content": text}]) if is_chat else a_completion(prompt=text)
    assert (caught.value.code, caught.value.status) == ("context_length_exceeded", 400)
    assert caught.value.param == ("messages" if is_chat else "prompt")


def test_a_prompt_whose_bytes_could_fit_is_tokenised() -> None:
    job = a_completion(prompt="x" * (2047 * 20))
    with pytest.raises(RequestRefused, match="together"):
        job.engine_request(Room(2048))


def test_a_prompt_of_far_too_many_tokens_is_refused_before_its_ids_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glm_worker.server.jobs.prompt._SOME_IDS", 4000)
    a_completion(prompt="x" * 4000)
    for prompt in ("x" * 4001, [1] * 4001):
        with pytest.raises(RequestRefused, match=r"maximum context length is 2048 tokens.*at least 4001$") as caught:
            a_completion(prompt=prompt)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")


def test_a_long_model_name_is_told_in_short() -> None:
    with pytest.raises(RequestRefused) as caught:
        chat_job(json.dumps({"model": "m" * 3000, "messages": [USER]}).encode(), checkpoint())
    assert len(caught.value.message) < 200


def test_how_long_a_body_may_be_is_derived_from_the_model() -> None:
    assert checkpoint().max_prompt_json_bytes == 2048 * 40 + 2**20
    sentence = "日本語のテキスト、😀 und größer\n"  # the most that tokens of people's text take, escaped as JSON
    num_tokens = len(checkpoint().tokenizer.encode(sentence))
    assert len(json.dumps(sentence)) / num_tokens < 40


@pytest.mark.parametrize(
    ("switch", "thinks"),
    [
        ({}, True),
        ({"thinking": {"type": "enabled"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "medium"}, True),
    ],
)
def test_whether_the_model_thinks_is_resolved_for_each_chat(switch: dict[str, Any], thinks: bool) -> None:
    assert a_chat(**switch).thinking is thinks


def test_a_completion_is_no_thinking_request() -> None:
    assert a_completion(prompt="hi").thinking is False


@pytest.mark.parametrize(
    ("template", "thinks"),
    [
        ("{{ messages[0].content }}", False),
        ("{{ '<think>' if enable_thinking else '' }}", False),
        ("{{ '<think>' if enable_thinking is undefined or enable_thinking else '' }}", True),
        ("{{ raise_exception('only with a system message') }}", True),
    ],
    ids=["no switch", "off", "on", "refuses"],
)
def test_the_template_says_what_a_request_without_a_switch_gets(template: str, thinks: bool) -> None:
    assert replace(checkpoint(), template=ChatTemplate(template, {})).traits.thinks_by_default is thinks


def test_an_answer_goes_on_where_the_last_turn_of_the_assistant_ends() -> None:
    conversation = Conversation(
        turns=(Said(role="user", text="hi"), AssistantTurn(text="Once upon ", reasoning="a tale")), goes_on=True
    )
    order = accept_chat(conversation, Wishes(), a_context(), order_id="o")
    prompt = checkpoint().tokenizer._inner.decode(order.jobs[0].prompt_token_ids, skip_special_tokens=False)
    assert prompt.endswith("<think>a tale</think>\nOnce upon ")
    assert order.thinking is not None
    assert not order.thinking.enabled


def test_answers_of_one_order_differ_in_their_seeds_and_names_only() -> None:
    conversation = Conversation(turns=(Said(role="user", text="hi"),))
    order = accept_chat(conversation, Wishes(seed=7, num_answers=3), a_context(), order_id="o")
    assert [job.id for job in order.jobs] == ["o-0", "o-1", "o-2"]
    assert [job.sampling.seed for job in order.jobs] == [7, 8, 9]
    assert order.num_prompt_tokens == len(order.jobs[0].prompt_token_ids)


def test_reasoning_is_shown_as_policy_role_and_request_allow() -> None:
    conversation = Conversation(turns=(Said(role="user", text="hi"),))
    hidden = Policy(reasoning=ReasoningPolicy(visibility="hidden", fields="both"))
    assert accept_chat(conversation, Wishes(), a_context(), order_id="o").shows_reasoning
    order = accept_chat(conversation, Wishes(), a_context(policy=hidden), order_id="o")
    assert not order.shows_reasoning
    assert order.has_both_reasoning_fields


def test_the_reply_says_how_thinking_was_decided_and_what_was_ignored() -> None:
    conversation = Conversation(turns=(Said(role="user", text="hi"),))
    policy = Policy(reasoning=ReasoningPolicy(default="disabled"))
    order = accept_chat(conversation, Wishes(ignored=("store", "user")), a_context(policy=policy), order_id="o")
    assert order.headers == {"x-glm-thinking": "disabled; by=policy", "x-glm-ignored": "store, user"}


def test_a_budget_of_thought_reaches_the_engine() -> None:
    conversation = Conversation(turns=(Said(role="user", text="hi"),))
    policy = Policy(reasoning=ReasoningPolicy(max_thinking_tokens=5))
    (job,) = accept_chat(conversation, Wishes(), a_context(policy=policy), order_id="o").jobs
    thought = job.engine_request(Room(100)).thought
    assert thought is not None
    assert (thought.max_tokens, thought.begins_open) == (5, False)
    assert thought.forced_ids == [thought.close_id]


def test_what_an_answer_goes_on_with_begins_in_the_middle_of_its_text() -> None:
    turns = (Said(role="user", text="hi"), AssistantTurn(text="- one", reasoning=""))
    (job,) = accept_chat(Conversation(turns=turns, goes_on=True), Wishes(), a_context(), order_id="o").jobs
    assert assemble(job.reader().feed([*tokenizer().encode("\n- two"), stop_id()], "stop")).content == "\n- two"
    (job,) = accept_chat(Conversation(turns=turns[:1]), Wishes(), a_context(), order_id="o").jobs
    assert assemble(job.reader().feed([*tokenizer().encode("\n- two"), stop_id()], "stop")).content == "- two"


@pytest.mark.parametrize("content", [Regex(r"\n*[0-9]", "regex"), Choice(("\n1", "2"), "choice")])
def test_text_of_a_given_form_is_told_with_the_newlines_that_it_begins_with(content: Regex | Choice) -> None:
    conversation = Conversation(turns=(Said(role="user", text="hi"),), content=content)
    order = accept_chat(conversation, Wishes(), a_context(), order_id="o")
    answer = assemble(order.jobs[0].reader().feed([*tokenizer().encode("<think>hm</think>\n1"), stop_id()], "stop"))
    assert (answer.reasoning, answer.content) == ("hm", "\n1")


def test_prompts_are_hashed_in_the_blocks_of_the_group_for_their_tenant_and_not_at_all_without_a_cache() -> None:
    def request_of(tenant: str, block_size: int) -> EngineRequest:
        caller, rules = Caller(request_id="r", tenant=tenant), Rules(prefix_block_size=block_size)
        context = replace(a_context(rules=rules), caller=caller)
        body = {"model": "glm-nano", "prompt": list(range(5, 14)), "n": 2}
        jobs = completion_order(json.dumps(body).encode(), context).jobs
        first, second = (job.engine_request(Room(100)) for job in jobs)
        assert first.block_hashes == second.block_hashes
        return first

    request = request_of("t", 4)
    assert request.block_hashes == hashes_of(TokenIds.of(range(5, 14)), seed_of("t"), 4)
    assert request.cache_seed == seed_of("t") != request_of("", 4).cache_seed == seed_of("")
    assert (request_of("t", 0).cache_seed, request_of("t", 0).block_hashes) == (b"", b"")
