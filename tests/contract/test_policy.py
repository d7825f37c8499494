"""A policy as the operator makes it is what the worker takes, and both have the same digest of it."""

import json
from typing import Any, cast, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from glm_operator import names
from glm_operator.api import policy as api
from glm_operator.api.policy import EffortTokens, Policy
from glm_operator.observe.report import GroupReport, policy_digest
from glm_operator.render import group_template
from glm_worker.messages import Effort
from glm_worker.messages import Policy as WorkerPolicy
from glm_worker.server import policy as worker
from glm_worker.server.slo import MAX_BODY_BYTES
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.management.health import Role, management_app
from unit.operator.operator_builders import a_deployment, a_layout

TOKENS = st.integers(1, api.MAX_TOKENS)
THRESHOLDS = st.one_of(st.floats(0, 1), st.sampled_from([0, 1]))
EFFORTS = st.dictionaries(st.sampled_from(get_args(Effort)), TOKENS)
ROLES = st.lists(
    st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:/@-]{0,63}\Z"), min_size=1, max_size=api.MAX_ROLES, unique=True
)
SAID: dict[str, st.SearchStrategy[Any]] = {
    "default": st.sampled_from(("Auto", "Enabled", "Disabled")),
    "autoThreshold": THRESHOLDS,
    "maxThinkingTokens": TOKENS,
    "effortTokens": EFFORTS,
    "fields": st.sampled_from(("ReasoningContent", "Both")),
}
OPEN = st.fixed_dictionaries({}, optional={**SAID, "visibility": st.sampled_from(("Visible", "Hidden"))})
BY_ROLE = st.fixed_dictionaries({"visibility": st.just("ByRole"), "visibleTo": ROLES}, optional=SAID)
SPECS = st.one_of(
    st.fixed_dictionaries({}, optional={"reasoning": OPEN, "access": st.just({"trustProxyHeaders": False})}),
    st.fixed_dictionaries({"reasoning": BY_ROLE, "access": st.just({"trustProxyHeaders": True})}),
)


@settings(deadline=None)  # a busy machine is no fault
@given(SPECS)
def test_whatever_the_api_accepts_the_worker_takes_and_both_have_one_digest(spec: dict[str, Any]) -> None:
    made = Policy.model_validate(spec)
    body = made.for_workers()
    taken = worker.parse_policy(json.dumps(body).encode())
    assert worker.policy_digest(taken) == policy_digest(body)
    assert (taken == WorkerPolicy()) is made.is_default


def test_both_have_the_same_limits_and_words() -> None:
    assert (worker.MAX_TOKENS, worker.MAX_ROLES) == (api.MAX_TOKENS, api.MAX_ROLES)
    assert tuple(EffortTokens.model_fields) == worker.EFFORTS
    assert worker.parse_policy(json.dumps(Policy().for_workers()).encode()) == WorkerPolicy()


def test_the_largest_policy_fits_the_body_that_is_read() -> None:
    reasoning = {
        "visibility": "ByRole",
        "visibleTo": [f"{n:02}".ljust(64, "@") for n in range(api.MAX_ROLES)],
        "effortTokens": dict.fromkeys(get_args(Effort), api.MAX_TOKENS),
    }
    made = Policy.model_validate({"reasoning": reasoning, "access": {"trustProxyHeaders": True}})
    body = json.dumps(made.for_workers(), indent=8).encode()
    assert len(body) < MAX_BODY_BYTES / 4
    assert len(worker.parse_policy(body).reasoning.visible_to) == api.MAX_ROLES


def test_the_operator_puts_it_where_the_worker_takes_it_and_finds_the_digest_where_it_is() -> None:
    assert names.POLICY_PATH in {getattr(route, "path", "") for route in management_app(cast(Role, None)).routes}
    report = {"state": "serving", "policy_digest": worker.policy_digest(WorkerPolicy())}
    assert GroupReport.model_validate(report).policy_digest == policy_digest(Policy().for_workers())


def test_the_operator_renders_none_of_it() -> None:
    """A policy that stood in a pod would move groups."""
    settings = {name for name in WorkerSettings.model_fields if name.startswith(("reasoning_", "trust_"))}
    assert len(settings) == 8
    deployment = a_deployment(reasoning={"default": "Auto"}, access={"trustProxyHeaders": True})
    (container,) = group_template(deployment, a_layout(deployment))["spec"]["template"]["spec"]["containers"]
    rendered = {entry["name"] for entry in container["env"]}
    assert rendered & {f"GLM_{name.upper()}" for name in settings} == set()


def test_the_operator_renders_that_it_will_tell_and_nothing_of_what() -> None:
    """So an edit moves no group, and a pod that nobody has told yet is not wider than the deployment."""
    templates = [
        group_template(each, a_layout(each))
        for each in (
            a_deployment(),
            a_deployment(reasoning={"visibility": "Hidden"}, access={"trustProxyHeaders": True}),
        )
    ]
    assert templates[0] == templates[1]
    (container,) = templates[0]["spec"]["template"]["spec"]["containers"]
    assert {"name": "GLM_AWAITS_POLICY", "value": "true"} in container["env"]
    assert WorkerSettings.model_fields["awaits_policy"].default is False, "templates that were kept do not say it"


def test_the_operator_knows_a_worker_that_awaits_a_policy() -> None:
    report = GroupReport.model_validate({"state": "serving", "policy_digest": None, "awaits_policy": True})
    digest = policy_digest(Policy().for_workers())
    assert not report.has_policy(digest, is_default=True)
    assert GroupReport.model_validate({"state": "serving", "policy_digest": None}).has_policy(digest, is_default=True)
