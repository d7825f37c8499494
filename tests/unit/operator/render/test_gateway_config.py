"""The gateway's file as the operator writes it: read by the gateway itself, and saying what the spec said."""

from dataclasses import replace
from typing import Any

from glm_gateway.access.decide import Mode
from glm_gateway.config.config import GatewayConfig
from glm_operator.api.front import Front
from glm_operator.api.slo import Slo
from glm_operator.render.gateway_config import Places, Served, gateway_config, in_cluster

OWN = Served("glm-nano", "nano", in_cluster("nano", "models"))


def read(**front: Any) -> tuple[dict[str, Any], GatewayConfig]:
    told = gateway_config(Front.model_validate(front), [OWN], Places())
    return told, GatewayConfig.model_validate(told)


def test_who_says_nothing_gets_keys_and_defaults() -> None:
    told, config = read()
    assert set(told) == {"auth", "models"}
    assert config.auth.mode is Mode.KEYS
    assert config.models[0].groups.service == "nano-worker"
    assert config.models[0].deployment == "nano"


def test_all_that_a_spec_can_say_is_in_the_file() -> None:
    _, config = read(
        access={
            "auth": "OIDC",
            "oidc": {"issuer": "https://issuer.example.com", "audience": "glm", "groupClaim": "team"},
            "limits": {"default": {"requestsPerMinute": 60}},
        },
        scaling={"min": 0, "max": 2, "zero": {"holdTimeout": "90s", "maxHeld": 5}},
        gateway={
            "maxContinuations": 0,
            "drainSeconds": 30,
            "tlsSecretRef": {"name": "tls"},
            "names": [{"name": "chat", "arms": [{"to": "glm-nano", "weight": 9}, {"to": "far"}]}],
            "upstreams": [
                {"name": "far", "url": "https://x.example/v1", "model": "m", "keySecretRef": {"name": "s", "key": "k"}}
            ],
            "overflow": {"upstream": "far", "after": "1500ms"},
            "priorities": [{"name": "batch", "priority": 10, "keyGroups": ["batch"], "wait": "1m"}],
            "overload": {"shed": 9, "maxThinkingTokens": 64},
            "store": {"url": "redis://valkey:6379/0", "passwordSecretRef": {"name": "s", "key": "p"}},
            "usage": {"claimName": "usage", "export": ["JSONL", "CSV"]},
            "audit": {"requests": True},
            "trace": {"keepSeconds": 60},
            "cors": {"origins": ["https://chat.example.com"]},
        },
    )
    assert (config.auth.mode, config.auth.jwt and config.auth.jwt.group_claim) == (Mode.JWT, "team")
    assert config.quotas.default.requests_per_minute == 60
    assert (config.hold.timeout_seconds, config.hold.max_held) == (90, 5)
    assert (config.continuation.max_times, config.drain_seconds) == (0, 30)
    assert config.tls is not None
    assert [(arm.to, arm.weight) for arm in config.names[0].arms] == [("glm-nano", 9), ("far", 1)]
    assert str(config.upstreams[0].key_file) == "/etc/glm/upstreams/far"
    assert config.models[0].overflow is not None
    assert config.models[0].overflow.after_seconds == 1.5
    assert config.priorities[0].promise_seconds == 60
    assert (config.overload.shed, config.overload.max_thinking_tokens) == (9, 64)
    assert config.store is not None
    assert str(config.store.password_file) == "/etc/glm/store/password"
    assert config.usage is not None
    assert config.usage.export is not None
    assert config.audit is not None
    assert config.audit.requests
    assert (config.trace.enabled, config.trace.keep_seconds) == (True, 60)
    assert config.cors is not None


def test_the_newest_revision_has_its_part_only_where_one_was_said() -> None:
    own = replace(OWN, revision="r2")
    other = Served("glm-air", "air", in_cluster("air", "models"), uid="u")
    for said, expected in (
        ({"weight": 10}, {"revision": "r2", "weight": 10}),
        ({"weight": 0, "mayFall": False}, {"revision": "r2", "weight": 0, "mayFall": False}),
    ):
        told = gateway_config(Front.model_validate({"gateway": {"canary": said}}), [own, other], Places())
        assert [model.get("canary") for model in told["models"]] == [expected, None], "of its own deployment"
    assert "canary" not in gateway_config(Front(), [own], Places())["models"][0]


def test_promises_are_those_that_workers_get() -> None:
    slo = Slo.model_validate({"classes": [{"name": "chat", "ttft": "1s", "match": {"thinking": "Disabled"}}]})
    told = gateway_config(Front(), [Served("m", "d", in_cluster("d", "n"), slo)], Places())
    config = GatewayConfig.model_validate(told)
    assert config.models[0].slo is not None
    assert config.models[0].slo.classes[0].thresholds_s == {"ttft": 1.0}


def test_a_judge_is_asked_as_the_spec_says() -> None:
    _, config = read(access={"auth": "External", "external": {"url": "http://judge/", "timeout": "500ms"}})
    assert config.auth.judge is not None
    assert (config.auth.judge.timeout_seconds, config.auth.judge.cache_seconds) == (0.5, 10)
