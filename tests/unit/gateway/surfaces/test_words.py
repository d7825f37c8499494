"""An error of the gateway has the shape that clients of each API read."""

import json

import pytest

from glm_edge.errors.failure import Failure
from glm_gateway.surfaces.routes import Api
from glm_gateway.surfaces.words import Words

BUSY = Failure(503, "no group is ready — try again", "service_unavailable", code="overloaded", retry_after_s=3)


@pytest.mark.parametrize(
    ("api", "status", "body"),
    [
        (
            Api.OPENAI,
            503,
            {"error": {"message": BUSY.message, "type": "service_unavailable", "param": None, "code": "overloaded"}},
        ),
        (Api.ZAI, 503, {"error": {"code": "1305", "message": BUSY.message}}),
        (
            Api.ANTHROPIC,
            529,
            {
                "type": "error",
                "error": {
                    "type": "overloaded_error",
                    "message": BUSY.message,
                    "details": {"error_code": "overloaded"},
                },
                "request_id": "r1",
            },
        ),
    ],
)
def test_an_error_has_the_shape_of_its_api(api: Api, status: int, body: object) -> None:
    told_status, told = Words(api, "r1").body(BUSY)
    assert (told_status, json.loads(told)) == (status, body)


@pytest.mark.parametrize("api", Api)
def test_the_last_event_of_a_stream_is_one_whole_event(api: Api) -> None:
    event = Words(api, "r1").event(BUSY).decode()
    assert event.endswith("\n\n")
    name, _, data = event.rpartition("data: ")
    assert name == ("event: error\n" if api is Api.ANTHROPIC else "")
    assert BUSY.message in json.loads(data)["error"]["message"]


@pytest.mark.parametrize("api", Api)
def test_the_id_of_a_request_is_told_where_clients_of_its_api_look(api: Api) -> None:
    names = {name for name, value in Words(api, "r1").id_headers if value == b"r1"}
    assert names == ({b"x-request-id", b"request-id"} if api is Api.ANTHROPIC else {b"x-request-id"})


def test_anthropics_clients_are_told_that_nobody_is_there_as_they_are_that_there_is_no_room() -> None:
    status, told = Words(Api.ANTHROPIC, "r1").body(Failure(503, "m", "service_unavailable", code="no_group_ready"))
    assert (status, json.loads(told)["error"]["type"]) == (529, "overloaded_error")
