"""How a gateway learns which groups there are and what they carry: real streams, a real API in memory, a real file."""

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from glm_gateway.groups.directory import Directory
from glm_gateway.groups.file import FileSource
from glm_gateway.groups.found import Found
from glm_gateway.groups.load import Pace as LoadPace
from glm_gateway.groups.roster import Roster
from glm_gateway.groups.slice_watch import Access, SliceSource
from glm_gateway.groups.slice_watch import Pace as SlicePace
from glm_gateway.models.model import Model
from glm_gateway.models.placement import Placement
from glm_gateway.routing.book import Load
from glm_gateway.routing.classes import Place
from glm_gateway.routing.pick import Group, Request
from integration.fake_kubernetes import FakeKubernetes

DEADLINE_S = 30.0
FAST = LoadPace(silence_s=0.3, first_s=0.01, last_s=0.05, unable_s=0.05)
QUICK = SlicePace(first_s=0.01, last_s=0.05, connect_s=1.0)
RESYNCS = SlicePace(first_s=0.01, last_s=0.05, resync_s=0.0)
IDLE = {"ready": True, "leaving": False, "incarnation": "i-1", "in_flight_tokens": 0, "max_running": 3}


async def until(is_it: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not is_it():  # noqa: ASYNC110 - what is waited for tells no event
            await asyncio.sleep(0.005)


class FakeGroup:
    """The management port of a group whose lines the test writes."""

    def __init__(self) -> None:
        self.status = 200
        self.num_asked = 0
        self.port = 0
        self._lines: list[bytes] = []
        self._written = asyncio.Event()
        self._streams: set[asyncio.Task[Any]] = set()

    def say(self, **fields: Any) -> None:
        self.write(json.dumps({**IDLE, **fields}).encode() + b"\n")

    def write(self, data: bytes) -> None:
        self._lines.append(data)
        self._written.set()

    def hang_up(self) -> None:
        for stream in self._streams:
            stream.cancel()
        self._lines.clear()

    async def answer(self, _: web.Request) -> web.StreamResponse:
        self.num_asked += 1
        if self.status != 200:
            return web.Response(status=self.status)
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        return await self._stream(_)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        num_sent = max(0, len(self._lines) - 1)  # a new listener gets the last word
        while True:
            for data in self._lines[num_sent:]:
                await response.write(data)
            num_sent = len(self._lines)
            self._written.clear()
            await self._written.wait()


@contextlib.asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[int]:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def a_roster(pace: LoadPace = FAST) -> AsyncIterator[tuple[Roster, Model, FakeGroup, Found]]:
    fake = FakeGroup()
    app = web.Application()
    app.router.add_get("/load", fake.answer)
    model = Model("chat", Directory())
    roster = Roster(model, pace=pace)
    async with served(app) as port:
        try:
            yield roster, model, fake, Found(name="g0", host="127.0.0.1", port=1, management_port=port)
        finally:
            await roster.close()


def group_of(model: Model) -> Group:
    (group,) = model.directory.groups
    return group


async def test_a_group_is_known_by_the_source_and_then_by_its_own_word() -> None:
    async with a_roster() as (roster, model, fake, found):
        roster.take([found])
        assert (group_of(model).takes_requests, group_of(model).heard_s) == (True, None)
        fake.say(ready=False)
        await until(lambda: not group_of(model).takes_requests)
        fake.say(in_flight_tokens=70, tokens_to_prefill=30, kv_tokens=4096, prefill_tokens_per_s=9000.0, revision="r")
        await until(lambda: group_of(model).takes_requests)
        account = model.router.book.account("g0")
        await until(lambda: account.others_held == 70)
        assert (account.others_owed, account.measured) == (30, 9000.0)
        assert (group_of(model).revision, model._max_running["g0"]) == ("r", 3)
        heard_s = group_of(model).heard_s
        assert heard_s is not None
        fake.say(in_flight_tokens=71)
        await until(lambda: (group_of(model).heard_s or 0) > heard_s)


async def test_another_incarnation_has_an_empty_cache_and_the_first_word_empties_none() -> None:
    async with a_roster() as (roster, model, fake, found):
        roster.take([found])
        gone: list[str] = []
        forget = model.router.forget
        model.router.forget = lambda name: (gone.append(name), forget(name))[1]  # type: ignore[method-assign]
        fake.say()
        await until(lambda: group_of(model).heard_s)
        assert gone == []
        fake.say(incarnation="i-2", in_flight_tokens=5)
        await until(lambda: model.router.book.account("g0").others_held == 5)
        assert gone == ["g0"]
        assert model._max_running["g0"] == 3, "and what it runs is known again"


async def test_a_group_that_comes_gets_no_more_than_it_says_that_it_runs() -> None:
    async with a_roster() as (roster, model, fake, found):
        waiting = [asyncio.create_task(placed(model)) for _ in range(5)]
        await until(lambda: len(model.room) == 5)
        roster.take([replace(found, is_ready=False)])
        fake.say(max_running=2, start_s=12.5)
        await until(lambda: group_of(model).takes_requests)
        assert model.in_flight == {"g0": 2}
        assert model.start.usual_s == 12.5
        for each in waiting:
            each.cancel()
        await asyncio.wait(waiting)


async def placed(model: Model) -> None:
    number = next(model.numbers)
    place = Place(0, 0, math.inf, 0.0, number)
    await Placement(model, Request(key=str(number), prompt_tokens=1), place, num_bytes=1).place(frozenset())


async def test_a_worker_from_before_is_used_by_own_charges_and_asked_again_later() -> None:
    async with a_roster() as (roster, model, fake, found):
        fake.status = 404
        roster.take([found])
        await until(lambda: fake.num_asked >= 2)
        assert (group_of(model).takes_requests, group_of(model).heard_s) == (True, None)
        assert model.answers_late("g0"), "its whole replies have no head before they are written"
        fake.status = 200
        fake.say(in_flight_tokens=9)
        await until(lambda: model.router.book.account("g0").others_held == 9)
        assert not model.answers_late("g0")
        fake.status = 404  # an older version took its place
        fake.hang_up()
        await until(lambda: group_of(model).heard_s is None)
        assert model.router.book.account("g0").others_held == 0


async def test_a_group_that_has_no_place_for_a_listener_is_no_worker_from_before() -> None:
    async with a_roster() as (roster, model, fake, found):
        roster.take([found])
        fake.say(leaving=True)
        await until(lambda: group_of(model).is_leaving)
        fake.status = 503
        fake.hang_up()
        await until(lambda: fake.num_asked >= 3)
        assert group_of(model).is_leaving, "its last word counts"
        fake.status = 200
        fake.say()
        await until(lambda: group_of(model).takes_requests)


async def test_a_stream_that_is_lost_silent_or_broken_is_taken_up_again() -> None:
    async with a_roster() as (roster, model, fake, found):
        roster.take([found])
        fake.say(ready=False)
        await until(lambda: not group_of(model).takes_requests)
        fake.hang_up()
        await until(lambda: fake.num_asked >= 2)
        assert not group_of(model).takes_requests, "its last word was no"
        await until(lambda: fake.num_asked >= 4)  # silent for longer than it may be
        fake.write(b"no report\n")
        await until(lambda: fake.num_asked >= 5)
        fake._lines.clear()
        fake.say()
        await until(lambda: group_of(model).takes_requests)


async def test_a_group_whose_word_we_could_not_take_is_heard_again() -> None:
    async with a_roster() as (roster, model, fake, found):
        hear, taken = model.hear, list[float]()

        def hear_later(group: str, load: Load, heard_s: float) -> None:
            taken.append(heard_s)
            if len(taken) == 1:
                raise ZeroDivisionError
            hear(group, load, heard_s)

        model.hear = hear_later  # type: ignore[method-assign]
        fake.say(in_flight_tokens=9)
        roster.take([found])
        await until(lambda: model.router.book.account("g0").others_held == 9)


async def test_a_group_whose_stream_comes_and_goes_is_asked_less_and_less_often() -> None:
    pace = LoadPace(silence_s=0.3, first_s=0.01, last_s=1.0)
    async with a_roster(pace) as (roster, _, fake, found):
        fake.say()
        roster.take([found])
        asked_s: list[float] = []
        while len(asked_s) < 7:
            await until(lambda: fake.num_asked > len(asked_s) and fake._streams)
            asked_s.append(asyncio.get_running_loop().time())
            for stream in fake._streams:
                stream.cancel()
            fake._streams.clear()
        assert asked_s[6] - asked_s[5] >= 0.5 * 0.01 * 2**5, "the pause doubles, though each stream has said a word"


async def test_a_group_that_is_gone_is_not_heard_any_more_and_one_that_moved_is_heard_there() -> None:
    async with a_roster() as (roster, model, fake, found), a_roster() as (_, _, other, elsewhere):
        fake.say(in_flight_tokens=1)
        other.say(in_flight_tokens=2, incarnation="i-9")
        roster.take([found])
        await until(lambda: model.router.book.account("g0").others_held == 1)
        roster.take([elsewhere])
        await until(lambda: model.router.book.account("g0").others_held == 2)
        roster.take([])
        assert model.directory.groups == []
        num_asked = other.num_asked
        other.hang_up()
        roster.take([found])
        await until(lambda: group_of(model).heard_s)
        assert other.num_asked == num_asked


class Api:
    """An API server that can be away, forget, and be asked who asked."""

    def __init__(self) -> None:
        self.kubernetes = FakeKubernetes()
        self.status: int | None = None  # of each answer, instead of what it would be
        self.events: list[dict[str, Any]] = []  # a watch has these and ends
        self.ends_watches = False
        self.tokens: list[str] = []
        self.num_lists = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        return app

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("authorization", ""))
        assert (request.method, request.path) == (
            "GET",
            "/apis/discovery.k8s.io/v1/namespaces/models/endpointslices",
        ), "the Role allows nothing else"
        if self.status is not None:
            return web.json_response({"kind": "Status", "code": self.status}, status=self.status)
        if request.query.get("watch") != "true":
            self.num_lists += 1
        elif self.events or self.ends_watches:
            events, self.events = self.events, []
            return web.Response(text="".join(f"{json.dumps(event)}\n" for event in events))
        return await self.kubernetes._answer(request)

    def put(self, name: str, *addresses: str, ready: bool = True) -> None:
        ends = [
            {"addresses": [each], "conditions": {"ready": ready}, "targetRef": {"name": f"g{number}-0"}}
            for number, each in enumerate(addresses)
        ]
        labels = {"kubernetes.io/service-name": name.partition(".")[0]}
        manifest = {"metadata": {"name": name, "labels": labels}, "addressType": "IPv4", "endpoints": ends}
        self.kubernetes.put("endpointslices", {**manifest, "ports": [{"name": "http", "port": 8000}]})


