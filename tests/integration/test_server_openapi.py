"""The description of the API is valid, is about this deployment, and every example in it is answered."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
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
    for said in ("2048 tokens", "`enabled`", "at most 77 tokens", "another method a 405"):
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
    num_examples = num_whole = 0
    for path, item in found["paths"].items():
        media = item.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for name, example in media.get("examples", {}).items():
            Draft202012Validator({**found, **media["schema"]}).validate(example["value"])
            response = await world.http.post(path, json=example["value"])
            assert response.status_code == 200, (path, name, response.text)
            is_whole = response.headers["content-type"] == "application/json"
            if is_whole:
                check(found, item["post"], response)
            num_examples += 1
            num_whole += is_whole
    answering.cancel()
    assert num_examples >= 20
    assert num_whole >= 15


def check(found: dict[str, Any], operation: dict[str, Any], response: httpx.Response) -> None:
    """Hold an answer to what the description says of its status: the body, and every header that is always there."""
    described = operation["responses"][str(response.status_code)]
    Draft202012Validator({**found, **described["content"]["application/json"]["schema"]}).validate(response.json())
    always = set(described["headers"]) - {"x-glm-ignored", "x-glm-thinking"}
    assert always <= set(response.headers), operation["summary"]
    assert {name for name in response.headers if name.startswith("x-")} <= set(described["headers"])


async def test_what_is_read_and_deleted_has_the_form_that_is_described(world: ServerWorld) -> None:
    found = await description(world)
    engine = await world.serve()
    answering = asyncio.create_task(answer_all(engine))
    body = {"model": MODEL, "input": "hi", "max_output_tokens": 5, "store": True, "background": True}
    made = (await world.http.post("/v1/responses", json=body)).json()
    names = {"response_id": made["id"], "name": MODEL}
    of_one = "/v1/responses/{response_id}"
    operations = [(path, method) for path, item in found["paths"].items() for method in item if method == "get"]
    operations += [(f"{of_one}/cancel", "post"), (of_one, "delete")]
    for path, method in operations:
        response = await world.http.request(method, path.format(**names))
        assert response.status_code == 200, (path, response.text)
        check(found, found["paths"][path][method], response)
    for path in ("/v1/models", "/v1/models/{name}"):
        response = await world.http.get(path.format(**names), headers={"anthropic-version": "2023-06-01"})
        assert "max_input_tokens" in response.text
    answering.cancel()
    assert len(operations) >= 14


async def test_errors_have_the_form_that_is_described(world: ServerWorld) -> None:
    found = await description(world)
    num_checked = 0
    for path, item in found["paths"].items():
        for method, operation in item.items():
            assert operation["tags"]
            for status in ("400", "408", "431", "500", "503"):
                assert status in operation["responses"], (path, status)
            if "{" in path:
                missing = await world.http.request(method, path.replace("{response_id}", "none").replace("{name}", "x"))
                assert missing.status_code == 404
                check(found, operation, missing)
            if "requestBody" in operation:
                refused = await world.http.post(path, content="[]")
                assert refused.status_code == 400
                check(found, operation, refused)
                num_checked += 1
    await world.unavailable("no weights", 7)
    for path, code in (("/health", 503), ("/v1/chat/completions", 503), ("/v1/messages", 529)):
        item = found["paths"][path]
        method = "post" if "post" in item else "get"
        body = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
        busy = await world.http.request(method, path, json=body)
        assert busy.status_code == code
        assert busy.headers["retry-after"] == "7"
        check(found, item[method], busy)
    assert num_checked >= 10


async def test_every_parameter_of_a_query_and_every_header_of_ours_is_named(world: ServerWorld) -> None:
    paths = (await description(world))["paths"]

    def named(path: str, method: str) -> set[str]:
        return {parameter["name"] for parameter in paths[path][method]["parameters"]}

    assert {"stream", "starting_after"} <= named("/v1/responses/{response_id}", "get")
    assert {"limit", "order", "after"} <= named("/v1/responses/{response_id}/input_items", "get")
    assert {"x-request-id", "x-glm-auto-threshold"} <= named("/v1/chat/completions", "post")
    assert "anthropic-version" in named("/v1/models", "get")


async def answer_all(engine: ScriptedEngine) -> None:
    while True:
        await engine.say(await engine.next_request(), "1", end="<|user|>")
