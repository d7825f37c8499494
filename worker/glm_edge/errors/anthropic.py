"""Errors in the shape of Anthropic's API."""

from typing import Any

from glm_edge.errors.failure import Failure

Json = dict[str, Any]

OVERLOADED = 529  # where other APIs say 503
_OVERLOADED_CODES = ("overloaded", "no_group_ready")  # no room now, or nobody who could answer
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}
_TOO_LONG = "prompt is too long"  # agents look for it, and make their prompts shorter


def status_of(failure: Failure) -> int:
    """Return the HTTP status of a failure on this surface."""
    return OVERLOADED if failure.code in _OVERLOADED_CODES else failure.status


def error_body(failure: Failure, request_id: str | None = None) -> Json:
    """Return Anthropic's error object. request_id: None in a stream, whose head had it."""
    status = status_of(failure)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    error: Json = {"type": kind, "message": _message(failure)}
    if failure.code is not None:
        error["details"] = {"error_code": failure.code}
    body: Json = {"type": "error", "error": error}
    return body if request_id is None else {**body, "request_id": request_id}


def _message(failure: Failure) -> str:
    """Return the sentence, with the parameter's name in it: the shape has no field for that."""
    message = failure.message
    if failure.param is not None and failure.param not in message:
        message = f"{failure.param}: {message}"
    return f"{_TOO_LONG}: {message}" if failure.code == "context_length_exceeded" else message
