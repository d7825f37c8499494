"""Which models are behind a gateway of this machine."""

from pathlib import Path
from typing import Any

import pytest

from glm_operator.local.gateway.served import is_meant, served
from unit.operator.operator_builders import a_body, a_deployment

ALSO = {"alsoServes": {"selector": {"matchLabels": {"team": "a", "size": "small"}}}}
MEANT = {"team": "a", "size": "small", "more": "x"}


def groups(deployment: str) -> Path:
    return Path(f"/s/{deployment}/groups.json")


def other(name: str, labels: dict[str, str] | None = None, served_name: str = "", **spec: Any) -> dict[str, Any]:
    model = {"name": "glm-nano", "source": "builtin://glm-nano", **({"servedName": served_name} if served_name else {})}
    body = a_body(name, model=model, **spec)
    return {**body, "metadata": {**body["metadata"], "labels": labels or {}}}


def test_a_gateway_serves_its_own_model_and_no_other_unless_it_is_said() -> None:
    found, unserved = served(a_deployment("chat"), [other("chat", MEANT), other("code", MEANT, "code")], groups)
    assert [(each.name, each.deployment, each.groups) for each in found] == [
        ("glm-nano", "chat", {"file": "/s/chat/groups.json", "namespace": "models"})
    ]
    assert unserved == []


def test_what_is_meant_is_behind_it_too_with_its_own_groups_and_promises() -> None:
    bodies = [
        other("draw", MEANT, "draw"),
        other("code", MEANT, "code", slo={"classes": [{"name": "c", "ttft": "1s"}]}),
        other("batch", {"team": "a"}, "batch"),
    ]
    found, unserved = served(a_deployment("chat", gateway=ALSO), bodies, groups)
    assert [(each.name, each.groups["file"]) for each in found] == [
        ("glm-nano", "/s/chat/groups.json"),
        ("code", "/s/code/groups.json"),
        ("draw", "/s/draw/groups.json"),
    ]
    assert [each.name for each in found[1].slo.classes] == ["c"]
    assert unserved == []


def test_who_has_the_name_of_another_model_is_named_with_what_to_do() -> None:
    found, (said,) = served(a_deployment("chat", gateway=ALSO), [other("code", MEANT)], groups)
    assert [each.deployment for each in found] == ["chat"]
    assert said == "code is not behind chat: it serves glm-nano, as chat does; give it a model.servedName"


def test_what_cannot_be_read_any_more_keeps_no_gateway_from_starting() -> None:
    found, (said,) = served(a_deployment("chat", gateway=ALSO), [other("code", MEANT, "code", replicas=-1)], groups)
    assert len(found) == 1
    assert said.startswith("code cannot be read: spec.replicas")


@pytest.mark.parametrize(
    ("metadata", "meant"),
    [
        ({"namespace": "models"}, True),
        ({"namespace": "elsewhere"}, False),
        ({"namespace": "models", "labels": {"team": "a"}}, False),
        ({"namespace": "models", "name": "chat"}, False),
    ],
)
def test_only_neighbours_with_all_labels_are_meant(metadata: dict[str, Any], meant: bool) -> None:
    body = other("code", MEANT)
    assert is_meant(a_deployment("chat", gateway=ALSO), {"metadata": {**body["metadata"], **metadata}}) is meant
