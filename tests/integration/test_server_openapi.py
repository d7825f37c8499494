"""The description of the API is valid, is about this deployment, and every example in it is answered."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from integration.server_world import MODEL, ScriptedEngine, ServerWorld, a_server


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ServerWorld]:
    async with a_server(tmp_path, reasoning_max_tokens=77) as world:
        yield world


async def description(world: ServerWorld) -> dict[str, Any]:
    response = await world.http.get("/openapi.json")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def references(value: Any) -> list[str]:
    match value:
        case dict():
            inner = [ref for each in value.values() for ref in references(each)]
            return [*inner, value["$ref"]] if isinstance(value.get("$ref"), str) else inner
        case list():
            return [ref for each in value for ref in references(each)]
        case _:
            return []


async def test_it_names_the_model_its_limits_and_its_modes(world: ServerWorld) -> None:
    info = (await description(world))["info"]
    assert info["title"] == MODEL
    for said in ("2048 tokens", "`enabled`", "at most 77 tokens"):
        assert said in info["description"]


async def test_every_endpoint_that_reads_a_body_has_its_schema_and_every_reference_leads_somewhere(
    world: ServerWorld,
) -> None:
    found = await description(world)
    schemas = found["components"]["schemas"]
    for reference in references(found):
        assert reference.removeprefix("#/components/schemas/") in schemas, reference
    for name, schema in schemas.items():
        Draft202012Validator.check_schema(schema)
        assert name
    posts = {path for path, item in found["paths"].items() if "post" in item}
    described = {path for path in posts if "requestBody" in found["paths"][path]["post"]}
    assert {path for path in posts - described if not path.endswith("/cancel")} == set()


async def test_every_example_is_valid_and_answered(world: ServerWorld) -> None:
    found = await description(world)
    engine = await world.serve()
    answering = asyncio.create_task(answer_all(engine))
    num_examples = 0
    for path, item in found["paths"].items():
        media = item.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for name, example in media.get("examples", {}).items():
            Draft202012Validator({**found, **media["schema"]}).validate(example["value"])
            response = await world.http.post(path, json=example["value"])
            assert response.status_code == 200, (path, name, response.text)
            num_examples += 1
    answering.cancel()
    assert num_examples >= 20


async def answer_all(engine: ScriptedEngine) -> None:
    while True:
        await engine.say(await engine.next_request(), "1", end="<|user|>")
