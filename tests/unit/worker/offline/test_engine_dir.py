"""The folder of an engine: gone with it, or removed by the next one, and never that of another that lives."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from glm_worker.offline.engine_dir import PREFIX, EngineDir

LEAVES_ITS_FOLDER = """
import os, sys, tempfile
from glm_worker.offline.engine_dir import EngineDir
tempfile.tempdir = sys.argv[1]
(EngineDir().path / "engine").touch()
os._exit(1)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_folder_goes_with_its_engine(tmp_path: Path) -> None:
    ours = EngineDir()
    assert ours.path.parent == tmp_path
    (ours.path / "engine").touch()
    ours.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_the_folders_of_the_living_stay(tmp_path: Path) -> None:
    living = EngineDir()
    subprocess.run([sys.executable, "-c", LEAVES_ITS_FOLDER, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    newest = EngineDir()
    assert set(tmp_path.iterdir()) == {living.path, newest.path}
    living.close()
    newest.close()


def test_what_only_has_a_name_like_ours_stays(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}precious").mkdir()
    (tmp_path / f"{PREFIX}precious" / "lock").touch()  # of a supervisor, whose root may have any name
    (tmp_path / f"{PREFIX}file").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / f"{PREFIX}precious")
    before = set(tmp_path.rglob("*"))
    EngineDir().close()
    assert set(tmp_path.rglob("*")) == before
