"""The bounds of a JSON body (glm_edge.json_bounds), refused as this server refuses."""

from glm_edge.json_bounds import DEFAULT, JsonBounds, Unfit
from glm_edge.json_bounds import check_json as check
from glm_worker.errors import RequestRefused


def check_json(body: bytes, bounds: JsonBounds = DEFAULT) -> None:
    """Raise RequestRefused for a body that is not read, see glm_edge.json_bounds.check_json."""
    try:
        check(body, bounds)
    except Unfit as error:
        failure = error.failure
        raise RequestRefused(failure.message, param=failure.param, code=failure.code) from None
