"""Failures in the shape of Anthropic's API."""

from typing import Any

import pytest

from glm_edge.errors.anthropic import error_body, status_of
from glm_worker.errors import DeadlinePassed, GenerationLost, Overloaded, RequestRefused
from glm_worker.server.refusals import failure_of


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (RequestRefused("x"), 400, "invalid_request_error"),
        (RequestRefused("x", status=401), 401, "authentication_error"),
        (RequestRefused("x", status=403), 403, "permission_error"),
        (RequestRefused("x", status=404), 404, "not_found_error"),
        (RequestRefused("x", status=405), 405, "invalid_request_error"),
        (RequestRefused("x", status=413), 413, "request_too_large"),
        (RequestRefused("x", status=429), 429, "rate_limit_error"),
        (Overloaded("x", retry_after_s=3), 529, "overloaded_error"),
        (GenerationLost("x"), 503, "api_error"),
        (DeadlinePassed(5), 504, "timeout_error"),
        (RuntimeError("x"), 500, "api_error"),
    ],
)
def test_every_failure_has_the_apis_status_and_type(error: Exception, status: int, kind: str) -> None:
    failure = failure_of(error)
    assert status_of(failure) == status
    body = error_body(failure, "r")
    assert (body["type"], body["error"]["type"], body["request_id"]) == ("error", kind, "r")


def test_an_error_in_a_stream_has_no_request_id() -> None:
    assert set(error_body(failure_of(GenerationLost("x")))) == {"type", "error"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"param": "top_k"}, "top_k: x"),
        ({}, "x"),
        ({"param": "x"}, "x"),
        ({"code": "context_length_exceeded"}, "prompt is too long: x"),
    ],
)
def test_a_message_names_the_parameter_and_agents_read_that_a_prompt_is_too_long(
    fields: dict[str, Any], said: str
) -> None:
    assert error_body(failure_of(RequestRefused("x", **fields)))["error"]["message"] == said


def test_a_code_is_a_detail_and_no_code_is_none() -> None:
    assert error_body(failure_of(RequestRefused("x", code="c")))["error"]["details"] == {"error_code": "c"}
    assert "details" not in error_body(failure_of(RequestRefused("x")))["error"]
