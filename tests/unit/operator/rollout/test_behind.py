"""Who is looked at when a deployment changes: who serves it as well, and whom it serves."""

from typing import Any

import pytest

from glm_operator.rollout.behind import sharers

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
