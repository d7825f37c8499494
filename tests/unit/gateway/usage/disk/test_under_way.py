"""Whatever dies, and wherever: a request counts once, and of what it used no more than the last second is lost."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_gateway.limits.limit import Unit
from glm_gateway.usage.config import ExportConfig, Format, UsageConfig
from glm_gateway.usage.disk.journal import Journal
from glm_gateway.usage.disk.under_way import UnderWay
from glm_gateway.usage.entry import Entry
from glm_gateway.usage.exports import AFTER_MIDNIGHT_S, Exports
from glm_gateway.usage.ledger import Ledger
from glm_gateway.usage.service import UsageService

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
MIDNIGHT = NOON + 12 * 3600
SINCE = "2026-11-28"


def entry(id_: str, tokens: int, *, at: float = NOON, is_partial: bool = False) -> Entry:
    outcome = "failed" if is_partial else "finished"
    return Entry(id=id_, at=at, key="a", model="m", api="openai", outcome=outcome, answer=tokens, is_partial=is_partial)


class Death(BaseException):
    """The process is killed at this step."""


@contextlib.contextmanager
def dying_after(num_steps: int) -> Iterator[None]:
    """Kill whoever writes after so many steps that a disk can see; a write at which it happens is torn."""
    left, write = num_steps, os.write

    def step() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Death

    def torn(descriptor: int, data: bytes) -> int:
        if left <= 0:
            write(descriptor, data[: len(data) // 2])
        step()
        return write(descriptor, data)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            step()
            return call(*args, **kwargs)

        return counting

    with (
        patch.object(os, "write", torn),
        patch.object(os, "fsync", counted(os.fsync)),
        patch.object(Path, "rename", counted(Path.rename)),
        patch.object(Path, "unlink", counted(Path.unlink)),
    ):
        yield


@dataclass(eq=False)
class Process:
    """A gateway. used: of requests under way; ended: of those that have ended."""

    folder: Path
    used: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.service = UsageService(UsageConfig(folder=self.folder), Journal(self.folder), lambda: NOON)

    def start(self) -> None:
        self.service._rebuild()

    def tick(self) -> dict[str, int]:
        """Write as each second; return what is safe from now on."""
        safe = self.used | self.ended
        under_way = [entry(id_, tokens, is_partial=True) for id_, tokens in self.used.items() if tokens]
        for each in self.service._exchange(under_way, SINCE):
            self.service._count(each)
        return safe

    def take_over(self) -> None:
        for each in self.service._recover():
            self.service._count(each)

    def end(self, id_: str) -> None:
        self.ended[id_] = self.used.pop(id_)
        self.service.take(entry(id_, self.ended[id_]))

    def die(self) -> None:
        self.service._journal.close()  # as the kernel does


class Deaths:
    """Two processes with one folder, which come, count and die at any step of what they write.

    true: what each request has used. safe: what of it was on disk by the end of a second.
    """

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.processes = [self._started(), self._started()]
        self.true: dict[str, int] = {}
        self.safe: dict[str, int] = {}

    def teardown(self) -> None:
        self.count()
        for process in self.processes:
            process.die()
        self.folder.cleanup()

    def begin(self, who: int, tokens: int) -> None:
        id_ = f"r{len(self.true)}"
        self._process(who).used[id_] = self.true[id_] = tokens + 1

    def go_on(self, who: int, tokens: int, which: int) -> None:
        if used := self._process(who).used:
            id_ = sorted(used)[which % len(used)]
            used[id_] += tokens
            self.true[id_] += tokens

    def end(self, who: int, which: int) -> None:
        if used := self._process(who).used:
            self._process(who).end(sorted(used)[which % len(used)])

    def tick(self, who: int) -> None:
        self.safe |= self._process(who).tick()

    def kill_who_writes(self, who: int, num_steps: int, num_ended: int) -> None:
        process = self._process(who)
        if num_ended % 2:
            self.safe |= process.tick()
        for id_ in sorted(process.used)[:num_ended]:
            process.end(id_)
        with dying_after(num_steps), contextlib.suppress(Death):
            self.safe |= process.tick()
        self._replace(process)

    def kill_who_takes_over(self, who: int, num_steps: int) -> None:
        other = self._process(who + 1)
        self.safe |= other.tick()
        other.die()
        process = self._process(who)
        with dying_after(num_steps), contextlib.suppress(Death):
            process.take_over()
        self._replace(process)
        self.processes[self.processes.index(other)] = self._started()

    def _process(self, who: int) -> Process:
        return self.processes[who % len(self.processes)]

    def _started(self) -> Process:
        process = Process(Path(self.folder.name))
        process.start()
        return process

    def _replace(self, process: Process) -> None:
        """Have it die, and another one begin."""
        process.die()
        self.processes[self.processes.index(process)] = self._started()

    def count(self) -> None:
        """Count what there would be if all died now."""
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(self.folder.name, folder, dirs_exist_ok=True)
            last = Process(Path(folder))
            last.start()
            counted, (tokens, requests) = _by_id(last.service.journal), _totals(last.service.ledger)
            last.die()
        assert requests == len(counted), "once each"
        assert tokens == sum(counted.values()) == last.service.spent("key a", Unit.TOKENS, "2026-11")
        assert all(tokens <= self.true[id_] for id_, tokens in counted.items())
        assert all(counted.get(id_, 0) >= tokens for id_, tokens in self.safe.items())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "go_on", "end", "tick", "kill_who_writes", "kill_who_takes_over", "count"]),
        st.integers(0, 1),
        st.integers(0, 6),
        st.integers(0, 3),
    ),
    min_size=10,
    max_size=30,
)


@given(STEPS)
@settings(deadline=None, max_examples=100)
def test_a_request_counts_once_and_loses_a_second_at_most(steps: list[tuple[str, int, int, int]]) -> None:
    deaths = Deaths()
    for name, *numbers in steps:
        step = getattr(deaths, name)
        step(*numbers[: step.__code__.co_argcount - 1])
    deaths.teardown()


def _by_id(journal: Journal) -> dict[str, int]:
    found: dict[str, int] = {}
    for day in journal.days():
        for each in journal.entries(day):
            if not each.is_partial or each.id not in found:
                found[each.id] = each.answer
    return found


def _totals(ledger: Ledger) -> tuple[int, int]:
    sums = [found for _, found in ledger.sums()]
    return sum(found.usage.total for found in sums), sum(found.num_requests for found in sums)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["partial first", "whole first"])
def test_what_an_entry_says_at_its_end_counts_in_place_of_what_was_partial(order: tuple[int, int]) -> None:
    both = entry("r", 5, is_partial=True), entry("r", 9, at=NOON + 60)
    ledger = Ledger()
    for at in order:
        ledger.add(both[at])
    assert _totals(ledger) == (9, 1)


def test_one_process_writes_no_file_of_another_and_all_read_all(tmp_path: Path) -> None:
    first, second = Process(tmp_path), Process(tmp_path)
    first.start()
    second.start()
    for number, process in enumerate((first, second)):
        process.used = {f"r{number}": number + 1}
        process.end(f"r{number}")
        process.tick()
    first.tick()
    assert sorted(path.name for path in tmp_path.glob("2026*")) == ["2026-11-29.1.jsonl", "2026-11-29.jsonl"]
    assert _totals(first.service.ledger) == _totals(second.service.ledger) == (3, 2)
    assert first.service.journal.id == second.service.journal.id
    first.die()
    third = Process(tmp_path)
    third.start()
    assert (third.service.journal.writer, _totals(third.service.ledger)) == (0, (3, 2))


def test_what_a_living_process_has_under_way_is_left_to_it(tmp_path: Path) -> None:
    first, second = Process(tmp_path), Process(tmp_path)
    first.used = {"r": 7}
    first.tick()
    second.take_over()
    assert _totals(second.service.ledger) == (0, 0)
    first.die()
    second.take_over()
    assert _totals(second.service.ledger) == (7, 1)
    second.take_over()
    assert _totals(second.service.ledger) == (7, 1)


@contextlib.contextmanager
def failing(call: str) -> Iterator[None]:
    """Have a call of the system fail."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    with patch(call, fail), pytest.raises(OSError, match="Input/output"):
        yield


