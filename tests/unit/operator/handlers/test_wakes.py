"""Who is due when something of a deployment changes: gateways of others go by what was accepted of it, and runs."""

from typing import Any

import pytest

from glm_operator import names
from glm_operator.cluster.cache import Cache
from glm_operator.handlers.queue import Key, Queue
from glm_operator.handlers.wakes import wake

BLUE = {"alsoServes": {"selector": {"matchLabels": {"team": "blue"}}}}


def a_body(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "models", "uid": f"uid-{name}", "resourceVersion": "1"}
    return {"kind": names.KIND, "metadata": {**metadata, "labels": {"team": name}}, "spec": spec}


async def due(kind: str, name: str) -> set[str]:
    cache, queue = Cache(), Queue()
    for body in (a_body("front", gateway=BLUE), a_body("blue"), a_body("red")):
        cache.put(body)
    wake(queue, cache, kind, ("models", name))
    found = set[str]()
    while len(queue):
        key: Key = await queue.take()
        found.add(key.name)
    return found


@pytest.mark.parametrize("kind", ["ControllerRevision", "StatefulSet"])
async def test_a_gateway_is_due_when_another_deployment_is_accepted_or_moves(kind: str) -> None:
    """Its edit alone comes too early: it is accepted a moment later, and our own write of its status wakes nobody."""
    assert await due(kind, "blue") == {"blue", "front"}


async def test_what_a_gateway_has_itself_is_no_news_to_others() -> None:
    assert await due("StatefulSet", "front") == {"front"}
    assert await due("ControllerRevision", "red") == {"red"}
    assert await due("Pod", "blue") == {"blue"}


async def test_an_edit_is_looked_at_on_both_sides_of_a_gateway() -> None:
    assert await due(names.KIND, "blue") == {"blue", "front"}
    assert await due(names.KIND, "front") == {"front", "blue"}
