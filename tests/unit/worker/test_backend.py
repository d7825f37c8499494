"""What becomes of a request before the engine has it: its caller, its grammar, its time; and what is counted."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request

from glm_worker.errors import DeadlinePassed, Overloaded, RequestRefused
from glm_worker.messages import Policy, Slo, SloClass
from glm_worker.server.backend import Backend
from glm_worker.server.jobs.context import Rules
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.chat.intake import chat_order
from glm_worker.server.structured.grammars import Grammars
from glm_worker.server.structured.recipe import Recipe
from unit.worker.flights_world import World
from unit.worker.orders import a_context, chat_of
from unit.worker.server_builders import checkpoint

NO_HEADERS = Headers({})
CHAT: dict[str, Any] = {"model": "glm-nano", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
JSON: dict[str, Any] = {**CHAT, "response_format": {"type": "json_object"}}


class NeverDone:
    """A compiler whose work has no end."""

    def __init__(self) -> None:
        self.num_begun = 0

    async def compile(self, recipe: Recipe, *, on_begin: Callable[[], object]) -> bytes:
        self.num_begun += 1
        await asyncio.Event().wait()
        raise AssertionError


class Full:
    """A compiler that has too much to do."""

    async def compile(self, recipe: Recipe, *, on_begin: Callable[[], object]) -> bytes:
        raise Overloaded("too many grammars wait", retry_after_s=1)


def a_backend(world: World, compiler: Any = None, policy: Policy | None = None) -> Backend:
    return Backend(
        checkpoint=checkpoint(),
        flights=world.flights,
        telemetry=world.telemetry,
        rules=Rules(),
        policy=lambda: policy or Policy(),
        grammars=Grammars(compiler or NeverDone()),
        started=0,
    )


def asked(age_s: float = 0.0, **fields: Any) -> Order:
    """Return the order of a request that came so long ago."""
    return replace(chat_of(fields), arrived_s=time.monotonic() - age_s)


def promised(ttft_s: float) -> World:
    world = World()
    world.telemetry.promise(Slo([SloClass(name="fast", thresholds_s={"ttft": ttft_s}, objective=0.9)]))
    return world


def missed(world: World) -> float:
    return world.value('glm_slo_requests_total{met="false",model="m",slo_class="fast"}')


async def test_a_deadline_that_passes_while_the_grammar_compiles_ends_the_request_as_late() -> None:
    world = World()
    with pytest.raises(DeadlinePassed, match=r"0\.01 seconds"):
        await a_backend(world).ready(asked(**JSON, deadline_s=0.01), NO_HEADERS)
    assert world.outcomes() == {"cancelled": 1}, "as one whose time runs out later"


@pytest.mark.parametrize("body", [CHAT, JSON])
async def test_a_deadline_counts_from_arrival_so_one_that_comes_late_begins_nothing(body: dict[str, Any]) -> None:
    world, compiler = World(), NeverDone()
    with pytest.raises(DeadlinePassed, match="5 seconds"):
        await a_backend(world, compiler).ready(asked(**body, deadline_s=5, age_s=5.1), NO_HEADERS)
    assert (compiler.num_begun, world.outcomes()) == (0, {"cancelled": 1})


def test_the_engine_and_the_exchange_are_told_the_deadline_from_arrival() -> None:
    context = replace(a_context(), arrived_s=time.monotonic() - 100)
    order = chat_order(json.dumps({**CHAT, "deadline_s": 160}).encode(), context)
    assert order.jobs[0].deadline_ms == int((context.arrived_s + 160) * 1000)
    assert order.time_left_s is not None
    assert 0 < order.time_left_s <= 60


@pytest.mark.parametrize(("ttft_s", "num_missed"), [(1.0, 1), (60.0, 0)])
async def test_a_promise_is_judged_by_all_the_time_that_the_client_waited(ttft_s: float, num_missed: int) -> None:
    world = promised(ttft_s)
    with pytest.raises(DeadlinePassed):
        await a_backend(world).ready(asked(**JSON, deadline_s=2, age_s=2), NO_HEADERS)
    assert missed(world) == num_missed


async def test_who_is_turned_away_for_want_of_room_to_compile_was_promised_more() -> None:
    world = promised(60.0)
    with pytest.raises(Overloaded):
        await a_backend(world, Full()).ready(asked(**JSON), NO_HEADERS)
    assert (missed(world), world.outcomes()) == (1, {"refused": 1})


def test_a_caller_who_is_not_told_properly_is_counted_as_refused() -> None:
    world = World()
    request = Request({"type": "http", "headers": [(b"x-glm-tenant", b"two words")]})
    with pytest.raises(RequestRefused, match="x-glm-tenant"):
        a_backend(world, policy=Policy(trust_proxy_headers=True)).begin(request)
    assert world.outcomes() == {"refused": 1}


async def test_memory_of_a_body_that_nothing_is_made_of_goes_back_to_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, freed = World(), list[int]()
    world.serve()
    backend = a_backend(world)
    monkeypatch.setattr(backend.lanes, "freed", freed.append)
    num_left = 8

    async def receive() -> Any:
        nonlocal num_left
        num_left -= 1
        return {"type": "http.request", "body": b"x" * 2**20, "more_body": num_left > 0}

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)
    with pytest.raises(RequestRefused, match="maximum context length"):
        await backend.order(request, chat_order, a_context())
    assert sum(freed) >= 7 * 2**20
