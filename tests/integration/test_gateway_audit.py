"""The audit log has each event once, never a secret or a text, and its file holds up nothing."""

import errno
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glm_gateway.audit import log as audit_log
from glm_gateway.audit.config import AuditConfig
from glm_gateway.audit.log import AuditLog

DEADLINE_S = 20.0


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def test_events_are_lines_in_their_order_behind_those_of_the_process_before(file: Path) -> None:
    for life in ("one", "two"):
        audit = AuditLog.opened(AuditConfig(file=file))
        for number in range(100):
            audit.add("config_reloaded", digest=f"{life}{number}")
        audit.close()
    found = lines(file)
    assert [line["digest"] for line in found] == [f"{life}{number}" for life in ("one", "two") for number in range(100)]
    assert found[0].keys() == {"time", "event", "digest"}
    assert file.stat().st_mode & 0o007 == 0


def test_a_full_disk_holds_up_nothing_and_leaves_no_half_of_a_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_log, "AGAIN_S", 0.01)
    caplog.set_level(logging.INFO)
    write, is_full = os.write, True

    def disk(descriptor: int, data: bytes) -> int:
        if not is_full:
            return write(descriptor, data)
        write(descriptor, data[:7])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", disk)
    audit = AuditLog.opened(AuditConfig(file=file))
    began = time.monotonic()
    for number in range(50):
        audit.add("request", number=number)
    assert time.monotonic() - began < 1.0
    until(lambda: "takes nothing" in caplog.text)
    is_full = False
    until(lambda: "written again" in caplog.text)
    audit.close()
    assert [line["number"] for line in lines(file)] == list(range(50))
    assert sum("takes nothing" in record.message for record in caplog.records) == 1


def test_more_than_may_wait_is_counted_as_lost(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_log, "MAX_WAITING", 5)
    audit = AuditLog(AuditConfig(file=file))  # nobody writes yet
    for number in range(8):
        audit.add("request", number=number)
    assert audit.num_lost == 3
    assert sum("are lost" in record.message for record in caplog.records) == 1
    audit.start()
    audit.close()
    assert len(lines(file)) == 5


def test_who_rotates_the_file_loses_nothing(file: Path) -> None:
    audit = AuditLog.opened(AuditConfig(file=file))
    audit.add("request", number=1)
    until(lambda: file.read_text().count("\n") == 1)
    file.rename(file.with_suffix(".1"))
    audit.add("request", number=2)
    audit.close()
    assert [line["number"] for line in lines(file.with_suffix(".1")) + lines(file)] == [1, 2]


def test_the_standard_output_is_a_place_for_it(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    audit = AuditLog.opened(AuditConfig())
    audit.add("gateway_started", version="1")
    audit.close()
    assert json.loads(capfdbinary.readouterr().out)["event"] == "gateway_started"


def test_a_file_that_cannot_be_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        AuditLog.opened(AuditConfig(file=tmp_path))
