"""What the gateway would refuse is refused where it is said, by the name of its field."""

from typing import Any

import pytest
from pydantic import ValidationError

from glm_operator.api.front import Front


def refusal(**front: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Front.model_validate(front)
    first = caught.value.errors()[0]
    return f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}"


def upstream(url: str, name: str = "far") -> dict[str, Any]:
    return {"name": name, "url": url, "model": "m"}


@pytest.mark.parametrize("url", ["redis://valkey:99999/0", "redis://valkey:port", "redis://[x:1", "redis://valkey:0"])
def test_a_store_without_an_address_is_refused(url: str) -> None:
    assert refusal(gateway={"store": {"url": url}}).startswith("gateway.store.url: ")


@pytest.mark.parametrize("url", ["http://x:99999/", "http://[:::::]/", "http://x:0"])
def test_urls_without_an_address_are_refused(url: str) -> None:
    assert refusal(gateway={"upstreams": [upstream(url)]}).startswith("gateway.upstreams.0.url: ")
    external = {"auth": "External", "external": {"url": url}}
    assert refusal(access=external).startswith("access.external.url: ")
    oidc = {"auth": "OIDC", "oidc": {"issuer": url, "audience": "a"}}
    assert refusal(access=oidc).startswith("access.oidc.issuer: ")


def test_urls_that_can_be_connected_to_are_taken() -> None:
    urls = ["http://x", "https://[::1]:8443/v1", "https://api.example.com:65535/v1"]
    Front.model_validate({"gateway": {"upstreams": [upstream(url, f"u{n}") for n, url in enumerate(urls)]}})


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ([{"to": "m", "weight": 0}], "have no weight"),
        ([{"to": "m"}, {"to": "m"}], "go twice to m"),
    ],
)
def test_arms_that_lead_nowhere_are_refused(arms: list[dict[str, Any]], said: str) -> None:
    found = refusal(gateway={"names": [{"name": "a", "arms": arms}]})
    assert found.startswith("gateway.names.0: ")
    assert said in found


def test_a_name_is_not_that_of_an_upstream() -> None:
    far = upstream("http://x")
    assert "far is in names and in upstreams" in refusal(
        gateway={"upstreams": [far], "names": [{"name": "far", "arms": [{"to": "m"}]}]}
    )


@pytest.mark.parametrize("wait", ["0s", "0.1ms", "2d"])
def test_a_wait_is_one_that_can_be_kept(wait: str) -> None:
    found = refusal(gateway={"priorities": [{"name": "a", "priority": 1, "keyGroups": ["b"], "wait": wait}]})
    assert "allowed is 1ms to 1d" in found


@pytest.mark.parametrize("part", ["keys", "groups"])
def test_limits_that_are_said_twice_are_refused_and_none_is_passed_over(part: str) -> None:
    """The API server keeps names apart; a file of `glm local` comes past no API server."""
    said = [{"name": "alice", "concurrency": 1}, {"name": "alice", "concurrency": 2}]
    assert f"{part} has alice twice" in refusal(access={"limits": {part: said}})
