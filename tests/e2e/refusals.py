"""What the API server refused a service account, as its audit log has it. Pure."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

FULL_NAMESPACE = "models-full"
"""Namespace of the story of quotas and limits (test_quota.py)."""

ASKED_FOR = re.compile(r"exceeded quota: full\b|maximum memory usage per Container is 4Gi")
"""The refusals that this story brings about, and that the operator is to tell."""


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
    about = event.get("objectRef", {})
    return (
        about.get("namespace") == FULL_NAMESPACE
        and about.get("resource") in ("statefulsets", "pods")
        and event["verb"] in ("create", "patch")
        and ASKED_FOR.search(event["responseStatus"].get("message", "")) is not None
    )


def _line(event: Mapping[str, Any]) -> str:
    said = event["responseStatus"].get("message", "403")
    return f"{event['requestReceivedTimestamp']} {event['verb']} {event['requestURI']}: {said}"
