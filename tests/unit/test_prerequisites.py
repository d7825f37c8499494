"""What is said before anything is installed, where something is missing."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/prerequisites.sh"


def a_program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def check(folder: Path, python: Path | str) -> tuple[int, str]:
    """Run the script with the programs of a folder before those of the machine."""
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", SCRIPT, python], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_a_python_with_venv_on_linux_is_enough(tmp_path: Path) -> None:
    assert check(tmp_path, a_program(tmp_path / "python", "exit 0")) == (0, "")


def test_another_system_is_told_in_one_sentence_before_python_is_looked_at(tmp_path: Path) -> None:
    a_program(tmp_path / "uname", "echo Darwin")
    status, said = check(tmp_path, "no-such-python")
    assert status == 1
    assert said.startswith("Linux is needed ")
    assert "this is Darwin: use a Linux machine" in said
    assert said.count("\n") == 1


def test_a_missing_python_is_told_with_what_to_install(tmp_path: Path) -> None:
    status, said = check(tmp_path, "no-such-python")
    assert status == 1
    assert said.startswith(
        "Python 3.11 or newer is needed; 'no-such-python' was not found. On Debian 12: apt-get install"
    )


def test_an_older_python_is_told_with_its_version(tmp_path: Path) -> None:
    old = a_program(tmp_path / "python", 'if [ "$1" = --version ]; then echo Python 3.10.4; else exit 1; fi')
    status, said = check(tmp_path, old)
    assert status == 1
    assert f"'{old}' is 3.10.4. " in said


@pytest.mark.parametrize("missing", ["ensurepip", "venv"])
def test_a_python_without_venv_is_told(tmp_path: Path, missing: str) -> None:
    python = a_program(tmp_path / "python", f'case "$2" in *{missing}*) exit 1;; esac')
    status, said = check(tmp_path, python)
    assert status == 1
    assert f"Python's venv module is needed; '{python}' comes without it. " in said
