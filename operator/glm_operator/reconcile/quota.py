"""What a ResourceQuota says when it refuses a pod: is it full, or could it never hold the pod? Pure."""

import re

from glm_operator.api.quantity import parse_quantity

_EXCEEDED = re.compile(r"exceeded quota: \S+, requested: (\S+), used: \S*, limited: (\S+)")


def would_fit_alone(message: str) -> bool:
    """Tell whether what was refused fits the whole quota: it is only that others, maybe those to be replaced, use it.

    False for every message of another form.
    """
    said = _EXCEEDED.search(message)
    if said is None:
        return False
    try:
        requested, limited = (_resources(text) for text in said.groups())
        return all(parse_quantity(amount) <= parse_quantity(limited[name]) for name, amount in requested.items())
    except (KeyError, ValueError):
        return False


def _resources(text: str) -> dict[str, str]:
    """Read `pods=1,requests.memory=8Gi`."""
    return dict(pair.split("=", 1) for pair in text.split(","))
