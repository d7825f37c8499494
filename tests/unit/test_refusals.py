"""What the stories make of the API server's audit log."""

from datetime import UTC, datetime
from typing import Any

import pytest

from e2e.refusals import is_fault, refusals, since

QUOTA = 'statefulsets.apps "nano-g0" is forbidden: exceeded quota: full, requested: count/statefulsets.apps=1'
RBAC = 'statefulsets.apps "nano-g0" is forbidden: User "system:serviceaccount:x:y" cannot patch resource "statefulsets"'


def event(code: int | None = 403, **changes: Any) -> dict[str, Any]:
    """Return an event as Kubernetes writes one: by default the quota's refusal that a story asks for."""
    return {
        "level": "Metadata",
        "stage": "ResponseComplete",
        "requestURI": "/apis/apps/v1/namespaces/models-full/statefulsets/nano-g0?fieldManager=glm-operator&force=true",
        "verb": "patch",
        "user": {"username": "system:serviceaccount:glm-system:glm-glm-operator"},
        "objectRef": {"resource": "statefulsets", "namespace": "models-full", "name": "nano-g0", "apiGroup": "apps"},
        "requestReceivedTimestamp": "2026-11-22T17:45:05.000001Z",
        **({"responseStatus": {"code": code, "message": QUOTA}} if code is not None else {}),
        **changes,
    }


def test_what_a_story_asks_for_is_no_fault() -> None:
    limit = {
        "code": 403,
        "message": 'pods "nano-g0-x" is forbidden: maximum memory usage per Container is 4Gi, but ...',
    }
    pods = {"resource": "pods", "namespace": "models-full"}
    assert refusals([event(), event(verb="create"), event(verb="create", objectRef=pods, responseStatus=limit)]) == []


def test_answers_that_refuse_nothing_are_no_fault() -> None:
    of_others = {"resource": "pods", "namespace": "models"}
    assert refusals([event(code, objectRef=of_others) for code in (200, 201, 404, 409, 422, None)]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"objectRef": {"resource": "statefulsets", "namespace": "models"}},
        {"objectRef": {"resource": "services", "namespace": "models-full"}},
        {"objectRef": {"resource": "secrets"}},
        {"verb": "delete"},
        {"responseStatus": {"code": 403, "message": RBAC}},
    ],
)
def test_every_other_403_is_told_with_what_was_asked(changes: dict[str, Any]) -> None:
    (line,) = refusals([event(200), event(**changes)])
    assert line.startswith(f"2026-11-22T17:45:05.000001Z {changes.get('verb', 'patch')} /apis/apps/v1/")
    assert line.endswith(f": {changes.get('responseStatus', {}).get('message', QUOTA)}")


def test_a_path_that_is_no_resource_counts_too() -> None:
    refused = event(requestURI="/metrics", responseStatus={"code": 403})
    del refused["objectRef"]
    assert refusals([refused]) == ["2026-11-22T17:45:05.000001Z patch /metrics: 403"]


def test_what_happened_before_the_run_is_left_out() -> None:
    events = [event(requestReceivedTimestamp=f"2026-11-22T17:45:0{second}.000000Z") for second in (4, 5, 6)]
    assert since(events, datetime(2026, 11, 22, 17, 45, 5, tzinfo=UTC)) == events[1:]


def test_when_its_namespace_goes_after_a_failure_any_write_is_refused() -> None:
    message = f'services "nano" is forbidden: unable to create new content {GOING}'
    services = {"resource": "services", "namespace": "models-full"}
    assert refusals([event(objectRef=services, responseStatus={"code": 403, "message": message})]) == []


ATTEMPT = "2026-11-22 17:45:05,403 ERROR kopf: Request attempt #1/9 failed; will retry: GET https://x/apis -> "
GOING = "in namespace models-full because it is being terminated"


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-22 17:45:05,403 INFO kopf: step 403 of process 403, record nano-7c403",
        f"2026-11-22 17:45:05,001 WARNING glm_operator: {QUOTA}",
        f"2026-11-22 17:45:05,001 ERROR glm_operator: services is forbidden: unable to create new content {GOING}",
        f"{ATTEMPT}APITooManyRequestsError('storage is (re)initializing', {{'code': 429}})",
        f"{ATTEMPT}ServerDisconnectedError()",
    ],
)
def test_a_line_that_tells_of_no_fault(line: str) -> None:
    assert not is_fault(line)


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        "2026-11-22 17:45:05,001 ERROR glm_operator: a pass failed",
        f"2026-11-22 17:45:05,001 WARNING glm_operator: {RBAC}",
        "kubernetes.client.exceptions.ApiException: (403)",
        f"{ATTEMPT}APIForbiddenError('no', {{'code': 403}})",
        f"{ATTEMPT.replace('will retry', 'escalating')}ServerDisconnectedError()",
    ],
)
def test_a_line_that_tells_of_a_fault(line: str) -> None:
    assert is_fault(line)
