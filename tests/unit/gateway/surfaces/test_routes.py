"""A path is one API's or nobody's, and none leads where no client may go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.surfaces.routes import TRACES, Api, Kind, Route, api_of, paths, route


@pytest.mark.parametrize(
    ("path", "api", "kind"),
    [
        ("/v1/chat/completions", Api.OPENAI, Kind.GENERATE),
        ("/v1/completions", Api.OPENAI, Kind.GENERATE),
        ("/v1/responses", Api.OPENAI, Kind.GENERATE),
        ("/v1/messages", Api.ANTHROPIC, Kind.GENERATE),
        ("/v1/messages/count_tokens", Api.ANTHROPIC, Kind.COUNT),
        ("/api/anthropic/v1/messages", Api.ANTHROPIC, Kind.GENERATE),
        ("/api/paas/v4/chat/completions", Api.ZAI, Kind.GENERATE),
        ("/api/coding/paas/v4/chat/completions", Api.ZAI, Kind.GENERATE),
        ("/v1/models", Api.OPENAI, Kind.MODELS),
        ("/tokenize", Api.OPENAI, Kind.COUNT),
        ("/health", Api.OPENAI, Kind.OWN),
    ],
)
def test_each_path_is_of_its_api(path: str, api: Api, kind: Kind) -> None:
    found = route(path)
    assert found is not None
    assert (found.api, found.kind) == (api, kind)
    assert api_of(path) is api


def test_a_stored_response_is_named_and_each_deed_has_its_method() -> None:
    assert route("/v1/responses/resp_g0_1") == Route(Api.OPENAI, Kind.STORED, ("GET", "DELETE"), "resp_g0_1")
    assert route("/v1/responses/resp_g0_1/cancel") == Route(Api.OPENAI, Kind.STORED, ("POST",), "resp_g0_1")
    assert route("/v1/responses/resp_g0_1/other") is None


def test_no_request_by_head_goes_to_a_group() -> None:
    """Its reply says a length and has no body, which the connection to the group would wait for."""
    assert [
        path for path, found in paths() if found.kind not in (Kind.MODELS, Kind.OWN) and "HEAD" in found.methods
    ] == []


def test_a_model_is_named_whatever_stands_in_its_name() -> None:
    found = route("/v1/models/zai-org/GLM-4.5")
    assert found is not None
    assert found.name == "zai-org/GLM-4.5"
    assert route("/v1/models/") is None


def test_who_speaks_anthropic_lists_models_in_its_words() -> None:
    found = route("/v1/models", speaks_anthropic=True)
    assert found is not None
    assert found.api is Api.ANTHROPIC
    other = route("/v1/chat/completions", speaks_anthropic=True)
    assert other is not None
    assert other.api is Api.OPENAI


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//v1/models",
        "/v1//models",
        "/v1/./models",
        "/v1/x/../chat/completions",
        "/v1/chat/completions/",
        "/V1/chat/completions",
        "/v1/chat/completions ",
        "/v1/chat/completions\n",
        "/v1/responses/../metrics",
        "/v1/responses/a/b",
        "/metrics",
        "/drain",
        "/policy",
        "/group",
        "/load",
        "/demand",
        "http://other/v1/models",
    ],
)
def test_what_is_not_in_the_list_is_nobodys(path: str) -> None:
    assert route(path) is None


@given(st.text())
def test_any_text_is_a_path_of_somebody_or_of_nobody(path: str) -> None:
    found = route(path)
    assert found is None or found.methods
    assert api_of(path) in Api


@pytest.mark.parametrize("id_", ["r1", "a/b?c", "x" * 128])
def test_a_trace_is_asked_for_by_any_id_that_a_request_can_have(id_: str) -> None:
    found = route(TRACES + id_)
    assert found is not None
    assert (found.kind, found.name, found.methods) == (Kind.OWN, id_, ("GET", "HEAD"))


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/traces/", "/v1/traces/" + "x" * 129, "//v1/traces/r1"])
def test_no_other_path_is_a_traces(path: str) -> None:
    assert route(path) is None
