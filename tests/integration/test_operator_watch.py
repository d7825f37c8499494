"""Watches against an API server: what they bring, what they miss, and what a pass makes of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from glm_operator.cluster.cache import Cache
from glm_operator.cluster.kube import Kube
from glm_operator.cluster.watch import Watch
from glm_operator.reconcile.reconciler import Outcome
from integration.fake_kubernetes import FakeKubernetes, Manifest, Refused
from integration.operator_rig import Rig, a_deployment_body, a_rig, set_spec, uids

REACT_S = 30.0
BACKOFF_S = (0.05, 0.2, 0.4)


class WatchedKubernetes(FakeKubernetes):
    """One whose watches can be cut, expire, or fall silent."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False  # watches and lists are refused
        self.has_expired = False  # the version of a watch is too old
        self.is_silent = False  # a watch is accepted, and nothing comes
        self.always_expires = False
        self.odd_answer: str | None = None  # instead of a list, as of a proxy
        self.num_odd = 0
        self.num_lists = 0
        self.num_watches = 0
        self._cut = asyncio.Event()

    def cut(self) -> None:
        """End every watch that runs."""
        self._cut.set()
        self._cut = asyncio.Event()

    async def _list(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        if self.is_closed:
            raise Refused(403, "Forbidden", "closed")
        if request.query.get("watch") != "true":
            self.num_lists += 1
            if self.odd_answer is not None:
                self.num_odd += 1
                return web.Response(text=self.odd_answer, content_type="application/json")
        return await super()._list(request, plural, namespace)

    async def _watch(
        self, request: web.Request, plural: str, is_wanted: Callable[[Manifest], bool]
    ) -> web.StreamResponse:
        self.num_watches += 1
        assert request.query["allowWatchBookmarks"] == "true"
        if self.has_expired or self.always_expires:
            self.has_expired = False
            raise Refused(410, "Expired", "too old resource version")
        cut = asyncio.create_task(self._cut.wait())
        if self.is_silent:
            response = web.StreamResponse()
            await response.prepare(request)
            await cut
            return response
        stream = asyncio.create_task(super()._watch(request, plural, is_wanted))
        await asyncio.wait({cut, stream}, return_when=asyncio.FIRST_COMPLETED)
        stream.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await stream
        if request.transport is not None:
            request.transport.close()
        raise ConnectionResetError


class World:
    """A watch of StatefulSets, its cache, and whom it woke."""

    def __init__(self, fake: WatchedKubernetes, kube: Kube, silence_limit_s: float) -> None:
        self.fake = fake
        self.cache = Cache()
        self.woken: list[tuple[str, str]] = []
        self.watch = Watch(
            kube,
            self.cache,
            "StatefulSet",
            None,
            self.woken.append,
            silence_limit_s=silence_limit_s,
            backoff_s=BACKOFF_S,
        )

    @property
    def is_trusted(self) -> bool:
        return ("StatefulSet", None) in self.cache._listed

    def known(self) -> set[str]:
        objects = self.cache._objects.values()
        return {name for kept in objects for _, _, name in kept}

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(REACT_S):
            while not is_so():  # noqa: ASYNC110 - what is waited for has no event to tell of it
                await asyncio.sleep(0.01)

    def make(self, name: str) -> None:
        labels = {"app.kubernetes.io/managed-by": "glm-operator", "glm-operator.io/deployment": "chat"}
        self.fake.put("statefulsets", {"metadata": {"name": name, "labels": labels}, "spec": {}})

    def remove(self, name: str) -> None:
        self.fake.delete(("statefulsets", "models", name))


@contextlib.asynccontextmanager
async def a_world(*, silence_limit_s: float = REACT_S) -> AsyncIterator[World]:
    fake = WatchedKubernetes()
    server = TestServer(fake.app())
    await server.start_server()
    configuration = client.Configuration()
    configuration.host = str(server.make_url("")).rstrip("/")
    async with Kube(client.ApiClient(configuration)) as kube:
        world = World(fake, kube, silence_limit_s)
        running = asyncio.create_task(world.watch.run())
        try:
            yield world
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            fake.cut()
    await server.close()


async def test_what_happens_reaches_the_cache_and_wakes_the_deployment() -> None:
    async with a_world() as world:
        await world.until(lambda: world.fake.num_watches == 1)
        world.make("chat-g0")
        await world.until(lambda: world.known() == {"chat-g0"})
        assert set(world.woken) == {("models", "chat")}
        world.remove("chat-g0")
        await world.until(lambda: not world.known())


async def test_a_watch_that_ends_goes_on_where_it_was_without_another_list() -> None:
    async with a_world() as world:
        await world.until(lambda: world.fake.num_watches == 1)
        world.fake.cut()
        world.make("chat-g0")
        await world.until(lambda: world.known() == {"chat-g0"})
        assert world.fake.num_lists == 1


async def test_what_vanished_while_no_watch_ran_is_found_by_the_next_list() -> None:
    async with a_world() as world:
        world.make("chat-g0")
        await world.until(lambda: world.known() == {"chat-g0"} and world.fake.num_watches == 1)
        world.woken.clear()
        world.fake.is_closed = True
        world.fake.cut()
        world.remove("chat-g0")
        world.fake._log.clear()  # no watch will ever tell of it
        world.fake.is_closed, world.fake.has_expired = False, True
        await world.until(lambda: not world.known())
        assert ("models", "chat") in world.woken


async def test_a_watch_that_says_nothing_is_begun_anew_and_counted() -> None:
    async with a_world(silence_limit_s=0.2) as world:
        world.fake.is_silent = True
        world.fake.cut()
        await world.until(lambda: world.watch.restarts > 0)
        world.fake.is_silent = False
        world.fake.cut()
        world.make("chat-g0")
        await world.until(lambda: world.known() == {"chat-g0"})


async def test_a_watch_that_speaks_again_after_a_silence_is_trusted_again() -> None:
    """Else passes read everything live, and the autoscaler holds, for as long as the stream works."""
    async with a_world(silence_limit_s=0.2) as world:
        await world.until(lambda: world.is_trusted)
        world.fake.is_silent = True
        world.fake.cut()
        await world.until(lambda: not world.is_trusted)
        world.fake.is_silent = False
        made = iter(range(1000))

        def is_trusted_while_much_happens() -> bool:
            world.make(f"chat-g{next(made)}")
            return world.is_trusted

        await world.until(is_trusted_while_much_happens)
        assert world.known(), "and it has heard what happened meanwhile"


async def test_a_watch_that_expires_at_once_each_time_asks_ever_more_rarely() -> None:
    """A list that takes longer than the server keeps versions: asking in a loop would make it slower still."""
    async with a_world() as world:
        await world.until(lambda: world.fake.num_watches == 1)
        world.fake.always_expires = True
        world.fake.cut()
        await world.until(lambda: world.fake.num_watches >= 3)
        lists, began = world.fake.num_lists, asyncio.get_running_loop().time()
        await world.until(lambda: world.fake.num_lists >= lists + 3)
        assert asyncio.get_running_loop().time() - began > 2 * BACKOFF_S[-1] / 2
        world.fake.always_expires = False
        world.make("chat-g0")
        await world.until(lambda: world.known() == {"chat-g0"})


async def test_a_stream_that_is_cut_after_it_worked_goes_on_at_once() -> None:
    async with a_world() as world:
        for number in range(6):
            await world.until(lambda number=number: world.fake.num_watches > number)  # type: ignore[misc]
            world.make(f"chat-g{number}")
            await world.until(lambda number=number: f"chat-g{number}" in world.known())  # type: ignore[misc]
            began = asyncio.get_running_loop().time()
            world.fake.cut()
            await world.until(lambda number=number: world.fake.num_watches > number + 1)  # type: ignore[misc]
            assert asyncio.get_running_loop().time() - began < 0.4
        assert world.fake.num_lists == 1


@pytest.mark.parametrize("answer", ["[]", '"text"', '{"kind": "Status"}', "<html>"])
async def test_an_answer_that_is_none_of_the_api_servers_ends_nothing(answer: str) -> None:
    async with a_world() as world:
        await world.until(lambda: world.fake.num_watches == 1)
        world.fake.odd_answer, world.fake.has_expired = answer, True
        world.fake.cut()
        await world.until(lambda: world.fake.num_odd > 0)
        world.fake.odd_answer = None
        world.make("chat-g0")
        await world.until(lambda: world.known() == {"chat-g0"})


async def test_a_watch_that_is_down_for_long_makes_passes_read_what_is_live() -> None:
    async with a_world(silence_limit_s=0.2) as world:
        await world.until(lambda: ("StatefulSet", None) in world.cache._listed)
        world.fake.is_closed = True
        world.fake.cut()
        await world.until(lambda: ("StatefulSet", None) not in world.cache._listed)
        world.fake.is_closed = False
        await world.until(lambda: ("StatefulSet", None) in world.cache._listed)


async def test_its_age_grows_while_the_server_is_away_and_is_small_when_it_speaks() -> None:
    async with a_world() as world:
        world.fake.is_closed = True
        world.fake.cut()
        before = world.watch.age_s()
        await world.until(lambda: world.watch.age_s() > before)
        world.fake.is_closed = False
        world.make("chat-g0")
        await world.until(lambda: world.known() == {"chat-g0"})
        assert world.watch.age_s() < before + REACT_S


# What passes make of what the watches brought


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with a_rig(lambda fake: fake.put("glmdeployments", a_deployment_body(replicas=2))) as made:
        await made.settle()
        yield made


async def test_a_settled_deployment_costs_the_api_server_no_request(rig: Rig) -> None:
    before = rig.reads, rig.writes
    for _ in range(3):
        outcome = await rig.run_pass()
        assert (outcome.settled, outcome.changed) == (True, False)
    assert (rig.reads, rig.writes) == before


async def test_a_pass_waits_for_a_rollout_without_asking_the_api_server(rig: Rig) -> None:
    set_spec(rig, engine={"image": "worker:2"})
    await rig.run_pass()  # one group moves, and no controller runs
    await rig.run_pass()
    before = rig.reads, rig.writes
    outcome: Outcome = await rig.run_pass()
    assert not outcome.settled
    assert (rig.reads, rig.writes) == before


async def test_nothing_is_taken_away_on_the_word_of_a_stale_cache(rig: Rig) -> None:
    """The cache still knows three groups and an older spec; what serves is decided on what is live."""
    set_spec(rig, replicas=3)
    await rig.settle()
    rig.watches_bring = False
    rig.fake.delete(("statefulsets", "models", "chat-g0"))
    rig.fake.step()
    rig.fake.step()
    before = uids(rig)
    set_spec(rig, replicas=2)
    rig.cache.put(rig.fake.get("glmdeployments", "chat"))  # only the edit has reached the operator
    for _ in range(5):
        await rig.run_pass()
    assert uids(rig) == before, "two of three serve, two are wanted: nothing has to go"


async def test_a_deployment_that_vanished_unseen_is_forgotten(rig: Rig) -> None:
    rig.watches_bring = False
    rig.fake.delete(("glmdeployments", "models", "chat"))
    while rig.fake.step():
        pass
    rig.cache.replace("StatefulSet", None, [])  # its children's end was seen, its own was not
    assert not (await rig.run_pass()).exists
    assert rig.cache.deployments() == []
    assert rig.fake.names("statefulsets") == []
