"""What the gateway's file says now, where that is to be remembered. Pure."""

import json
from typing import Any

from glm_operator import names
from glm_operator.observe.observed import Observed
from glm_operator.render.gateway import FILE


def models_in_file(deployment: str, observed: Observed) -> list[dict[str, Any]]:
    """Return the models that the file of a deployment's gateway has, its own first; none where there is no file."""
    live = observed.live.get(("v1", "ConfigMap", names.gateway_name(deployment))) or {}
    try:
        models = json.loads((live.get("data") or {}).get(FILE, ""))["models"]
    except (ValueError, LookupError, TypeError):
        return []
    whole = ("name", "deployment", "groups")
    is_read = isinstance(models, list) and all(isinstance(each, dict) and all(map(each.get, whole)) for each in models)
    return models if is_read else []
