"""Requests that the end of a drain cut are added up over all pods of the gateway that there ever were."""

from dataclasses import replace
from typing import Any

from glm_operator.observe.gateway import GatewayPod
from glm_operator.status.cuts import gateway_status
from glm_operator.status.summary import summarize
from unit.operator.operator_builders import a_group, observed
from unit.operator.status_builders import facts


def told(previous: dict[str, Any] | None = None, **cut: int | None) -> dict[str, Any]:
    """Return the status after a pass in which these pods are there; None: one says nothing."""
    pods = tuple(GatewayPod(name, name, "10.0.0.1", is_ready=True, is_leaving=False) for name in cut)
    seen = replace(observed(a_group(0)), gateway=pods)
    said = {name: number for name, number in cut.items() if number is not None}
    return summarize(facts(observed=seen, cut=said, previous=previous or {}))


def num_cut(status: dict[str, Any]) -> int | None:
    found: int | None = status.get("gateway", {}).get("cutRequests")
    return found


def test_what_no_pod_tells_is_not_known_and_no_zero() -> None:
    assert gateway_status(facts()) is None
    assert num_cut(told(a=None)) is None
    assert num_cut(told(a=0)) == 0


def test_what_each_pod_counts_is_added_up_once() -> None:
    status = told(a=2, b=1)
    assert num_cut(status) == 3
    status = told(status, a=2, b=1)
    assert num_cut(status) == 3, "a second look at the same counts"
    assert num_cut(told(status, a=5, b=1)) == 6


def test_what_a_pod_has_told_stays_when_it_is_silent_gone_or_began_anew() -> None:
    status = told(a=2)
    assert num_cut(told(status, a=None)) == 2
    assert num_cut(told(told(status, a=None), a=3)) == 3
    assert num_cut(told(status, b=1)) == 3, "another pod in its place"
    assert num_cut(told(status, a=1)) == 3, "the same pod began to count anew"


def test_pods_that_are_gone_are_kept_nowhere_but_in_the_sum() -> None:
    status = told(told(a=2), b=1)
    assert status["gateway"] == {"cutRequests": 3, "pods": [{"name": "b", "cutRequests": 1}]}


def test_what_a_hand_has_written_into_the_status_counts_as_far_as_it_can_be_read() -> None:
    by_hand = {"gateway": {"cutRequests": 3, "pods": [{}, {"name": "a"}, {"name": "b", "cutRequests": 1}]}}
    assert num_cut(told(by_hand, a=1, b=2)) == 5
