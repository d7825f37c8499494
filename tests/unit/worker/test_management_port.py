"""Anyone may read at the management port; who knows the token may put promises or a policy; nothing else changes."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from glm_worker.errors import RequestRefused
from glm_worker.messages import Policy, Slo
from glm_worker.server.policy import policy_digest
from glm_worker.server.slo import MAX_BODY_BYTES, slo_digest
from glm_worker.supervisor.management.health import management_app

TOKEN = "s3cret"
BEARER = {"authorization": f"Bearer {TOKEN}"}
FAST = {"name": "fast", "thresholds_s": {"ttft": 0.5}, "objective": 0.99}


class IdleRole:
    """A role that takes promises and does nothing else."""

    is_ready = True
    state = "serving"
    why_not_ready = ""
    load = None

    def __init__(self) -> None:
        self.taken: list[Slo] = []
        self.policies: list[Policy] = []

    async def group(self) -> dict[str, object]:
        return {}

    async def metrics(self) -> str:
        return ""

    def take_slo(self, slo: Slo) -> str:
        self.taken.append(slo)
        return slo_digest(slo)

    def take_policy(self, policy: Policy) -> str:
        self.policies.append(policy)
        return policy_digest(policy)


class FollowingRole(IdleRole):
    def take_slo(self, slo: Slo) -> str:
        raise RequestRefused("promises are put to the leading pod", status=404)


async def put(
    role: IdleRole, path: str = "/slo", *, token: str = TOKEN, content: Any = None, **options: Any
) -> httpx.Response:
    transport = httpx.ASGITransport(management_app(role, token))
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as client:
        body = json.dumps({"classes": [FAST]}) if content is None else content
        return await client.put(path, **{"headers": BEARER, "content": body, **options})


def test_every_route_but_two_only_reads() -> None:
    routes = [route for route in management_app(IdleRole()).routes if isinstance(route, Route)]
    reading = {path: {"GET", "HEAD"} for path in ("/livez", "/readyz", "/metrics", "/group", "/load")}
    assert {route.path: route.methods for route in routes} == {**reading, "/slo": {"PUT"}, "/policy": {"PUT"}}


async def test_a_pod_that_follows_has_no_load_to_tell() -> None:
    transport = httpx.ASGITransport(management_app(FollowingRole()))
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as client:
        answer = await client.get("/load")
    assert (answer.status_code, "leading pod" in answer.text) == (404, True)


@pytest.mark.parametrize(
    ("is_ready", "why", "status", "said"),
    [
        (True, "", 200, "serving\n"),
        (False, "", 503, "serving\n"),
        (False, "3 connections are open", 503, "serving, not ready: 3 connections are open\n"),
    ],
)
async def test_readiness_says_why_where_the_state_does_not(is_ready: bool, why: str, status: int, said: str) -> None:
    role = IdleRole()
    role.is_ready, role.why_not_ready = is_ready, why
    transport = httpx.ASGITransport(management_app(role))
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as client:
        response = await client.get("/readyz")
    assert (response.status_code, response.text) == (status, said)


async def test_promises_are_taken_and_answered_with_their_digest() -> None:
    role = IdleRole()
    response = await put(role)
    (slo,) = role.taken
    assert (response.status_code, response.json()) == (200, {"digest": slo_digest(slo)})
    assert [each.name for each in slo.classes] == ["fast"]


@pytest.mark.parametrize(
    "value", [None, "", TOKEN, "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer s3", b"Bearer s3cr\xe9t"]
)
async def test_who_does_not_know_the_token_changes_nothing(value: str | bytes | None) -> None:
    role = IdleRole()
    response = await put(role, headers={} if value is None else {"authorization": value})
    assert (response.status_code, response.headers["www-authenticate"], role.taken) == (401, "Bearer", [])
    assert TOKEN not in response.text


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer "}, {"authorization": "Bearer"}])
async def test_a_pod_without_a_token_takes_promises_from_nobody(headers: dict[str, str]) -> None:
    role = IdleRole()
    response = await put(role, token="", headers=headers)
    assert (response.status_code, role.taken) == (401, [])
    assert "has no GLM_MANAGEMENT_TOKEN" in response.text


async def test_what_is_wrong_with_the_body_is_said_in_a_sentence() -> None:
    role = IdleRole()
    response = await put(role, content=json.dumps({"classes": [{**FAST, "objective": 99}]}))
    assert response.status_code == 422
    assert response.text == "objective of class fast is 99; allowed is a share between 0 and 1, as in 0.99\n"
    assert role.taken == []


async def test_a_body_without_end_is_not_read_to_it() -> None:
    num_sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal num_sent
        while num_sent < 100:
            num_sent += 1
            yield b" " * 4096

    role = IdleRole()
    response = await put(role, content=chunks())
    assert (response.status_code, role.taken) == (413, [])
    assert num_sent * 4096 <= MAX_BODY_BYTES + 3 * 4096


async def test_a_pod_that_follows_says_where_promises_go() -> None:
    response = await put(FollowingRole())
    assert (response.status_code, response.text) == (404, "promises are put to the leading pod\n")


async def test_a_policy_is_taken_and_answered_with_its_digest() -> None:
    role = IdleRole()
    response = await put(role, "/policy", content=json.dumps({"reasoning": {"visibility": "hidden"}}))
    (policy,) = role.policies
    assert (response.status_code, response.json()) == (200, {"digest": policy_digest(policy)})
    assert (policy.reasoning.visibility, role.taken) == ("hidden", [])


async def test_a_policy_is_taken_from_nobody_without_the_token() -> None:
    role = IdleRole()
    refused = await put(role, "/policy", content="{}", headers={"authorization": "Bearer x"})
    assert (refused.status_code, role.policies) == (401, [])
    assert refused.text == "put a policy with the header Authorization: Bearer GLM_MANAGEMENT_TOKEN\n"
    assert (await put(role, "/policy", token="", content="{}")).status_code == 401
    assert role.policies == []


async def test_what_is_wrong_with_a_policy_is_said_in_a_sentence() -> None:
    role = IdleRole()
    response = await put(role, "/policy", content=json.dumps({"reasoning": {"auto_threshold": 5}}))
    assert (response.status_code, role.policies) == (422, [])
    assert response.text == "reasoning.auto_threshold is 5; allowed is 0 to 1: `auto` thinks from this score on\n"
    assert (await put(role, "/policy", content=b" " * (MAX_BODY_BYTES + 1))).status_code == 413
