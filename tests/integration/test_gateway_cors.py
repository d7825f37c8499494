"""Pages of other origins before a gateway over real sockets: a browser asks first, without a key, and reads errors."""

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from glm_gateway.access.cors import Cors
from glm_gateway.access.cors_config import CorsConfig
from glm_gateway.access.decide import Mode
from glm_gateway.access.keys import Keyring
from glm_gateway.admission.gate import Gate
from glm_gateway.app import Gateway
from integration.gateway_world import a_gateway, member
from integration.no_tls import NO_TLS
from integration.scripted_groups import ScriptedGroup, plain, serving

ORIGIN = "https://chat.example"
PATH = "/v1/chat/completions"
BEFORE = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}
World = tuple[httpx.AsyncClient, Gateway]


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    group = ScriptedGroup("g0", [[plain(200, b"{}", b"vary: accept")] for _ in range(9)])
    gate = Gate(mode=Mode.KEYS, tenant_secret=b"0" * 16, keyring=lambda: Keyring({}))
    cors = Cors.of(CorsConfig(origins=(ORIGIN,)))
    async with (
        serving(group),
        a_gateway("m", [member("g0", group.port)], gate=gate, cors=cors) as (url, gateway),
        httpx.AsyncClient(base_url=url, verify=NO_TLS) as http,
    ):
        yield http, gateway


async def test_a_browser_is_answered_before_anybody_says_who_they_are(world: World) -> None:
    response = await world[0].options(PATH, headers=BEFORE)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert response.headers["access-control-allow-methods"] == "POST"
    assert response.headers["access-control-allow-headers"] == "authorization,content-type"
    assert response.headers["access-control-max-age"] == "600"
    assert "origin" in response.headers.get_list("vary", split_commas=True)


async def test_an_error_can_be_read_by_the_page(world: World) -> None:
    response = await world[0].post(PATH, json={}, headers={"origin": ORIGIN})
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert response.headers["access-control-expose-headers"] == "*"


async def test_a_page_of_another_origin_learns_nothing(world: World) -> None:
    other = {**BEFORE, "origin": "https://evil.example"}
    refused = await world[0].options(PATH, headers=other)
    assert refused.status_code == 403
    answered = await world[0].get("/health", headers=other)
    for response in (refused, answered):
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert "origin" in response.headers["vary"]


async def test_a_path_that_is_nobodys_has_no_page_either(world: World) -> None:
    assert (await world[0].options("/metrics", headers=BEFORE)).status_code == 403


async def test_a_reply_of_a_group_keeps_what_it_says_itself(world: World) -> None:
    http, gateway = world
    gateway.gate = Gate(mode=Mode.NONE, tenant_secret=b"0" * 16)
    response = await http.post(PATH, json={"model": "m", "messages": []}, headers={"origin": ORIGIN})
    assert response.status_code == 200
    assert response.headers.get_list("vary", split_commas=True) == ["accept", "origin"]
    assert response.headers["access-control-allow-origin"] == ORIGIN


async def test_where_nothing_is_set_a_browser_is_told_nothing(world: World) -> None:
    http, gateway = world
    gateway.cors = None
    response = await http.options(PATH, headers=BEFORE)
    assert response.status_code == 405
    assert "vary" not in response.headers
