"""Who is looked at when a deployment changes: who serves it as well, and whom it serves."""

import json
from dataclasses import replace
from typing import Any

import pytest

from glm_operator.api.front import Front
from glm_operator.observe.observed import Observed, Record
from glm_operator.render.gateway_config import Places, gateway_config
from glm_operator.rollout.behind import Neighbours, served_by, sharers
from unit.operator.operator_builders import a_group, moving_to, observed

BLUE = {"alsoServes": {"selector": {"matchLabels": {"team": "blue"}}}}


def a_body(name: str, namespace: str = "models", gateway: Any = None, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {} if gateway is None else {"gateway": gateway},
    }


BODIES = [
    a_body("chat", gateway=BLUE),
    a_body("code", team="blue"),
    a_body("red", team="red"),
    a_body("far", "others", team="blue"),
    a_body("off", gateway={**BLUE, "enabled": False}, team="blue"),
    a_body("bad", gateway={"alsoServes": {"selector": "blue"}}),
]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("chat", ["code", "off", "bad"]),  # whom it serves, and who says that it serves others: it may be this one
        ("code", ["chat", "off", "bad"]),
        ("bad", ["chat", "off"]),
        ("gone", ["chat", "off", "bad"]),
    ],
)
def test_a_change_of_one_is_looked_at_on_both_sides_of_a_gateway(changed: str, expected: list[str]) -> None:
    assert sharers(("models", changed), BODIES) == [("models", name) for name in expected]


def a_spec(name: str) -> dict[str, Any]:
    return {"model": {"name": "custom", "source": "pvc://weights/m", "servedName": name}}


def accepted(*names: str, running: int = 0) -> Observed:
    """Return a deployment that was accepted under these names, one after the other, and which of them a group runs."""
    records = [
        Record(f"r{number}", number, a_spec(name), f"rev{number}", replicas=1) for number, name in enumerate(names)
    ]
    groups = [a_group(0, revision=f"rev{len(names) - 1}"), a_group(1, revision=f"rev{running}")]
    return replace(observed(*groups), records=tuple(records))


def served(own: Observed, others: dict[str, Observed | None], gateway: Any = None, **known: Any) -> dict[str, Any]:
    """Return the models of the file, each with its former names, as a gateway takes them. own: by its last name."""
    names = [record.spec["model"]["servedName"] for record in own.records]  # type: ignore[index]
    target = replace(moving_to(replicas=2), spec=a_spec(names[-1]), revision=f"rev{len(names) - 1}")
    front = Front.model_validate({"gateway": {**BLUE, **(gateway or {})}})
    bodies = tuple(a_body(name, team="blue") for name in others)
    neighbours = Neighbours(bodies, observed=lambda body: others[body["metadata"]["name"]], **known)
    found, _ = served_by(a_body("chat", gateway=BLUE), target, own, front, neighbours)
    return {model["name"]: model.get("formerNames", []) for model in gateway_config(front, found, Places())["models"]}


def test_a_model_is_known_by_the_names_of_revisions_that_still_run() -> None:
    assert served(accepted("a", "b"), {}) == {"b": ["a"]}
    assert served(accepted("a", "b", "c", running=1), {}) == {"c": ["b"]}, "nobody runs the first"
    assert served(accepted("a", "b", running=1), {}) == {"b": []}
    assert served(accepted("a", "b"), {"code": accepted("x", "y")}) == {"b": ["a"], "y": ["x"]}


def test_a_former_name_is_left_to_whom_it_means_now() -> None:
    assert served(accepted("a", "b"), {"code": accepted("a")}) == {"b": [], "a": []}
    assert served(accepted("a", "b"), {"code": accepted("a", "c")}) == {"b": ["a"], "c": []}, "the own one has it"
    alias = {"names": [{"name": "a", "arms": [{"to": "b"}]}]}
    assert served(accepted("a", "b"), {}, alias) == {"b": []}


def test_what_is_not_known_yet_stays_as_the_file_has_it() -> None:
    file = {
        "models": [
            {"name": "a", "deployment": "chat", "groups": {"service": "chat-worker", "namespace": "models"}},
            {
                "name": "y",
                "deployment": "code",
                "groups": {"service": "code-worker", "namespace": "models"},
                "formerNames": ["x"],
                "token": "t" * 16,
            },
        ]
    }
    live = {("v1", "ConfigMap", "chat-gateway"): {"data": {"gateway.json": json.dumps(file)}}}
    own = replace(accepted("a"), live=live)
    assert served(own, {"code": None}) == {"a": [], "y": ["x"]}, "its records are not there yet"
    assert served(own, {}, are_all=False) == {"a": [], "y": ["x"]}, "it is not there itself yet"
    assert served(own, {}) == {"a": []}, "it is gone"
    assert served(accepted("a"), {"code": None}) == {"a": []}, "nor does the file know it"
