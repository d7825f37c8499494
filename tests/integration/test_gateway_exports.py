"""Days that are over leave the house as files, once, whole, and once for each gateway."""

import asyncio
import csv
import errno
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from glm_gateway.usage.config import ExportConfig, Format
from glm_gateway.usage.disk.journal import Journal
from glm_gateway.usage.entry import Entry
from glm_gateway.usage.exports import AFTER_MIDNIGHT_S, Exports

MIDNIGHT = datetime(2026, 11, 30, tzinfo=UTC).timestamp()
DAY_S = 86_400


def entry(number: int, at: float) -> Entry:
    return Entry(id=f"r{number}", at=at, key="a", model="m", api="openai", outcome="finished", answer=number)


def a_journal(folder: Path, *moments: float) -> Journal:
    journal = Journal(folder)
    for number, at in enumerate(moments):
        journal.append(entry(number + 1, at))
    journal.sync()
    return journal


def exports(folder: Path, journal: Journal, clock: Callable[[], float], *formats: Format) -> Exports:
    return Exports(ExportConfig(folder=folder / "out", formats=formats or tuple(Format)), journal, clock)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out").iterdir())


def test_a_day_is_exported_when_it_is_over_and_not_again(tmp_path: Path) -> None:
    now = MIDNIGHT - 1
    journal = a_journal(tmp_path / "u", now, now, MIDNIGHT - DAY_S - 5)
    found = exports(tmp_path, journal, lambda: now)
    assert found.look() == 2  # the day before, at the start
    now = MIDNIGHT + AFTER_MIDNIGHT_S - 0.1
    assert found.look() == 0
    now = MIDNIGHT + AFTER_MIDNIGHT_S
    assert [found.look(), found.look(), exports(tmp_path, Journal(tmp_path / "u"), lambda: now).look()] == [2, 0, 0]
    id_ = journal.id
    days = ("2026-11-28", "2026-11-29")
    assert names(tmp_path) == sorted(f"usage-{day}-{id_}.{kind}" for day in days for kind in ("csv", "jsonl"))
    with (tmp_path / "out" / f"usage-2026-11-29-{id_}.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["day"], row["requests"], row["answer_tokens"]) == ("2026-11-29", "2", "3")
    (line,) = (tmp_path / "out" / f"usage-2026-11-29-{id_}.jsonl").read_bytes().splitlines()
    assert msgspec.json.decode(line)["answer_tokens"] == 3


def test_two_gateways_that_share_a_folder_count_each_request_once(tmp_path: Path) -> None:
    for name, moments in (("one", (MIDNIGHT - 9, MIDNIGHT - 8)), ("two", (MIDNIGHT - 7,))):
        journal = a_journal(tmp_path / name, *moments)
        assert exports(tmp_path, journal, lambda: MIDNIGHT + DAY_S, Format.JSONL).look() == 1
    rows = [msgspec.json.decode(path.read_bytes()) for path in (tmp_path / "out").iterdir()]
    assert sum(row["requests"] for row in rows) == 3


def test_what_a_full_disk_tore_is_written_whole_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = exports(tmp_path, a_journal(tmp_path / "u", MIDNIGHT - 1), lambda: MIDNIGHT + DAY_S)
    sync = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        found.look()
    assert [name for name in names(tmp_path) if not name.startswith(".")] == []
    monkeypatch.setattr(os, "fsync", sync)
    assert found.look() == 2
    assert [name for name in names(tmp_path) if name.startswith(".")] == []


def test_a_day_waits_for_what_the_journal_could_not_write(tmp_path: Path) -> None:
    journal = a_journal(tmp_path / "u", MIDNIGHT - 2)
    journal.append(entry(9, MIDNIGHT - 1))
    found = exports(tmp_path, journal, lambda: MIDNIGHT + DAY_S, Format.CSV)
    assert found.look() == 0
    journal.sync()
    assert found.look() == 1


async def test_a_folder_that_cannot_be_written_is_told_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "out").write_text("a file, no folder")
    found = exports(tmp_path, a_journal(tmp_path / "u", MIDNIGHT - 1), lambda: MIDNIGHT + DAY_S)
    running = asyncio.create_task(found.run(look_s=0.01))
    async with asyncio.timeout(20):
        while "cannot be written" not in caplog.text:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        (tmp_path / "out").unlink()
        while "written again" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(names(tmp_path)) == 2
    assert sum("cannot be written" in record.message for record in caplog.records) == 1


def test_a_journal_keeps_its_id(tmp_path: Path) -> None:
    first, again, other = Journal(tmp_path / "a"), Journal(tmp_path / "a"), Journal(tmp_path / "b")
    assert first.id == again.id != other.id
    assert len(first.id) == 8
    assert first.days() == []
