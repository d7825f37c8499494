import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from glm_worker.assignment import endpoint_of
from glm_worker.errors import ConfigError
from glm_worker.supervisor.rundir import RunDir


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return a folder with a short path, which pytest's own is not where tests run side by side: sockets need room."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        yield Path(folder)


def test_each_life_has_a_folder_of_its_own_that_goes_with_it(tmp_path: Path) -> None:
    one, two = RunDir.create(tmp_path / "run", "one"), RunDir.create(tmp_path / "run", "two")
    assert one.path.is_dir()
    one.close()
    assert not one.path.exists()
    assert two.path.is_dir()
    two.close()


def test_folders_of_killed_supervisors_are_removed_and_living_ones_kept(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from glm_worker.supervisor.rundir import RunDir\n"
    code += f"RunDir.create(Path({str(tmp_path)!r}), 'dead'); os._exit(1)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / "dead").is_dir()
    living = RunDir.create(tmp_path, "living")
    newest = RunDir.create(tmp_path, "newest")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["living", "newest"]
    living.close()
    newest.close()


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    RunDir.create(tmp_path, "one").close()
    assert (tmp_path / "precious").is_dir()


def test_a_generation_leaves_nothing_behind(tmp_path: Path) -> None:
    run_dir = RunDir.create(tmp_path, "one")
    run_dir.slots("one-1").touch()
    (run_dir.make_meeting("one-1") / "store").touch()
    for server in (0, 1, 12):
        Path(endpoint_of(run_dir.endpoint("one-1"), server).removeprefix("ipc://")).touch()
    run_dir.forget("one-1")
    assert [path.name for path in run_dir.path.iterdir()] == ["lock"]
    run_dir.close()


def test_every_socket_has_room_below_a_root_that_is_just_short_enough(tmp_path: Path) -> None:
    root = tmp_path / ("x" * (107 - len("/01234567/engine-01234567-9999999.9999") - len(str(tmp_path)) - 1))
    run_dir = RunDir.create(root, "01234567")
    steps = run_dir.make_meeting("01234567-9999999") / "steps"
    engine = endpoint_of(run_dir.endpoint("01234567-9999999"), 9999).removeprefix("ipc://")
    assert max(len(str(steps)), len(engine)) == 107
    run_dir.close()


def test_a_path_that_no_socket_can_have_is_refused_with_the_excess(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GLM_RUN_DIR=.* is \d+ bytes too long for the socket paths below it"):
        RunDir.create(tmp_path / ("x" * 100), "one")


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"GLM_RUN_DIR=.*file is not a folder that this user can write to"):
        RunDir.create(tmp_path / "file", "one")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_root_that_is_read_only_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="not a folder that this user can write to"):
        RunDir.create(tmp_path / "run", "one")
