"""Laws of models that come and go, over any order of files, requests and ends."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from glm_gateway.config.models import GroupsConfig, ModelConfig
from glm_gateway.groups.directory import Member
from glm_gateway.models.model import Model
from glm_gateway.routing.pick import Choice, Group, Request
from glm_gateway.runtime.models import Models

NAMES = ("a", "b", "c")

a_file = st.tuples(st.just("file"), st.sets(st.sampled_from(NAMES), min_size=1))
a_request = st.tuples(st.just("request"), st.sampled_from(NAMES))
an_end = st.tuples(st.just("end"), st.integers(0, 5))
a_sweep = st.tuples(st.just("sweep"), st.none())


class World:
    """Does what it is told, and checks after each step what must be so."""

    def __init__(self, groups: Path) -> None:
        self.where = GroupsConfig(file=groups)
        self.known: set[str] = set()
        self.under_way: list[tuple[Model, Choice]] = []
        self.wanted: set[str] = set()
        self.models = Models(lambda: None, added=self.add, dropped=self.drop, linger_s=0.0)

    def add(self, model: Model) -> None:
        assert model.name not in self.known, "each begins once"
        self.known.add(model.name)
        model.replace([Member(Group(name=f"{model.name}-g0"), "127.0.0.1", 1)])

    def drop(self, name: str) -> None:
        self.known.remove(name)
        assert name not in self.wanted
        assert all(model.name != name for model, _ in self.under_way), "who has requests is kept"

    async def do(self, what: str, value: object) -> None:
        match what, value:
            case "file", set():
                self.wanted = {str(name) for name in value}
                self.models.take(ModelConfig(name=name, groups=self.where) for name in sorted(self.wanted))
            case "request", str() if value in self.models.served:
                model = self.models.served[value]
                choice = model.route(Request(key="k", prompt_tokens=1))
                assert choice is not None
                self.under_way.append((model, choice))
            case "end", int() if self.under_way:
                model, choice = self.under_way.pop(value % len(self.under_way))
                model.end(choice)
            case "sweep", _:
                await self.models.sweep()
                busy = {model.name for model, _ in self.under_way}
                assert {model.name for model in self.models.running} == self.wanted | busy
        assert set(self.models.served) == self.wanted
        assert {model.name for model in self.models.running} == self.known
        running = {id(model) for model in self.models.running}
        assert all(id(model) in running for model, _ in self.under_way), "a request ends where it began"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(a_file, a_request, an_end, a_sweep), max_size=30))
def test_the_file_is_served_and_whoever_has_requests_stays(steps: list[tuple[str, object]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder) / "none.json")
            for what, value in steps:
                await world.do(what, value)
            await world.models.close()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert all(task.done() for task in left)

    asyncio.run(run())