@contextlib.asynccontextmanager
async def a_source(tmp_path: Path, pace: SlicePace = QUICK) -> AsyncIterator[tuple[Api, SliceSource, list[list[str]]]]:
    """Yield the API server, a source of the Service `nano`, and the addresses that it found, each time."""
    api, found = Api(), list[list[str]]()
    api.ends_watches = pace is RESYNCS
    token = tmp_path / "token"
    token.write_text("one\n")
    async with served(api.app()) as port:
        access = Access(url=f"http://127.0.0.1:{port}", token_file=token)
        source = SliceSource(
            access, "models", "nano", lambda groups: found.append([each.host for each in groups]), pace=pace
        )
        api.put("nano.a", "10.0.0.1")
        api.put("other.a", "10.9.9.9")
        running = asyncio.create_task(source.run())
        try:
            yield api, source, found
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def test_slices_are_listed_and_followed_and_those_of_other_services_are_not(tmp_path: Path) -> None:
    async with a_source(tmp_path) as (api, _, found):
        await until(lambda: found == [["10.0.0.1"]])
        api.put("nano.a", "10.0.0.1", "10.0.0.2")
        await until(lambda: found[-1] == ["10.0.0.1", "10.0.0.2"])
        api.put("other.a", "10.9.9.8")
        api.put("nano.b", "10.0.0.1", "10.0.0.2", "10.0.0.3")
        await until(lambda: found[-1] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"])
        api.kubernetes.delete(("endpointslices", "models", "nano.b"))
        await until(lambda: found[-1] == ["10.0.0.1", "10.0.0.2"])
        assert api.num_lists == 1


async def test_what_the_api_server_has_forgotten_is_listed_again(tmp_path: Path) -> None:
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410}}
    async with a_source(tmp_path, RESYNCS) as (api, _, found):
        await until(lambda: api.num_lists >= 3)  # time to list again comes round
        assert found[-1] == ["10.0.0.1"]
    async with a_source(tmp_path) as (api, source, found):
        api.events = [gone]
        await until(lambda: api.num_lists >= 2)
        assert source.problem == ""


