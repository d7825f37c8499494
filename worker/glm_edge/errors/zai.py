"""Z.ai's error object: a number of its list as text, and a sentence. Source: docs.z.ai, api-reference/api-code."""

from typing import Any

from glm_edge.errors.failure import Failure

_INTERNAL = "500"
_PARAMETERS = "1210"
_PARAMETER = "1214"  # a parameter, which the sentence names
_CODES = {
    "model_not_found": "1211",
    "chat_not_supported": "1212",
    "missing_required_parameter": "1213",
    "invalid_api_key": "1002",
    "insufficient_quota": "1113",
    "rate_limit_exceeded": "1302",
    "not_found": "1222",
    "method_not_allowed": "1222",
    "generation_lost": "1230",
    "deadline_passed": "1230",
    "context_length_exceeded": "1261",
    "overloaded": "1305",
}


def error_body(failure: Failure) -> dict[str, Any]:
    return {"error": {"code": _code(failure), "message": failure.message}}


def _code(failure: Failure) -> str:
    known = _CODES.get(failure.code or "")
    if known is not None:
        return known
    if failure.status >= 500:
        return _INTERNAL
    return _PARAMETERS if failure.param is None else _PARAMETER
