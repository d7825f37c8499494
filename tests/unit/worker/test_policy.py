"""Which policies a worker takes, from a body and from settings, and what it says of the others."""

import json
from typing import Any

import msgspec
import pytest

from glm_worker.errors import ConfigError, RequestRefused
from glm_worker.messages import Policy, ReasoningPolicy
from glm_worker.server.policy import EFFORTS, MAX_ROLES, MAX_TOKENS, LivePolicy, parse_policy, policy_digest, policy_of
from glm_worker.server.thinking.resolve import EFFORT_TOKENS
from glm_worker.server.thinking.visibility import visible
from glm_worker.server.thinking.wish import ThinkingWish
from glm_worker.settings import WorkerSettings, read_settings


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WorkerSettings.model_fields:
        monkeypatch.delenv(f"GLM_{name.upper()}", raising=False)


def body(trust_proxy_headers: bool = False, **reasoning: Any) -> bytes:
    return json.dumps({"reasoning": reasoning, "trust_proxy_headers": trust_proxy_headers}).encode()


def refusal(raw: bytes) -> str:
    with pytest.raises(RequestRefused) as caught:
        parse_policy(raw)
    assert caught.value.status == 422
    return caught.value.message


def test_an_empty_body_is_the_default() -> None:
    assert parse_policy(b"{}") == Policy() == LivePolicy().current


def test_what_is_said_is_what_holds() -> None:
    roles = {"visibility": "by_role", "visible_to": ["developer", "ops@eu"]}
    found = parse_policy(body(True, default="auto", auto_threshold=1, effort_tokens={"xhigh": 9}, **roles))
    assert found.trust_proxy_headers
    assert (found.reasoning.default, found.reasoning.auto_threshold) == ("auto", 1.0)
    assert (found.reasoning.effort_tokens, found.reasoning.visible_to) == ({"xhigh": 9}, ["developer", "ops@eu"])


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "the body cannot be read as a policy: "),
        (b"\xff", "the body cannot be read as a policy: "),
        (b"[]", "the body cannot be read as a policy: "),
        (body(default="maybe"), "the body cannot be read as a policy: Invalid enum value 'maybe'"),
        (body(effort_tokens={"max": 3}), "the body cannot be read as a policy: Invalid enum value 'max'"),
        (b'{"visibility": "hidden"}', "the body cannot be read as a policy: Object contains unknown field"),
        (body(auto_threshold=1.01), "reasoning.auto_threshold is 1.01; allowed is 0 to 1"),
        (body(auto_threshold=-1), "reasoning.auto_threshold is -1; allowed is 0 to 1"),
        (body(max_thinking_tokens=0), f"reasoning.max_thinking_tokens is 0; allowed is 1 to {MAX_TOKENS}"),
        (body(max_thinking_tokens=MAX_TOKENS + 1), f"is {MAX_TOKENS + 1}; allowed is 1 to {MAX_TOKENS}"),
        (body(effort_tokens={"low": 0}), f"low of reasoning.effort_tokens is 0; allowed is 1 to {MAX_TOKENS}"),
        (body(True, visibility="by_role"), "is by_role and reasoning.visible_to is empty; name the roles"),
        (body(visibility="by_role", visible_to=["a"]), "is by_role and trust_proxy_headers is false; roles come in"),
        (body(visibility="hidden", visible_to=["a"]), "names roles and reasoning.visibility is hidden; it must be"),
        (body(True, visibility="by_role", visible_to=["a b"]), "has the role 'a b'; allowed are 1 to 64 letters"),
        (body(True, visibility="by_role", visible_to=["a" * 65]), "allowed are 1 to 64 letters"),
        (body(True, visibility="by_role", visible_to=["a", "b", "a"]), "has the role a twice"),
        (body(True, visibility="by_role", visible_to=[f"r{n}" for n in range(MAX_ROLES + 1)]), "has 33 roles; at most"),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_allowed(raw: bytes, said: str) -> None:
    assert said in refusal(raw)


