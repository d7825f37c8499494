"""What a pod takes to stop, summed, is within the grace period that the operator renders."""

from typing import Any

import pytest

from glm_operator.render import render
from glm_worker.margins import FOLLOWER_S, LEADER_S
from glm_worker.settings import WorkerSettings
from unit.operator.operator_builders import a_deployment, a_layout


def rendered(accept_s: int, deadline_s: int) -> tuple[WorkerSettings, float]:
    """Return the drain's settings as a pod reads them, and the seconds until it is killed."""
    limits = {"drainAcceptSeconds": accept_s, "drainDeadlineSeconds": deadline_s}
    deployment = a_deployment(engine={"limits": limits})
    spec: dict[str, Any] = render(deployment, a_layout(deployment))[-1]["spec"]["template"]["spec"]
    given = {entry["name"]: entry.get("value", "") for entry in spec["containers"][0]["env"]}
    drains = {name: given[f"GLM_{name.upper()}"] for name in ("drain_accept_s", "readiness_lag_s", "drain_deadline_s")}
    return WorkerSettings(model="m", **drains), spec["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(("accept_s", "deadline_s"), [(0, 0), (5, 120), (60, 600)])
def test_a_pod_that_leads_has_ended_before_it_is_killed(accept_s: int, deadline_s: int) -> None:
    """Also when it was draining already for a pod that leaves, which takes the lag of the probe as well."""
    settings, grace_s = rendered(accept_s, deadline_s)
    drain_s = settings.drain_accept_s + settings.readiness_lag_s + settings.drain_deadline_s
    assert drain_s + LEADER_S < grace_s


@pytest.mark.parametrize(("accept_s", "deadline_s"), [(0, 0), (5, 120), (60, 600)])
def test_a_pod_that_follows_has_ended_before_it_is_killed(accept_s: int, deadline_s: int) -> None:
    settings, grace_s = rendered(accept_s, deadline_s)
    drain_s = settings.drain_accept_s + settings.readiness_lag_s + settings.drain_deadline_s
    assert drain_s + FOLLOWER_S < grace_s