async def test_an_event_that_ends_a_watch_is_where_the_next_one_begins(tmp_path: Path) -> None:
    bookmark = {"type": "BOOKMARK", "object": {"kind": "EndpointSlice", "metadata": {"resourceVersion": "0"}}}
    async with a_source(tmp_path) as (api, _, found):
        api.events = [bookmark]
        await until(lambda: len(api.tokens) >= 3)
        await until(lambda: found[-1] == ["10.0.0.1"])
        assert api.num_lists == 1


async def test_while_the_api_server_is_away_the_groups_known_hold_on(tmp_path: Path) -> None:
    async with a_source(tmp_path, RESYNCS) as (api, source, found):
        await until(lambda: found)
        api.status = 503
        await until(lambda: source.problem)
        assert "503" in source.problem
        num_found = len(found)
        num_asked = len(api.tokens)
        await until(lambda: len(api.tokens) >= num_asked + 3)
        assert len(found) == num_found
        api.status = None
        api.put("nano.a", "10.0.0.7")
        await until(lambda: found[-1] == ["10.0.0.7"])
        await until(lambda: source.problem == "")


async def test_the_token_is_read_again_as_it_rotates(tmp_path: Path) -> None:
    async with a_source(tmp_path, RESYNCS) as (api, _, _found):
        await until(lambda: "Bearer one" in api.tokens)
        (tmp_path / "token").write_text("two")
        await until(lambda: api.tokens[-1] == "Bearer two")


def test_the_api_server_of_a_cluster_has_an_address_of_either_family() -> None:
    assert Access.in_cluster("10.0.0.1", "443").url == "https://10.0.0.1:443"
    assert Access.in_cluster("fd00::1", "443").url == "https://[fd00::1]:443"


async def test_a_file_is_followed_while_it_is_replaced(tmp_path: Path) -> None:
    path, found = tmp_path / "groups.json", list[list[str]]()
    following = asyncio.create_task(FileSource(path, lambda groups: found.append([each.name for each in groups])).run())
    try:
        for names in (["g0"], ["g0", "g1"], []):
            groups = [{"name": name, "host": "127.0.0.1", "port": 8000} for name in names]
            new = tmp_path / "new"
            new.write_text(json.dumps({"groups": groups}))
            new.replace(path)
            await until(lambda names=names: found and found[-1] == names)  # type: ignore[misc]
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
