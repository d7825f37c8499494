"""What an account asked the API server for, and when, as the audit log has it. Pure.

An entry's time is when the request reached the API server. A watch has two entries, for its begin and its end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Entry = Mapping[str, Any]

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
POD_NAME = "authentication.kubernetes.io/pod-name"
"""What the token of a pod's service account says beside the account."""


def received(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry["requestReceivedTimestamp"])


def requests(entries: Iterable[Entry], began: datetime, ended: datetime | None = None) -> list[Entry]:
    """Return the first entry of each request of that time, the earliest request first."""
    by_id: dict[str, Entry] = {}
    for entry in entries:
        if began <= received(entry) and (ended is None or received(entry) < ended):
            by_id.setdefault(entry["auditID"], entry)
    return sorted(by_id.values(), key=received)


@dataclass(frozen=True)
class Split:
    """The requests of a window: watches, which are renewed when their time is up, and everything else."""

    watches: tuple[Entry, ...]
    others: tuple[Entry, ...]


def split(entries: Iterable[Entry], began: datetime, ended: datetime) -> Split:
    asked = requests(entries, began, ended)
    return Split(
        watches=tuple(entry for entry in asked if entry["verb"] == "watch"),
        others=tuple(entry for entry in asked if entry["verb"] != "watch"),
    )


def is_write(entry: Entry) -> bool:
    """Whether the request changes something: a dry run does not."""
    return entry["verb"] in WRITES and "dryRun=" not in entry["requestURI"]


def is_about(entry: Entry, namespace: str, deployment: str) -> bool:
    """Whether the request names a GLMDeployment or one of its objects. An Event tells of it and is none."""
    about = entry.get("objectRef", {})
    name = str(about.get("name", ""))
    is_its_own = name == deployment or name.startswith(f"{deployment}-")
    return bool(is_its_own and about.get("namespace") == namespace and about.get("resource") != "events")


def first_write(entries: Iterable[Entry], namespace: str, deployment: str, since: datetime) -> Entry | None:
    """Return the first request from then on that changes the deployment or one of its objects."""
    asked = requests(entries, since)
    return next((entry for entry in asked if is_write(entry) and is_about(entry, namespace, deployment)), None)


def pod_of(entry: Entry) -> str:
    """Return the pod whose token the request came with; empty for another kind of token."""
    extra = entry["user"].get("extra") or {}
    return str(next(iter(extra.get(POD_NAME, [])), ""))


def line(entry: Entry) -> str:
    return f"{entry['requestReceivedTimestamp']} {entry['verb']} {entry['requestURI']}"
