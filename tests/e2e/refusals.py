"""What the API server refused the operator, in the audit log and in the operator's own. Pure."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

FULL_NAMESPACE = "models-full"
"""Namespace of the story of quotas and limits (test_quota.py)."""

DENIED = re.compile(r"exceeded quota: full\b|maximum memory usage per Container is 4Gi")
"""The refusals that this story brings about, and that the operator is to tell."""

GOING = re.compile(rf"in namespace {FULL_NAMESPACE} because it is being terminated")
"""What any write is told when the story has failed and its namespace goes with a deployment in it."""


FAULT = re.compile(r"Traceback|\(403\)|['\"]code['\"]: 403|[Ff]orbidden|\bERROR\b|\bCRITICAL\b")
"""A 403 is that of a refused call, as the clients of the API write it, not a part of a time or a name."""

TRIED_AGAIN = re.compile(r"Request attempt \S+ failed; will retry(?!.*[Ff]orbidden)")
"""What kopf says, as an error, of a request that the API server did not answer just then."""


def is_fault(line: str) -> bool:
    """Whether a line of the operator's log tells of an error, a traceback or a refused call that no story asked for."""
    return bool(FAULT.search(line)) and not any(told.search(line) for told in (DENIED, GOING, TRIED_AGAIN))


def since(events: Iterable[Mapping[str, Any]], began: datetime) -> list[Mapping[str, Any]]:
    """Return the requests received from then on: the log is as old as the cluster, which others may have used."""
    return [event for event in events if datetime.fromisoformat(event["requestReceivedTimestamp"]) >= began]


def refusals(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line for each request that was answered 403, but for what a story asks for."""
    return [_line(event) for event in events if _code(event) == 403 and not _is_asked_for(event)]


def _code(event: Mapping[str, Any]) -> int:
    return int(event.get("responseStatus", {}).get("code", 0))  # a watch that has only begun has none


def _is_asked_for(event: Mapping[str, Any]) -> bool:
    """Whether a quota or limit of that story refused it, and not RBAC, which speaks of the user."""
    about, message = event.get("objectRef", {}), event["responseStatus"].get("message", "")
    if about.get("namespace") != FULL_NAMESPACE:
        return False
    is_of_a_pod = about.get("resource") in ("statefulsets", "pods") and event["verb"] in ("create", "patch")
    return bool(GOING.search(message)) or (is_of_a_pod and bool(DENIED.search(message)))


def _line(event: Mapping[str, Any]) -> str:
    said = event["responseStatus"].get("message", "403")
    return f"{event['requestReceivedTimestamp']} {event['verb']} {event['requestURI']}: {said}"
