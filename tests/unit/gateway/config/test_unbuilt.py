"""What the gateway does not do yet is refused by name, never taken and passed over."""

import pytest

from glm_gateway.config.config import GatewayConfig
from glm_gateway.config.unbuilt import NOT_BUILT, unbuilt

LEAST = {"auth": {"mode": "None"}, "models": [{"name": "chat", "groups": {"file": "/g"}}]}


def test_every_name_on_the_list_is_a_field_of_the_file() -> None:
    for name in NOT_BUILT:
        part = GatewayConfig.model_json_schema(by_alias=True)
        definitions = part["$defs"]
        for step in name.split("."):
            assert step in part["properties"], name
            found = part["properties"][step]
            found = found.get("items", found)
            referred = [each["$ref"] for each in (found, *found.get("anyOf", ())) if "$ref" in each]
            part = definitions[referred[0].rpartition("/")[2]] if referred else {"properties": {}}


@pytest.mark.parametrize("said", [{}, {"tls": None, "upstreams": [], "workers": {"tlsFolder": None}}])
def test_nothing_said_is_nothing_refused(said: dict[str, object]) -> None:
    assert unbuilt(GatewayConfig.model_validate({**LEAST, **said})) == []
