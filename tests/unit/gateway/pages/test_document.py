"""The description is one that tools of others read, with a worker's words and without them."""

from typing import Any

import pytest
import schemathesis
from jsonschema import Draft202012Validator

from glm_gateway.access.decide import Mode
from glm_gateway.pages.document import document
from glm_gateway.surfaces.routes import Kind, paths

CHAT = "#/components/schemas/OpenAI.Chat"
OF_WORKER: dict[str, Any] = {
    "paths": {
        "/v1/chat/completions": {
            "post": {
                "summary": "Answer a chat",
                "tags": ["OpenAI"],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": CHAT}}}},
                "responses": {"200": {"description": "An answer."}, "400": {"description": "The worker's own words."}},
            }
        },
        "/group": {"get": {"responses": {"200": {"description": "Nobody's business."}}}},
    },
    "components": {"schemas": {"OpenAI.Chat": {"type": "object"}}},
}


def described(of_worker: Any = None, mode: Mode = Mode.KEYS, *, has_usage: bool = True) -> dict[str, Any]:
    return document(of_worker, mode=mode, has_usage=has_usage, has_traces=True)


@pytest.mark.parametrize("of_worker", [None, OF_WORKER])
def test_it_is_read_by_schemathesis_and_every_reference_leads_somewhere(of_worker: Any) -> None:
    found = described(of_worker)
    schema = schemathesis.openapi.from_dict(found)
    assert len(list(schema.get_all_operations())) == sum(len(item) for item in found["paths"].values())
    for each in found["components"]["schemas"].values():
        Draft202012Validator.check_schema(each)
    for reference in references(found):
        assert reference.removeprefix("#/components/schemas/") in found["components"]["schemas"], reference


def references(value: Any) -> list[str]:
    match value:
        case dict():
            inner = [ref for each in value.values() for ref in references(each)]
            return [*inner, value["$ref"]] if isinstance(value.get("$ref"), str) else inner
        case list():
            return [ref for each in value for ref in references(each)]
        case _:
            return []


def test_a_workers_words_stand_and_its_own_paths_do_not() -> None:
    found = described(OF_WORKER)
    chat = found["paths"]["/v1/chat/completions"]["post"]
    assert chat["summary"] == "Answer a chat"
    assert chat["responses"]["400"]["description"] == "The worker's own words."
    assert "429" in chat["responses"]
    assert "/group" not in found["paths"]


def test_every_path_that_is_somebodys_is_there() -> None:
    pages = {"/openapi.json", "/docs"}
    known = {path for path, each in paths() if not (each.kind is Kind.OWN and (path in pages or "/docs/" in path))}
    assert set(described()["paths"]) == known


def test_what_asks_for_a_key_says_so() -> None:
    found = described()
    assert found["security"] == [{"bearer": []}, {"apiKey": []}]
    assert "401" in found["paths"]["/v1/usage"]["get"]["responses"]
    assert found["paths"]["/health"]["get"]["security"] == []
    assert "401" not in found["paths"]["/health"]["get"]["responses"]


def test_where_no_key_is_asked_for_none_is_spoken_of() -> None:
    found = described(mode=Mode.NONE)
    assert "security" not in found
    assert all("401" not in operation["responses"] for item in found["paths"].values() for operation in item.values())


def test_usage_is_described_only_where_it_is_written_down() -> None:
    assert "/v1/usage" not in described(has_usage=False)["paths"]


def test_only_a_judge_forbids() -> None:
    for mode in (Mode.KEYS, Mode.JWT, Mode.JUDGE):
        chat = described(mode=mode)["paths"]["/v1/chat/completions"]["post"]
        assert ("403" in chat["responses"]) == (mode is Mode.JUDGE)
