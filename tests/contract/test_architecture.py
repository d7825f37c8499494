"""docs/architecture.md has a sentence for every folder of the repository, and for none that is not there."""

import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = PurePosixPath(".")


def rows() -> list[str]:
    """Return the folders of the table as they are written there."""
    table = (ROOT / "docs/architecture.md").read_text().partition("| folder |")[2]
    return re.findall(r"^\| `([^`]+)` \| \S", table, re.MULTILINE)


def tracked_folders() -> set[PurePosixPath]:
    if shutil.which("git") is None:
        pytest.skip("no git here, which says which files are the repository's")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout of git's, which says which files are the repository's")
    return {folder for file in listed.stdout.split("\0") if file for folder in PurePosixPath(file).parents}


def test_every_folder_has_a_row_or_one_above_it_that_speaks_for_all_below() -> None:
    named = {PurePosixPath(row.removesuffix("**")) for row in rows()}
    whole = {PurePosixPath(row.removesuffix("**")) for row in rows() if row.endswith("/**")}
    silent = [
        str(folder)
        for folder in tracked_folders() - named - {REPOSITORY}
        if not any(folder.is_relative_to(above) for above in whole)
    ]
    assert sorted(silent) == []


def test_every_row_is_a_folder_and_comes_once() -> None:
    named = [row.removesuffix("**") for row in rows()]
    assert [name for name in named if not (name.endswith("/") and (ROOT / name).is_dir())] == []
    assert len(named) == len(set(named))


def test_every_file_that_answers_a_question_is_there() -> None:
    answers = (ROOT / "docs/architecture.md").read_text().partition("| a stranger asks |")[2].partition("\n\n")[0]
    paths = re.findall(r"`((?:operator|worker)/[^`]+\.py)`", answers)
    assert len(answers.strip().splitlines()) >= 11, "ten questions below the head of the table"
    assert [path for path in paths if not (ROOT / path).is_file()] == []
