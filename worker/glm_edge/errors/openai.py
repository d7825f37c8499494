"""OpenAI's error object."""

from typing import Any

from glm_edge.errors.failure import Failure


def error_body(failure: Failure) -> dict[str, Any]:
    return {"error": {"message": failure.message, "type": failure.type, "param": failure.param, "code": failure.code}}
