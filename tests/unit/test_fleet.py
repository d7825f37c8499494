"""Requests of an account, as the stories of a fleet count them and time them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from e2e.audit import first_write, pod_of, split
from e2e.fake_workers import REPORT
from glm_operator.observe.report import GroupReport

BEGAN = datetime(2026, 11, 28, 12, tzinfo=UTC)
ENDED = BEGAN + timedelta(minutes=1)


def an_entry(verb: str, at_s: float, name: str = "", uri: str = "/apis", **about: str) -> dict[str, Any]:
    at = BEGAN + timedelta(seconds=at_s)
    return {
        "auditID": f"{verb}-{name}-{at_s}",
        "requestReceivedTimestamp": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "verb": verb,
        "requestURI": uri,
        "user": {"username": "system:serviceaccount:glm-system:glm"},
        "objectRef": {"resource": "statefulsets", "namespace": "models", "name": name, **about},
    }


def count(*entries: dict[str, Any]) -> tuple[int, int]:
    found = split(entries, BEGAN, ENDED)
    return len(found.watches), len(found.others)


def test_watches_are_counted_apart_from_everything_else() -> None:
    assert count(an_entry("watch", 1), an_entry("list", 2), an_entry("get", 3), an_entry("patch", 4)) == (1, 3)


def test_a_watch_that_begins_and_ends_in_the_window_is_one_request() -> None:
    assert count(an_entry("watch", 1), an_entry("watch", 1)) == (1, 0)


@pytest.mark.parametrize(("at_s", "counted"), [(-0.001, 0), (0, 1), (59.999, 1), (60, 0)])
def test_a_request_belongs_to_the_window_that_it_came_in(at_s: float, counted: int) -> None:
    assert count(an_entry("get", at_s)) == (0, counted)


def test_the_first_write_after_an_edit_is_the_earliest_on_any_object_of_the_deployment() -> None:
    entries = [
        an_entry("patch", 9, "fleet-001-g0"),
        an_entry("patch", 5, "fleet-001", resource="glmdeployments", subresource="status"),
        an_entry("patch", 1, "fleet-001-g0"),
    ]
    found = first_write(entries, "models", "fleet-001", BEGAN + timedelta(seconds=2))
    assert found == entries[1]


@pytest.mark.parametrize(
    "entry",
    [
        an_entry("get", 1, "fleet-001"),
        an_entry("patch", 1, "fleet-0011-g0"),
        an_entry("patch", 1, "fleet-001-g0", namespace="another"),
        an_entry("create", 1, "fleet-001-g0-0", uri="/api/v1/namespaces/models/pods?dryRun=All"),
        an_entry("create", 1, "fleet-001.18c", resource="events"),
        an_entry("create", 1, "fleet-001-abc", resource="events"),
    ],
)
def test_reading_trying_telling_and_other_deployments_are_no_write_for_it(entry: dict[str, Any]) -> None:
    assert first_write([entry], "models", "fleet-001", BEGAN) is None


def test_a_request_tells_which_pod_of_the_account_sent_it() -> None:
    entry = an_entry("list", 1)
    assert pod_of(entry) == ""
    entry["user"]["extra"] = {"authentication.kubernetes.io/pod-name": ["glm-7d9-x"]}
    assert pod_of(entry) == "glm-7d9-x"


def test_what_fake_workers_answer_is_a_report_of_a_group_that_serves() -> None:
    report = GroupReport.model_validate(REPORT)
    assert report.state == "serving"
    assert report.has_served
