"""A new file holds at once, but for what needs a new start, which is named."""

from typing import Any

import pytest

from glm_gateway.config.changes import FIXED, held_back, merged
from glm_gateway.config.config import GatewayConfig

LEAST: dict[str, Any] = {"auth": {"mode": "None"}, "models": [{"name": "chat", "groups": {"file": "/g"}}]}
LIVE = {
    "models",
    "upstreams",
    "names",
    "priorities",
    "overload",
    "hold",
    "continuation",
    "quotas",
    "trace",
    "cors",
    "drain_seconds",
}


def config(**fields: Any) -> GatewayConfig:
    return GatewayConfig.model_validate({**LEAST, **fields})


def test_each_field_is_either_looked_at_once_or_can_change() -> None:
    assert set(GatewayConfig.model_fields) == LIVE | FIXED
    assert not LIVE & FIXED


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, []),
        ({"hold": {"maxHeld": 1}, "drainSeconds": 1}, []),
        ({"managementPort": 1}, ["managementPort"]),
        ({"auth": {"mode": "Keys", "keysFolder": "/k"}, "port": 1}, ["auth", "port"]),
        ({"usage": {"folder": "/u"}, "hold": {"maxHeld": 1}}, ["usage"]),
    ],
)
def test_what_needs_a_new_start_is_named_as_the_file_names_it(fields: dict[str, Any], named: list[str]) -> None:
    assert held_back(config(), config(**fields)) == named


def test_what_can_change_is_taken_and_the_rest_stays() -> None:
    found = merged(config(port=1), config(port=2, hold={"maxHeld": 7}))
    assert (found.port, found.hold.max_held) == (1, 7)
    assert held_back(found, config(port=1)) == []
