"""The operator's client of gateways, against real small servers: what it reads, and of what it wakes a pass."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from glm_operator.cluster import gateway_pages
from glm_operator.cluster.gateway_pages import GatewayPages
from glm_operator.observe.gateway import GatewayPod


class Page:
    """A management port that says what a test has it say."""

    def __init__(self) -> None:
        self.said: Any = {"config_digest": "a", "keys": 1}

    async def answer(self, _: web.Request) -> web.Response:
        return web.Response(text=self.said if isinstance(self.said, str) else json.dumps(self.said))


def a_pod(name: str = "chat-gateway-x", **changes: Any) -> GatewayPod:
    whole = {"name": name, "uid": name, "ip": "127.0.0.1", "is_ready": True, "is_leaving": False, **changes}
    return GatewayPod(**whole)


@pytest.fixture
async def page(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Page]:
    page, app = Page(), web.Application()
    app.add_routes([web.get("/state", page.answer)])
    async with TestServer(app) as server:
        monkeypatch.setattr(gateway_pages, "management_url", lambda _, path: str(server.make_url(path)))
        yield page


@pytest.fixture
async def pages() -> AsyncIterator[GatewayPages]:
    found = GatewayPages()
    yield found
    await found.close()


async def test_a_pod_is_read_and_fields_of_a_later_version_are_passed_over(page: Page, pages: GatewayPages) -> None:
    page.said = {"config_digest": "d", "keys": 3, "later": 1, "models": {"m": {"groups": {"g": {"plain": True}}}}}
    (said,) = (await pages.states([a_pod()])).values()
    assert (said.config_digest, said.keys, said.plain_groups) == ("d", 3, ["g"])


async def test_what_is_no_state_or_nobody_is_left_out(page: Page, pages: GatewayPages) -> None:
    page.said = "no json"
    assert await pages.states([a_pod(), a_pod("b", ip=None)]) == {}


async def test_a_pod_that_goes_still_tells_what_it_counted(page: Page, pages: GatewayPages) -> None:
    page.said = {"config_digest": "d", "cut": 2}
    (said,) = (await pages.states([a_pod(is_leaving=True)])).values()
    assert said.cut == 2


async def test_a_poll_wakes_those_of_whom_a_person_is_told_something_else(page: Page, pages: GatewayPages) -> None:
    pods = [("chat", a_pod())]
    assert await pages.poll(pods) == {"chat"}
    page.said = {"config_digest": "b", "keys": 7, "running": 4}  # nothing that a condition speaks of
    assert await pages.poll(pods) == set()
    page.said = {"config_digest": "b", "keys": 0}
    assert await pages.poll(pods) == {"chat"}
    page.said = "silent"
    assert await pages.poll(pods) == set()
    page.said = {"config_digest": "b", "config_fault": "names.0: bad", "keys": 0}
    assert await pages.poll(pods) == {"chat"}
    page.said |= {"cut": 1}
    assert await pages.poll(pods) == {"chat"}