def test_what_was_taken_over_counts_although_the_disk_failed_in_the_middle(tmp_path: Path) -> None:
    first, second = Process(tmp_path), Process(tmp_path)
    first.used = {"r": 7}
    first.tick()
    first.die()
    with failing("pathlib.Path.unlink"):
        second.take_over()
    second.take_over()
    assert _totals(second.service.ledger) == (7, 1)
    assert second.service.spent("key a", Unit.TOKENS, "2026-11") == 7


def test_a_living_process_takes_nothing_over_from_itself_whatever_its_disk_does(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.start()
    process.used = {"r": 7}
    with failing("glm_gateway.usage.disk.files.sync_folder"):
        process.tick()
    assert (tmp_path / "under-way-0.jsonl").exists()
    process.take_over()
    assert _totals(process.service.ledger) == (0, 0)
    process.die()


def test_a_process_begins_with_what_a_dead_one_left_while_the_disk_takes_nothing(tmp_path: Path) -> None:
    first = Process(tmp_path)
    first.used = {"r": 7}
    first.tick()
    first.die()
    second = Process(tmp_path)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with patch.object(os, "write", full):
        second.start()
        assert _totals(second.service.ledger) == (7, 1)
        second.used = {"s": 3}
        with pytest.raises(OSError, match="No space"):
            second.tick()
        with pytest.raises(OSError, match="No space"):
            second.take_over()
    second.take_over()
    second.tick()
    assert _totals(second.service.ledger) == (7, 1)
    second.die()
    third = Process(tmp_path)
    third.start()
    assert _totals(third.service.ledger) == (10, 2)


def test_the_file_of_what_is_under_way_is_as_large_as_that_and_is_gone_at_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    under_way = UnderWay(journal)
    sizes = set()
    for tokens in range(100, 200):
        assert under_way.write([entry(f"r{number}", tokens, is_partial=True) for number in range(8)])
        sizes.add((tmp_path / "under-way-0.jsonl").stat().st_size)
    assert len(sizes) == 1
    assert not under_way.write([entry(f"r{number}", 199, at=NOON + 1, is_partial=True) for number in range(8)])
    assert under_way.write([])
    assert list(tmp_path.glob("under-way*")) == []


def test_a_day_is_exported_when_nothing_of_it_is_under_way_any_more(tmp_path: Path) -> None:
    first = Process(tmp_path / "u")
    first.used = {"r": 7}
    first.tick()
    first.die()
    second = Journal(tmp_path / "u")
    config = ExportConfig(folder=tmp_path / "out", formats=(Format.CSV,))
    second.write([entry("s", 1)])
    exports = Exports(config, second, lambda: MIDNIGHT + AFTER_MIDNIGHT_S)
    assert exports.look() == 0
    second.close()
    third = Process(tmp_path / "u")
    third.start()
    assert Exports(config, third.service.journal, lambda: MIDNIGHT + AFTER_MIDNIGHT_S).look() == 1
    (file,) = (tmp_path / "out").iterdir()
    assert ",2,1," in file.read_text(), "two requests, one of which failed"


def test_a_day_of_which_no_request_has_ended_is_exported_when_it_is_taken_over(tmp_path: Path) -> None:
    first, second = Process(tmp_path / "u"), Process(tmp_path / "u")
    first.used = {"r": 7}
    first.tick()
    first.die()
    config = ExportConfig(folder=tmp_path / "out", formats=(Format.CSV,))
    exports = Exports(config, second.service.journal, lambda: MIDNIGHT + AFTER_MIDNIGHT_S)
    assert exports.look() == 0
    second.take_over()
    assert exports.look() == 1


def test_a_volume_without_locks_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    with patch("fcntl.flock", none), pytest.raises(OSError, match="no locks"):
        Journal(tmp_path)
