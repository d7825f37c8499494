"""The API server's audit log, as tests read it while it is being written."""

import json
from pathlib import Path

from glm_cluster import Cluster
from glm_cluster.paths import Paths

OPERATOR, OTHER = "system:serviceaccount:glm-system:glm", "system:serviceaccount:glm-system:glm-crd"


def line(number: int, user: str) -> str:
    return json.dumps({"auditID": number, "user": {"username": user}}) + "\n"


def test_events_of_a_user_are_read_over_rotated_files_without_the_unfinished_line(tmp_path: Path) -> None:
    cluster = Cluster(Paths(cache=tmp_path / "cache", state=tmp_path / "state"))
    assert cluster.audit_events() == []
    cluster.audit_log.parent.mkdir(parents=True)
    rotated = cluster.audit_log.with_name("audit-2026-11-22T17-45-05.000.jsonl")
    rotated.write_text(line(1, OPERATOR) + line(2, OTHER))
    cluster.audit_log.write_text(line(3, OPERATOR) + line(4, OPERATOR)[:-9])
    assert [event["auditID"] for event in cluster.audit_events(OPERATOR)] == [1, 3]
    assert [event["auditID"] for event in cluster.audit_events()] == [1, 2, 3]
