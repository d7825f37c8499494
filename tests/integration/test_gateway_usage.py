"""Usage outlives its process, counts once, and holds up no request when the disk is full."""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from glm_gateway.limits.config import BudgetConfig, LimitsConfig
from glm_gateway.limits.limit import Unit
from glm_gateway.limits.memory import MemoryStore
from glm_gateway.limits.reserve import Refusal, Scope
from glm_gateway.limits.tokens import Prices, Usage
from glm_gateway.usage.config import UsageConfig
from glm_gateway.usage.disk.journal import Journal
from glm_gateway.usage.entry import Entry
from glm_gateway.usage.service import UsageService

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
DAY_S = 86_400
DEADLINE_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Disk:
    """The disk under os.write: full while it is said to be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self.num_refused = 0
        self._write = os.write
        monkeypatch.setattr(os, "write", self._answer)

    def _answer(self, descriptor: int, data: bytes) -> int:
        if not self.is_full:
            return self._write(descriptor, data)
        self.num_refused += 1
        self._write(descriptor, data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def config(tmp_path: Path) -> UsageConfig:
    return UsageConfig(folder=tmp_path / "usage", max_unwritten=5)


def entry(number: int, at: float = NOON, **fields: object) -> Entry:
    plain = {"key": "a", "model": "m", "api": "openai", "outcome": "finished", "answer": 1}
    return Entry(id=f"r{number}", at=at, **{**plain, **fields})  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def running(config: UsageConfig, clock: Clock, flush_s: float = 0.01) -> AsyncIterator[UsageService]:
    service = await UsageService.opened(config, clock, flush_s=flush_s)
    try:
        yield service
    finally:
        await service.close(0.0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


def on_disk(config: UsageConfig) -> list[str]:
    journal = Journal(config.folder)
    return [each.id for day in journal.days() for each in journal.entries(day)]


def num_requests(service: UsageService, key: str = "a") -> int:
    return sum(found.num_requests for _, found in service.ledger.sums(key=key))


async def test_an_entry_is_in_the_sums_at_once_and_soon_on_disk(config: UsageConfig, clock: Clock) -> None:
    async with running(config, clock) as service:
        service.take(entry(1))
        assert num_requests(service) == 1
        await until(lambda: service.num_unwritten == 0)
        assert on_disk(config) == ["r1"]


async def test_the_end_returns_when_all_is_on_disk(config: UsageConfig, clock: Clock) -> None:
    service = await UsageService.opened(config, clock, flush_s=3600)
    for number in range(4):
        service.take(entry(number))
    assert on_disk(config) == []
    assert await service.close()
    assert on_disk(config) == ["r0", "r1", "r2", "r3"]


async def test_sums_and_budgets_go_on_in_the_next_process_and_count_once(config: UsageConfig, clock: Clock) -> None:
    async with running(config, clock) as service:
        service.take(entry(1, group_of_keys="t", prompt=99, cost=7))
        service.take(entry(2, NOON - 35 * DAY_S))
    async with running(config, clock) as service:
        service.take(entry(1))  # said again, by whom it does not matter
        assert num_requests(service) == 2
        assert service.spent("group t", Unit.TOKENS, "2026-11") == 100
        limits = LimitsConfig(monthly_budget=BudgetConfig(tokens=100)).limits(Prices())
        store = MemoryStore(service.spent)
        assert isinstance(await store.reserve([Scope("group t", limits)], Usage(answer=1), NOON), Refusal)
    assert on_disk(config) == ["r2", "r1"]


async def test_a_full_disk_holds_up_nothing_and_is_told_once(
    config: UsageConfig, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    async with running(config, clock) as service:
        disk.is_full = True
        service.take(entry(1))
        await until(lambda: disk.num_refused >= 3)
        disk.is_full = False
        await until(lambda: service.num_unwritten == 0)
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.message.rpartition(": ")[2] for record in told] == ["No space left on device"]
    assert on_disk(config) == ["r1"]
    assert (config.folder / "2026-11-29.jsonl").read_bytes().count(b"\n") == 1


async def test_more_than_the_bound_is_counted_as_lost_and_still_in_the_sums(
    config: UsageConfig, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    disk.is_full = True
    service = await UsageService.opened(config, clock, flush_s=3600)
    for number in range(8):
        service.take(entry(number))
    assert (service.num_unwritten, service.num_lost, num_requests(service)) == (5, 3, 8)
    assert sum("more are lost" in record.message for record in caplog.records) == 1
    assert not await service.close(0.0)
    assert "5 entries are lost" in caplog.text


async def test_days_that_are_over_are_dropped_and_the_last_month_is_kept(config: UsageConfig, clock: Clock) -> None:
    journal = Journal(config.folder)
    for number, days in enumerate((500, 399, 70, 30, 0)):
        journal.append(entry(number, NOON - days * DAY_S))
    journal.sync()
    async with running(config, clock) as service:
        assert num_requests(service) == 2
        await until(lambda: len(journal.days()) == 4)
        clock.now += 3 * DAY_S  # into December: October is forgotten, its file is not
        await until(lambda: num_requests(service) == 1)
    assert len(journal.days()) == 3


async def test_a_key_is_told_its_own_usage(config: UsageConfig, clock: Clock) -> None:
    async with running(config, clock) as service:
        service.take(entry(1))
        service.take(entry(2, key="b"))
        answer = service.answer("a", None, None)
        assert isinstance(answer, dict)
        assert answer["total"]["requests"] == 1


def test_a_day_that_was_written_is_not_written_again_for_another_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    (tmp_path / "2026-11-30.jsonl").mkdir()
    journal.append(entry(1))
    journal.append(entry(2, NOON + DAY_S))
    for _ in range(3):
        with pytest.raises(IsADirectoryError):
            journal.sync()
    assert journal.num_unwritten == 1
    assert (tmp_path / "2026-11-29.jsonl").read_bytes().count(b"\n") == 1


def test_a_journal_too_short_for_two_months_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"retentionDays\n.*greater than or equal to 62"):
        UsageConfig.model_validate({"folder": str(tmp_path), "retentionDays": 61})
