"""The API server's audit log, as tests read it while it is being written."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from glm_cluster import Cluster
from glm_cluster.paths import Paths

OPERATOR, OTHER = "system:serviceaccount:glm-system:glm", "system:serviceaccount:glm-system:glm-crd"


def line(number: int, user: str, second: int = 0) -> str:
    at = f"2026-11-22T17:45:{second:02}.000000Z"
    event = {"auditID": number, "user": {"username": user}, "requestReceivedTimestamp": at}
    return json.dumps(event, separators=(",", ":")) + "\n"  # as the API server writes it


def test_events_of_a_user_are_read_over_rotated_files_without_the_unfinished_line(tmp_path: Path) -> None:
    cluster = Cluster(Paths(cache=tmp_path / "cache", state=tmp_path / "state"))
    assert cluster.audit_events() == []
    cluster.audit_log.parent.mkdir(parents=True)
    rotated = cluster.audit_log.with_name("audit-2026-11-22T17-45-05.000.jsonl")
    rotated.write_text(line(1, OPERATOR) + line(2, OTHER))
    cluster.audit_log.write_text(line(3, OPERATOR) + line(4, OPERATOR)[:-9])
    assert [event["auditID"] for event in cluster.audit_events(OPERATOR)] == [1, 3]
    assert [event["auditID"] for event in cluster.audit_events()] == [1, 2, 3]


def test_events_since_a_time_are_those_received_then_or_later(tmp_path: Path) -> None:
    cluster = Cluster(Paths(cache=tmp_path / "cache", state=tmp_path / "state"))
    cluster.audit_log.parent.mkdir(parents=True)
    rotated = cluster.audit_log.with_name("audit-2026-11-22T17-45-05.000.jsonl")
    rotated.write_text("what nobody reads: it was written before\n")
    os.utime(rotated, (0, 0))
    cluster.audit_log.write_text("".join(line(second, OPERATOR, second) for second in (1, 2, 3)))
    since = datetime(2026, 11, 22, 17, 45, 2, tzinfo=UTC)
    assert [event["auditID"] for event in cluster.audit_events(OPERATOR, since)] == [2, 3]