def test_a_digest_is_of_what_is_said_and_not_of_how() -> None:
    shuffled = b'{"trust_proxy_headers": false, "reasoning": {"auto_threshold": 0.50, "default": "template"}}'
    assert policy_digest(parse_policy(shuffled)) == policy_digest(Policy())
    others = [body(auto_threshold=0.6), body(True), body(effort_tokens={"low": 1}), body(visibility="hidden")]
    digests = {policy_digest(parse_policy(each)) for each in (b"{}", *others)}
    assert len(digests) == len(others) + 1
    assert all(len(each) == 16 for each in digests)


def test_settings_that_say_nothing_are_the_default() -> None:
    assert policy_of(read_settings(model="m")) == Policy()


def test_the_setting_of_efforts_says_what_holds_for_those_that_it_does_not_name() -> None:
    said = WorkerSettings.model_fields["reasoning_effort_tokens"].description or ""
    assert ",".join(f"{effort}={tokens}" for effort, tokens in EFFORT_TOKENS.items()) in said


def test_every_part_of_a_policy_has_a_setting() -> None:
    settings = read_settings(
        model="m",
        reasoning_default="auto",
        reasoning_auto_threshold="0.25",
        reasoning_max_tokens="512",
        reasoning_effort_tokens="low=64, high = 4096",
        reasoning_visibility="by_role",
        reasoning_visible_to="developer, ops",
        reasoning_fields="both",
        trust_proxy_headers="true",
    )
    said = policy_of(settings)
    assert said.reasoning == ReasoningPolicy(
        default="auto",
        auto_threshold=0.25,
        max_thinking_tokens=512,
        effort_tokens={"low": 64, "high": 4096},
        visibility="by_role",
        visible_to=["developer", "ops"],
        fields="both",
    )
    assert said.trust_proxy_headers
    default = Policy()
    assert all(
        getattr(said.reasoning, name) != getattr(default.reasoning, name) for name in said.reasoning.__struct_fields__
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"reasoning_auto_threshold": "2"}, "GLM_REASONING_AUTO_THRESHOLD=2: "),
        ({"reasoning_default": "on"}, "GLM_REASONING_DEFAULT=on: "),
        ({"reasoning_max_tokens": "-1"}, "GLM_REASONING_MAX_TOKENS=-1: "),
        ({"reasoning_effort_tokens": "low"}, "GLM_REASONING_EFFORT_TOKENS has 'low'; allowed is EFFORT=TOKENS"),
        ({"reasoning_effort_tokens": "huge=1"}, f"efforts are {', '.join(EFFORTS)}"),
        ({"reasoning_effort_tokens": "low=1,low=2"}, "GLM_REASONING_EFFORT_TOKENS has low twice"),
        ({"reasoning_effort_tokens": "low=0"}, "low of GLM_REASONING_EFFORT_TOKENS is 0; allowed is 1 to"),
        ({"reasoning_effort_tokens": "low=1,"}, "GLM_REASONING_EFFORT_TOKENS has ''"),
        ({"reasoning_visible_to": "a"}, "GLM_REASONING_VISIBLE_TO names roles and GLM_REASONING_VISIBILITY is visible"),
        (
            {"reasoning_visibility": "by_role"},
            "GLM_REASONING_VISIBILITY is by_role and GLM_REASONING_VISIBLE_TO is empty",
        ),
        (
            {"reasoning_visibility": "by_role", "reasoning_visible_to": "a"},
            "GLM_REASONING_VISIBILITY is by_role and GLM_TRUST_PROXY_HEADERS is false",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy_of(read_settings(model="m", **given))
    assert said in str(caught.value)


def test_whoever_waits_to_be_told_shows_reasoning_to_nobody_and_keeps_tenants_apart() -> None:
    said = {"reasoning_visibility": "by_role", "reasoning_visible_to": "dev", "trust_proxy_headers": "true"}
    for settings in ({}, said, {"reasoning_max_tokens": "512"}):
        policy = policy_of(read_settings(model="m", awaits_policy="true", **settings))
        assert (policy.reasoning.visibility, policy.trust_proxy_headers) == ("hidden", True)
        assert not any(visible(policy.reasoning, role, ThinkingWish()) for role in (None, "dev"))
        told = policy_of(read_settings(model="m", **settings))
        assert policy.reasoning.max_thinking_tokens == told.reasoning.max_thinking_tokens
        parse_policy(msgspec.json.encode(policy))  # it is one that could be put
