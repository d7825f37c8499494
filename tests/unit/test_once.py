"""What passed with the same files is not run again: scripts/once.py as the Makefile calls it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class World:
    """A folder with sources, a cache of its own, and a command that writes down that it ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources = folder / "sources"
        self.sources.mkdir()
        (self.sources / "one.c").write_text("one")

    def make(self, status: int = 0, name: str = "kernels", named: str = "sources", **environ: str) -> str:
        command = ["sh", "-c", f"echo ran; exit {status}"]
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts/once.py"), name, named, "--", *command],
            cwd=self.folder,
            env={**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"), "STAGES_LEFT_OUT": "", **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_passed_is_not_run_again_and_the_summary_says_so(world: World) -> None:
    notes = world.folder / "left-out"
    assert world.make() == "ran\n"
    told = world.make(STAGES_LEFT_OUT=str(notes))
    assert told.startswith("kernels: passed here with these files on 20")
    assert notes.read_text() == told


def test_what_failed_is_run_again(world: World) -> None:
    assert world.make(status=3) == world.make(status=3) == "ran\n"


def test_it_runs_again_where_a_file_changed_came_went_or_got_another_name(world: World) -> None:
    one = world.sources / "one.c"
    world.make()
    one.write_text("two")
    assert world.make() == "ran\n"
    (world.sources / "deep").mkdir()
    (world.sources / "deep" / "more.h").write_text("")
    assert world.make() == "ran\n"
    one.rename(world.sources / "other.c")
    assert world.make() == "ran\n"
    (world.sources / "deep" / "more.h").unlink()
    assert world.make() == "ran\n"


def test_it_runs_again_for_another_command_stage_or_wish(world: World) -> None:
    world.make()
    assert world.make(name="others") == "ran\n"
    assert world.make(GLM_TEST_AGAIN="1") == "ran\n"


def test_a_source_that_is_not_there_is_an_error_and_not_unchanged_for_ever(world: World) -> None:
    with pytest.raises(AssertionError, match="missing is no file and no folder"):
        world.make(named="missing")
