import json
from typing import Any

import pytest

from glm_edge.errors.failure import Failure
from glm_gateway.pages.models import models_page
from glm_gateway.pages.page import Page
from glm_gateway.surfaces.routes import Api

LENGTHS: dict[str, int | None] = {"b": None, "a": 4096}


def shown(api: Api, name: str = "", names: dict[str, int | None] = LENGTHS) -> Any:
    page = models_page(api, name, names, created=1_700_000_000)
    assert isinstance(page, Page)
    assert page.status == 200
    return json.loads(page.body)


@pytest.mark.parametrize("api", [Api.OPENAI, Api.ZAI])
def test_names_are_listed_in_order(api: Api) -> None:
    assert [each["id"] for each in shown(api)["data"]] == ["a", "b"]


def test_anthropics_list_says_its_ends() -> None:
    found = shown(Api.ANTHROPIC)
    assert (found["first_id"], found["last_id"], found["has_more"]) == ("a", "b", False)
    assert shown(Api.ANTHROPIC, names={})["first_id"] is None


def test_one_model_has_the_shape_of_its_api() -> None:
    assert shown(Api.OPENAI, "a")["object"] == "model"
    assert shown(Api.ANTHROPIC, "a")["type"] == "model"


def test_a_length_that_nobody_knows_is_left_out() -> None:
    assert shown(Api.OPENAI, "a")["max_model_len"] == 4096
    assert "max_model_len" not in shown(Api.OPENAI, "b")
    assert shown(Api.ANTHROPIC, "a")["max_input_tokens"] == 4095
    assert "max_tokens" not in shown(Api.ANTHROPIC, "b")


def test_a_name_that_is_not_there_is_refused_by_name() -> None:
    found = models_page(Api.OPENAI, "c" * 300, {"a": None}, created=0)
    assert isinstance(found, Failure)
    assert (found.status, found.code) == (404, "model_not_found")
    assert "c" * 100 in found.message
    assert "c" * 101 not in found.message
