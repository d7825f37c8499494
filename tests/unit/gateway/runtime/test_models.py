"""Models come and go while requests run: what has begun ends where it began."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from glm_gateway.config.models import GroupsConfig, ModelConfig
from glm_gateway.groups.directory import Member
from glm_gateway.models.model import Model
from glm_gateway.routing.pick import Group, Request
from glm_gateway.runtime.models import Models


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.added: list[str] = []
        self.dropped: list[str] = []
        self.models = Models(
            changed=lambda: None,
            added=lambda model: self.added.append(model.name),
            dropped=self.dropped.append,
            linger_s=0.0,
        )

    def serve(self, *names: str) -> None:
        self.models.take(self.config(name) for name in names)

    def config(self, name: str) -> ModelConfig:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps({"groups": []}))
        return ModelConfig(name=name, groups=GroupsConfig(file=path))


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    yield found
    await found.models.close()


async def test_the_models_of_a_file_are_served_and_those_it_has_no_more_are_not(world: World) -> None:
    world.serve("one", "two")
    one = world.models.served["one"]
    world.serve("one", "three")
    assert set(world.models.served) == {"one", "three"}
    assert world.models.served["one"] is one, "who stays is not begun anew"
    assert world.added == ["one", "two", "three"]
    await world.models.sweep()
    assert world.dropped == ["two"]


async def test_a_model_is_kept_until_its_last_request_has_ended(world: World) -> None:
    world.serve("one")
    one = world.models.served["one"]
    one.replace([Member(Group(name="g0"), "127.0.0.1", 1)])
    choice = one.route(Request(key="1", prompt_tokens=1))
    assert choice is not None
    world.serve("two")
    await world.models.sweep()
    assert names(world.models.running) == ["one", "two"]
    one.end(choice)
    await world.models.sweep()
    assert names(world.models.running) == ["two"]


async def test_a_model_that_comes_back_in_time_is_the_same(world: World) -> None:
    world.serve("one")
    one = world.models.served["one"]
    world.serve("two")
    world.serve("one", "two")
    await world.models.sweep()
    assert world.models.served["one"] is one
    assert world.dropped == []


def names(models: list[Model]) -> list[str]:
    return [model.name for model in models]
