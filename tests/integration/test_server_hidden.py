"""Hidden reasoning and unusual tenants over HTTP: what a caller could try, and what comes of it."""

import asyncio
from pathlib import Path

import pytest

from glm_worker.messages import Policy
from integration.server_world import MODEL, TOKENIZER, a_server, token_ids

THOUGHT = "<think>a secret: 7</think>"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_tells_no_hidden_thought_and_counts_it(tmp_path: Path, stream: bool) -> None:
    async with a_server(tmp_path, reasoning_visibility="hidden") as world:
        engine = await world.serve()
        body = {"model": MODEL, "prompt": "1+1=", "stop": "secret", "stream": stream}
        body |= {"stream_options": {"include_usage": True}} if stream else {}
        answering = asyncio.create_task(world.http.post("/v1/completions", json=body))
        await engine.say(await engine.next_request(), f"{THOUGHT}2", end="<|user|>")
        told = (await answering).text
    assert "secret" not in told
    assert "think" not in told
    assert f'"reasoning_tokens":{len(token_ids(THOUGHT))}' in told
    assert '"stop_reason":null' in told
    assert '"text":"2"' in told


async def test_a_stop_token_ends_the_engines_work_after_the_hidden_thought(tmp_path: Path) -> None:
    colon = TOKENIZER.token_id(":")
    async with a_server(tmp_path, reasoning_visibility="hidden") as world:
        engine = await world.serve()
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stop_token_ids": [colon]}
        answering = asyncio.create_task(world.http.post("/v1/chat/completions", json=body))
        request = await engine.next_request()
        assert colon not in request.stop_token_ids
        await engine.say(request, "<think>it is:7</think>\nso:7")
        assert await engine.next_cancelled() == request.request_id
        choice = (await answering).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"], choice["stop_reason"]) == ("so", "stop", colon)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses/resp_x_1"])
@pytest.mark.parametrize("header", ["x-glm-tenant", "x-glm-role"])
async def test_a_tenant_that_cannot_be_kept_is_refused_in_the_words_of_each_surface(
    tmp_path: Path, path: str, header: str
) -> None:
    async with a_server(tmp_path, trust_proxy_headers=True) as world:
        await world.serve()
        headers = {header: "two words", "x-request-id": "mine"}
        method = "GET" if "resp_" in path else "POST"
        reply = await world.http.request(method, path, headers=headers, json={})
    assert (reply.status_code, reply.headers["x-request-id"]) == (400, "mine")
    assert f"the header {header} has" in reply.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/health", "/ping", "/version", "/v1/models", "/openapi.json"])
async def test_what_is_no_business_of_callers_does_not_depend_on_their_headers(tmp_path: Path, path: str) -> None:
    async with a_server(tmp_path, trust_proxy_headers=True) as world:
        await world.serve()
        bad = [("x-glm-tenant", "a"), ("x-glm-tenant", "b"), ("x-glm-role", "two words")]
        replies = [await world.http.get(path, headers=bad)]
        if path == "/v1/models":  # in Anthropic's words
            replies.append(await world.http.get(path, headers=[*bad, ("anthropic-version", "2023-06-01")]))
            replies.append(await world.http.get(f"{path}/{MODEL}", headers=[*bad, ("anthropic-version", "2023-06-01")]))
        assert [reply.status_code for reply in replies] == [200] * len(replies)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens", "/v1/responses"])
async def test_a_caller_who_is_not_told_properly_is_counted_as_refused(tmp_path: Path, path: str) -> None:
    async with a_server(tmp_path, trust_proxy_headers=True) as world:
        await world.serve()
        assert (await world.http.post(path, json={}, headers={"x-glm-tenant": "two words"})).status_code == 400
        assert await world.value('glm_requests_total{outcome="refused"}') == 1


async def test_a_server_that_was_not_told_yet_shows_reasoning_to_nobody_and_then_as_it_is_told(tmp_path: Path) -> None:
    async with a_server(tmp_path, awaits_policy=True) as world:
        engine = await world.serve()

        async def told() -> str:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
            answering = asyncio.create_task(
                world.http.post("/v1/chat/completions", json=body, headers={"x-glm-role": "developer"})
            )
            await engine.say(await engine.next_request(), f"{THOUGHT}2", end="<|user|>")
            return (await answering).text

        assert "secret" not in await told()
        await world.policy(Policy())
        assert '"reasoning_content":"a secret: 7"' in await told()


async def test_a_server_that_was_not_told_yet_keeps_tenants_apart(tmp_path: Path) -> None:
    async with a_server(tmp_path, awaits_policy=True) as world:
        engine = await world.serve()
        mine, others = {"x-glm-tenant": "a"}, {"x-glm-tenant": "b"}
        body = {"model": MODEL, "input": "hi", "store": True}
        answering = asyncio.create_task(world.http.post("/v1/responses", json=body, headers=mine))
        await engine.say(await engine.next_request(), f"{THOUGHT}2", end="<|user|>")
        path = f"/v1/responses/{(await answering).json()['id']}"
        trusting = Policy(trust_proxy_headers=True)
        for told in (None, trusting):
            if told is not None:
                await world.policy(told)
            found = [(await world.http.get(path, headers=headers)).status_code for headers in (mine, others, {})]
            assert found == [200, 404, 404]


async def test_the_header_of_the_threshold_is_heard_refused_or_told_to_have_no_effect(tmp_path: Path) -> None:
    async with a_server(tmp_path) as world:
        engine = await world.serve()
        chat = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "thinking": {"type": "auto"}}
        twice = [("x-glm-auto-threshold", "0.2"), ("x-glm-auto-threshold", "0.8")]
        refused = await world.http.post("/v1/chat/completions", json=chat, headers=twice)
        assert refused.status_code == 400
        assert "x-glm-auto-threshold: 0.2 and x-glm-auto-threshold: 0.8" in refused.json()["error"]["message"]
        body = {"model": MODEL, "prompt": "1+1="}
        answering = asyncio.create_task(world.http.post("/v1/completions", json=body, headers=twice[:1]))
        await engine.say(await engine.next_request(), "2", end="<|user|>")
        assert (await answering).headers["x-glm-ignored"] == "x-glm-auto-threshold"
