"""A model has the fields at a gateway that it has at a worker, for clients ask either."""

import json

import pytest
from jsonschema import Draft202012Validator

from glm_gateway.access.decide import Mode
from glm_gateway.pages.document import document
from glm_gateway.pages.models import models_page
from glm_gateway.pages.page import Page
from glm_gateway.surfaces.routes import Api
from glm_worker.server.edge.answer_schemas import ANSWER_SCHEMAS


@pytest.mark.parametrize("api", list(Api))
def test_a_model_at_a_gateway_has_the_fields_that_a_worker_gives_it(api: Api) -> None:
    name = "Anthropic.Model" if api is Api.ANTHROPIC else "OpenAI.Model"
    page = models_page(api, "m", {"m": 4096}, created=1_700_000_000)
    assert isinstance(page, Page)
    said = json.loads(page.body)
    ours = document(None, mode=Mode.NONE, has_usage=False)["components"]["schemas"][f"Gateway.{name}"]
    assert set(ANSWER_SCHEMAS[name]["properties"]) <= set(ours["properties"]) == set(said)
    for schema in (ANSWER_SCHEMAS[name], ours):
        assert list(Draft202012Validator(schema).iter_errors(said)) == []
