"""OpenAI's error object."""

from typing import Any

from glm_worker.server.refusals import Failure


def error_body(failure: Failure) -> dict[str, Any]:
    return {"error": {"message": failure.message, "type": failure.type, "param": failure.param, "code": failure.code}}
