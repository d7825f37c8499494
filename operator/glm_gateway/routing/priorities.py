"""The classes of callers that the gateway's file names. Pure."""

from collections.abc import Iterable

from glm_gateway.routing.classes import Classes, PriorityClass
from glm_gateway.routing.config import PriorityConfig


def classes_of(priorities: Iterable[PriorityConfig]) -> Classes:
    """Return the classes, each known by the groups of keys that are in it."""
    named = list(priorities)
    return Classes(
        (PriorityClass(name=each.name, priority=each.priority, promise_s=each.promise_seconds) for each in named),
        {group: each.name for each in named for group in each.key_groups},
    )
