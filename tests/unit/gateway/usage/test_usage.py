"""An entry counts once, whatever died in between, and leaves the house as it was written."""

import csv
import io
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.limits.tokens import PICO, Usage
from glm_gateway.usage.disk.journal import Journal
from glm_gateway.usage.entry import Entry, entry_in, line_of
from glm_gateway.usage.export import as_csv, as_json_lines
from glm_gateway.usage.ledger import Account, Ledger, Sum

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
DAY_S = 86_400


def entry(number: int, **fields: object) -> Entry:
    plain = {"at": NOON, "key": "a", "model": "m", "api": "openai", "outcome": "finished"}
    return Entry(id=f"r{number}", **{**plain, **fields})  # type: ignore[arg-type]


entries = st.builds(
    entry,
    st.integers(0, 20),
    at=st.floats(NOON - 3 * DAY_S, NOON),
    key=st.sampled_from(["a", "b"]),
    prompt=st.integers(0, 9),
    answer=st.integers(0, 9),
    outcome=st.sampled_from(["finished", "failed", "refused", "cancelled"]),
)


@given(entries)
def test_an_entry_is_read_as_it_was_written(written: Entry) -> None:
    assert entry_in(line_of(written)) == written


@given(entries, st.data())
def test_a_line_that_was_torn_is_no_entry(written: Entry, data: st.DataObject) -> None:
    line = line_of(written)
    assert entry_in(line[: data.draw(st.integers(0, len(line) - 1))]) is None


@given(st.lists(entries, max_size=20), st.lists(st.integers(0, 19), max_size=20))
def test_an_entry_counts_once_however_often_it_is_read(written: list[Entry], again: list[int]) -> None:
    by_day_and_id = {(each.day, each.id): each for each in reversed(written)}
    ledger = Ledger()
    ledger.add_all(written)
    ledger.add_all(written[at] for at in again if at < len(written))
    total = sum((found for _, found in ledger.sums()), Sum())
    assert total.num_requests == len(by_day_and_id)
    assert total.usage == sum((each.usage for each in by_day_and_id.values()), Usage())


def test_sums_are_of_a_day_a_month_or_a_key() -> None:
    ledger = Ledger()
    ledger.add_all(
        [entry(1), entry(2, key="b"), entry(3, at=NOON - DAY_S, outcome="failed"), entry(4, at=NOON - 40 * DAY_S)]
    )
    assert [account for account, _ in ledger.sums(month="2026-11", key="a")] == [
        Account("2026-11-28", "a", "m"),
        Account("2026-11-29", "a", "m"),
    ]
    assert dict(ledger.sums(day="2026-11-28"))[Account("2026-11-28", "a", "m")].num_failed == 1
    ledger.forget_before("2026-11-29")
    assert [account.day for account, _ in ledger.sums()] == ["2026-11-29", "2026-11-29"]


def test_sums_stay_when_the_ids_of_a_day_are_forgotten() -> None:
    ledger = Ledger()
    ledger.add_all([entry(1), entry(2, at=NOON - DAY_S)])
    ledger.forget_ids_before("2026-11-29")
    assert not ledger.add(entry(1))
    assert sum((found for _, found in ledger.sums()), Sum()).num_requests == 2


def test_what_was_synced_is_there_for_the_next_process(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append(entry(1))
    journal.append(entry(2, at=NOON - DAY_S))
    assert journal.sync() == 2
    assert journal.sync() == 0
    after = Journal(tmp_path / "journal")
    assert after.days() == ["2026-11-28", "2026-11-29"]
    assert [each.id for each in after.entries("2026-11-29")] == ["r1"]
    assert list(after.entries("2026-11-27")) == []


def test_a_line_that_was_torn_by_a_death_takes_no_other_along(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(entry(1))
    journal.sync()
    path = tmp_path / "2026-11-29.jsonl"
    path.write_bytes(path.read_bytes() + line_of(entry(2))[:20])
    journal.close()
    after = Journal(tmp_path)
    after.append(entry(3))
    after.sync()
    assert [each.id for each in after.entries("2026-11-29")] == ["r1", "r3"]


def test_entries_that_a_full_disk_did_not_take_are_written_later_and_count_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    for number in range(3):
        journal.append(entry(number))
    write, sync = os.write, os.fsync

    def full(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", write)
        write(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        journal.sync()
    monkeypatch.setattr(os, "fsync", sync)
    assert journal.sync() == 3
    ledger = Ledger()
    ledger.add_all(Journal(tmp_path).entries("2026-11-29"))
    assert [found.num_requests for _, found in ledger.sums()] == [3]


def test_what_others_wrote_is_read_again_after_one_of_their_files_could_not_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, *others = (Journal(tmp_path) for _ in range(3))
    assert list(ours.fresh("")) == []
    for number, other in enumerate(others):
        other.append(entry(number))
        other.sync()
    opens = Path.open

    def refuse(path: Path, *how: str) -> Any:
        if path.name.endswith(".2.jsonl"):
            raise OSError(5, "input/output error")
        return opens(path, *how)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(OSError, match="input/output"):
            list(ours.fresh(""))
    assert sorted(each.id for _, each in ours.fresh("")) == ["r0", "r1"]


def test_files_of_days_that_are_over_are_dropped_when_asked(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(entry(1))
    journal.append(entry(2, at=NOON - DAY_S))
    journal.sync()
    journal.drop_before("2026-11-29")
    assert journal.days() == ["2026-11-29"]


def test_nobody_but_the_gateway_reads_its_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(entry(1))
    journal.sync()
    assert (tmp_path / "2026-11-29.jsonl").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("export", [as_csv, lambda sums: as_json_lines(sums).decode()])
def test_sums_leave_the_house_whole_and_exact(export: Callable[..., str]) -> None:
    ledger = Ledger()
    ledger.add(entry(1, prompt=7, cached=2, answer=5, thinking=3, cost=PICO + 1, e2e_s=0.25))
    text = export(ledger.sums())
    row = next(csv.DictReader(io.StringIO(text))) if text.startswith("day") else msgspec.json.decode(text)
    assert (str(row["prompt_tokens"]), str(row["answer_tokens"]), str(row["thinking_tokens"])) == ("7", "5", "3")
    assert row["cost"] == "1.000000000001"


def test_no_name_of_a_model_becomes_a_formula_in_a_table() -> None:
    ledger = Ledger()
    ledger.add(entry(1, model="=cmd|' /C calc'!A0"))
    assert "'=cmd" in as_csv(ledger.sums())
