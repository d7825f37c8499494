"""Promises outlive the process that was given them, and a file that is broken costs no start."""

from pathlib import Path

import pytest

from glm_worker.messages import Slo, SloClass
from glm_worker.server.slo import slo_digest
from glm_worker.supervisor.kept_slo import KeptSlo
from glm_worker.supervisor.rundir import RunDir

FAST = Slo([SloClass(name="fast", thresholds_s={"ttft": 0.5}, objective=0.99)])
NONE = Slo([])


def test_before_the_first_there_are_none(tmp_path: Path) -> None:
    kept = KeptSlo(tmp_path / "slo")
    assert (kept.slo, kept.digest) == (None, None)


def test_the_next_life_has_the_last_promises(tmp_path: Path) -> None:
    kept = KeptSlo(tmp_path / "slo")
    assert kept.keep(NONE) == slo_digest(NONE)
    assert kept.keep(FAST) == kept.digest == slo_digest(FAST)
    again = KeptSlo(tmp_path / "slo")
    assert (again.slo, again.digest) == (FAST, slo_digest(FAST))
    assert [path.name for path in tmp_path.iterdir()] == ["slo"]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"classes": [{"name": "fast"}]}', b'{"classes": 3}', b'{"classes": [{"name": "\xff"}]}']
)
def test_a_broken_file_is_no_promise(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "slo").write_bytes(raw)
    assert KeptSlo(tmp_path / "slo").slo is None


def test_where_nothing_can_be_written_this_life_has_them_all_the_same(tmp_path: Path) -> None:
    kept = KeptSlo(tmp_path / "gone" / "slo")
    kept.keep(FAST)
    assert kept.digest == slo_digest(FAST)


def test_the_file_outlives_the_folder_of_a_life_and_is_no_neighbours(tmp_path: Path) -> None:
    life = RunDir.create(tmp_path, "one")
    KeptSlo(life.lasting("slo", "models/chat-g0")).keep(FAST)
    life.close()
    next_life = RunDir.create(tmp_path, "two")
    assert KeptSlo(next_life.lasting("slo", "models/chat-g0")).slo == FAST
    assert KeptSlo(next_life.lasting("slo", "models/chat-g1")).slo is None
    next_life.close()
