"""What a gateway tells itself, asked over real sockets before a real server: its version, its description, its docs."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio
import schemathesis
from jsonschema import Draft202012Validator

from glm_edge.version import VERSION
from integration.gateway_world import TOKEN, a_gateway, member
from integration.no_tls import NO_TLS
from integration.server_world import DEADLINE_S, MODEL, a_server


@pytest_asyncio.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        a_server(tmp_path, gateway_token=TOKEN, group="g0") as server,
        a_gateway(MODEL, [member("g0", server.port)]) as (url, _),
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS) as http,
    ):
        await server.serve()
        yield http


async def test_the_version_is_told(http: httpx.AsyncClient) -> None:
    assert (await http.get("/version")).json() == {"version": VERSION}


async def test_the_description_has_the_workers_words_of_every_path_and_is_read_by_schemathesis(
    http: httpx.AsyncClient,
) -> None:
    found: dict[str, Any] = (await http.get("/openapi.json")).json()
    assert "No worker could be asked" not in found["info"]["description"]
    chat = found["paths"]["/v1/chat/completions"]["post"]
    reference = chat["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert reference.removeprefix("#/components/schemas/") in found["components"]["schemas"]
    undescribed = [
        path
        for path, item in found["paths"].items()
        if "post" in item and "requestBody" not in item["post"] and not path.endswith("/cancel")
    ]
    assert undescribed == []
    schema = schemathesis.openapi.from_dict(found)
    assert len(list(schema.get_all_operations())) > 20


async def test_its_own_pages_have_the_form_that_is_described(http: httpx.AsyncClient) -> None:
    found = (await http.get("/openapi.json")).json()
    for path in ("/v1/models", f"/v1/models/{MODEL}", "/api/paas/v4/models", "/health", "/version"):
        response = await http.get(path)
        said = found["paths"][path.replace(MODEL, "{name}")]["get"]["responses"][str(response.status_code)]
        schema = said["content"]["application/json"]["schema"]
        Draft202012Validator({**found, **schema}).validate(response.json())
        assert set(said["headers"]) <= set(response.headers)


async def test_the_page_to_try_it_is_whole(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"):
        response = await http.get(f"/docs/{name}")
        assert response.status_code == 200, name
        assert response.headers["cache-control"] == "max-age=86400"
    assert (await http.get("/docs/other.js")).status_code == 404


async def test_a_gateway_without_a_group_still_describes_itself() -> None:
    async with (
        a_gateway(MODEL, []) as (url, _),
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS) as http,
    ):
        found = (await http.get("/openapi.json")).json()
        assert "No worker could be asked" in found["info"]["description"]
        assert len(list(schemathesis.openapi.from_dict(found).get_all_operations())) > 20
        refused = await http.get("/v1/usage")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
