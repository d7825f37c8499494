"""The list of models, and one of them, in the words of each API. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from glm_edge.errors.failure import Failure
from glm_gateway.pages.page import Page, of_json
from glm_gateway.surfaces.routes import Api

Lengths: TypeAlias = Mapping[str, int | None]
"""By name, the most tokens that prompt and answer may have together; None: nobody has said so yet."""


def models_page(api: Api, name: str, names: Lengths, *, created: int) -> Page | Failure:
    """Return the model of a name, or the list of all where none is asked for.

    names: that clients may ask for. created: when they began to be served here, in seconds of the epoch.
    """
    known = sorted(names)
    if name:
        if name not in known:
            message = f"the model '{name[:100]}' does not exist here"
            return Failure(404, message, "invalid_request_error", code="model_not_found")
        return of_json(_shown(api, name, names[name], created))
    shown = [_shown(api, each, names[each], created) for each in known]
    if api is Api.ANTHROPIC:
        ends = {"first_id": known[0] if known else None, "last_id": known[-1] if known else None}
        return of_json({"data": shown, "has_more": False, **ends})
    return of_json({"object": "list", "data": shown})


def _shown(api: Api, name: str, max_model_len: int | None, created: int) -> dict[str, Any]:
    if api is Api.ANTHROPIC:
        at = datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
        shown = {"type": "model", "id": name, "display_name": name, "created_at": at, "lifecycle": "active"}
        most = {} if max_model_len is None else dict.fromkeys(("max_input_tokens", "max_tokens"), max_model_len - 1)
        return {**shown, **most}
    length = {} if max_model_len is None else {"max_model_len": max_model_len}
    return {"id": name, "object": "model", "created": created, "owned_by": "glm-operator", **length}
