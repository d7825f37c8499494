import os
from pathlib import Path

import pytest

from glm_worker.heartbeat import MESSAGE_BYTES, Phase, RankSlot, SlotView, create_slots


@pytest.fixture
def slots(tmp_path: Path) -> Path:
    path = tmp_path / "slots"
    create_slots(path, 2)
    return path


def test_a_fresh_slot_says_that_nothing_began(slots: Path) -> None:
    assert RankSlot.open(slots, 1).snapshot() == SlotView()


def test_what_a_rank_writes_its_supervisor_reads_through_another_mapping(slots: Path) -> None:
    rank, supervisor = RankSlot.open(slots, 1), RankSlot.open(slots, 1)
    rank.begin()
    rank.loading(3, 7)
    assert supervisor.snapshot().phase == Phase.loading
    rank.ready()
    rank.beat(41)
    rank.enter_collective()
    view = supervisor.snapshot()
    assert (view.pid, view.phase, view.step, view.done_bytes, view.total_bytes) == (os.getpid(), Phase.ready, 41, 3, 7)
    assert (view.in_collective, view.collective_seq) == (True, 1)
    rank.leave_collective()
    assert not supervisor.snapshot().in_collective


def test_slots_do_not_touch_each_other(slots: Path) -> None:
    RankSlot.open(slots, 1).fail("é" * MESSAGE_BYTES)
    assert RankSlot.open(slots, 0).snapshot() == SlotView()


@pytest.mark.parametrize("act", ["begin", "idle", "alive", "enter_collective", "leave_collective", "ready"])
def test_every_sign_of_life_moves_the_time_of_change(slots: Path, act: str) -> None:
    slot = RankSlot.open(slots, 0)
    before = slot.snapshot().changed_ns
    getattr(slot, act)()
    assert slot.snapshot().changed_ns > before


@pytest.mark.parametrize("message", ["", "no such folder", "é" * (MESSAGE_BYTES // 2)])
def test_a_last_word_is_kept(slots: Path, message: str) -> None:
    slot = RankSlot.open(slots, 0)
    slot.fail(message)
    assert slot.snapshot().phase == Phase.failed
    assert slot.snapshot().message == message


def test_a_last_word_that_is_too_long_is_cut_between_characters(slots: Path) -> None:
    slot = RankSlot.open(slots, 0)
    slot.fail("x" + "é" * MESSAGE_BYTES)
    assert slot.snapshot().message == "x" + "é" * ((MESSAGE_BYTES - 1) // 2)


def test_a_last_word_about_a_name_that_is_no_text_is_kept(slots: Path) -> None:
    slot = RankSlot.open(slots, 0)
    slot.fail(f"no such folder: {os.fsdecode(bytes([0xFF]))}")
    assert slot.snapshot().message == "no such folder: \\udcff"


def test_a_closed_slot_is_unmapped(slots: Path) -> None:
    slot = RankSlot.open(slots, 0)
    slot.close()
    with pytest.raises(ValueError, match="released"):
        slot.snapshot()


def test_a_slot_outside_of_the_file_is_refused(slots: Path) -> None:
    with pytest.raises(IndexError, match=r"slot 2 of .*, which has 2"):
        RankSlot.open(slots, 2)


def test_generations_never_share_slots(slots: Path) -> None:
    with pytest.raises(FileExistsError):
        create_slots(slots, 2)
