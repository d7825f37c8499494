"""spec.gateway, spec.access and scaling.zero: what is refused, with what is allowed, and what the gateway is told."""

from typing import Any

import pytest

from glm_gateway.access.who import who_in
from glm_gateway.limits.config import QuotasConfig
from glm_operator.api.access import Access
from glm_operator.api.spec import InvalidSpec, parse_deployment
from unit.operator.operator_builders import a_body

ISSUER = {"issuer": "https://issuer.example.com", "audience": "glm"}
BUDGET = {"default": {"monthlyBudget": {"tokens": 5}}}


def refusal(**spec: Any) -> str:
    with pytest.raises(InvalidSpec) as caught:
        parse_deployment(a_body(**spec))
    return str(caught.value)


@pytest.mark.parametrize(
    ("access", "message"),
    [
        ({"auth": "none"}, "access.auth is 'none'"),
        ({"auth": "OIDC"}, "auth OIDC needs oidc, and only it has oidc"),
        ({"auth": "APIKeys", "oidc": ISSUER}, "only it has oidc"),
        ({"auth": "External"}, "auth External needs external"),
        ({"auth": "None", "keysSecretRef": {"name": "k"}}, "keysSecretRef is for auth APIKeys; auth is None"),
        ({"auth": "OIDC", "oidc": ISSUER | {"issuer": "issuer"}}, "allowed is a URL without user or password"),
        ({"limits": {"default": {"requestsPerMinute": -1}}}, "requestsPerMinute is -1"),
        ({"limits": {"prices": {"prompt": "1,5"}}}, "allowed is an amount as text"),
        ({"limits": {"default": {"monthlyBudget": {}}}}, "a budget has either tokens or money"),
        ({"limits": {"keys": [{"requestsPerMinute": 1}]}}, "name is required"),
    ],
)
def test_access_that_cannot_be_is_refused_with_what_is_allowed(access: dict[str, Any], message: str) -> None:
    assert message in refusal(access=access)


@pytest.mark.parametrize(
    ("gateway", "message"),
    [
        ({"replicas": 0}, "gateway.replicas is 0"),
        ({"overflow": {"upstream": "far"}}, "overflow.upstream far is none of upstreams: none"),
        ({"names": [{"name": "a", "arms": []}]}, "arms is []"),
        ({"names": [{"name": "a", "arms": [{"to": "x"}]}] * 2}, "names has a twice; names must differ"),
        ({"upstreams": [{"name": "far", "url": "ftp://x", "model": "m"}]}, "allowed is a URL"),
        ({"store": {"url": "redis://me:secret@host"}}, "allowed is a URL without user or password"),
        ({"cors": {"origins": ["chat.example.com"]}}, "allowed is an origin"),
        ({"overload": {"shortThoughts": 3}}, "must not fall, in this order"),
        ({"priorities": [{"name": "a", "priority": 1, "keyGroups": ["x", "x"]}]}, "priorities name the group x twice"),
    ],
)
def test_a_gateway_that_cannot_be_is_refused_with_what_is_allowed(gateway: dict[str, Any], message: str) -> None:
    assert message in refusal(gateway=gateway)


def test_limits_need_one_who_counts() -> None:
    limits = {"default": {"requestsPerMinute": 60}}
    assert "set gateway.enabled to true" in refusal(access={"limits": limits}, gateway={"enabled": False})
    several = refusal(access={"limits": limits}, gateway={"replicas": 2})
    assert "gateway.replicas 2 needs gateway.store" in several
    parse_deployment(a_body(access={"limits": limits}, gateway={"replicas": 2, "store": {"url": "redis://valkey"}}))


def test_a_monthly_budget_must_outlive_a_pod() -> None:
    assert "must outlive a pod" in refusal(access={"limits": BUDGET})
    assert "must outlive a pod" in refusal(access={"limits": BUDGET}, gateway={"usage": {}})
    parse_deployment(a_body(access={"limits": BUDGET}, gateway={"usage": {"claimName": "usage"}}))


def test_zero_groups_need_a_gateway_that_holds_requests() -> None:
    scaling = {"min": 0, "max": 1}
    assert "needs the gateway" in refusal(scaling=scaling, gateway={"enabled": False})
    parse_deployment(a_body(scaling=scaling))


def test_the_gateway_reads_the_limits_as_they_were_said() -> None:
    access = Access.model_validate(
        {
            "limits": {
                "default": {"requestsPerMinute": 60, "concurrency": 0},
                "keys": [{"name": "alice", "monthlyBudget": {"money": "250.00"}, "shadow": True}],
                "groups": [{"name": "research", "cachedWeight": 0.5}],
                "prices": {"prompt": "0.60", "cached": "0.11", "answer": "2.20"},
                "pricesByModel": [{"model": "GLM-4.5-Air", "prompt": "0.2"}],
            }
        }
    )
    assert access.limits is not None
    read = QuotasConfig.model_validate(access.limits.for_gateway())
    assert (read.default.requests_per_minute, read.default.concurrency) == (60, 0)
    assert read.keys["alice"].shadow
    assert read.keys["alice"].monthly_budget is not None
    assert read.keys["alice"].monthly_budget.money == "250.00"
    assert read.groups["research"].cached_weight == 0.5
    assert read.prices is not None
    assert read.prices.cached == "0.11"
    assert read.prices_by_model["GLM-4.5-Air"].prompt == "0.2"
    assert QuotasConfig.model_validate(Access.model_validate({"limits": {}}).limits.for_gateway()) == QuotasConfig()  # type: ignore[union-attr]


SUBJECTS = ["alice", "a.b-c", "0", "auth0|5f7c8ec7", "Alice@Example.com", "CN=Ada Lovelace,O=Example", "x" * 255]
GROUPS = ["research", "Research/Blue", "sg|1", "x" * 64]


def test_a_limit_is_for_whomever_a_gateway_may_know() -> None:
    """Names of keys, and what issuers and judges say, as the gateway reads it."""
    limits = {"keys": [{"name": name} for name in SUBJECTS], "groups": [{"name": name} for name in GROUPS]}
    parse_deployment(a_body(access={"limits": limits}))
    access = Access.model_validate({"limits": limits})
    assert access.limits is not None
    read = QuotasConfig.model_validate(access.limits.for_gateway())
    assert (list(read.keys), list(read.groups)) == (SUBJECTS, GROUPS)
    for name in SUBJECTS:
        assert who_in({"sub": name}, name="sub", group=None, role=None).name == name
    for name in GROUPS:
        assert who_in({"sub": "a", "g": [name]}, name="sub", group="g", role=None).group == name


@pytest.mark.parametrize(
    ("kind", "name", "allowed"),
    [
        ("keys", "a\nb", "allowed is visible ASCII characters, with spaces between them only"),
        ("keys", " a", "with spaces between them only"),
        ("keys", "x" * 256, "255"),
        ("keys", "", "visible ASCII"),
        ("groups", "a b", "allowed is visible ASCII characters"),
        ("groups", "x" * 65, "64"),
    ],
)
def test_a_limit_for_a_name_that_nobody_has_is_refused(kind: str, name: str, allowed: str) -> None:
    assert allowed in refusal(access={"limits": {kind: [{"name": name}]}})
