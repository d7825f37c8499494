"""The list of models, and one of them, in the words of each API. Pure."""

from collections.abc import Iterable
from typing import Any

from glm_edge.errors.failure import Failure
from glm_gateway.pages.page import Page, of_json
from glm_gateway.surfaces.routes import Api


def models_page(api: Api, name: str, names: Iterable[str]) -> Page | Failure:
    """Return the model of a name, or the list of all where none is asked for. names: that clients may ask for."""
    known = sorted(set(names))
    if name:
        if name not in known:
            message = f"the model '{name[:100]}' does not exist here"
            return Failure(404, message, "invalid_request_error", code="model_not_found")
        return of_json(_shown(api, name))
    shown = [_shown(api, each) for each in known]
    if api is Api.ANTHROPIC:
        ends = {"first_id": known[0] if known else None, "last_id": known[-1] if known else None}
        return of_json({"data": shown, "has_more": False, **ends})
    return of_json({"object": "list", "data": shown})


def _shown(api: Api, name: str) -> dict[str, Any]:
    if api is Api.ANTHROPIC:
        return {"type": "model", "id": name, "display_name": name}
    return {"id": name, "object": "model", "created": 0, "owned_by": "glm-operator"}
