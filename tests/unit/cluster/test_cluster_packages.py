"""apt-get, called on machines that may be calling it themselves, and what it is asked for."""

import os
from pathlib import Path

import pytest

from glm_cluster import waiting
from glm_cluster.errors import ClusterError
from glm_cluster.packages import PROGRAMS, PROMETHEUS, apt_get, install_missing, missing_packages


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get that prints the first line of a file and fails, line after line, and succeeds when none is left."""
    said = tmp_path / "said"
    program = tmp_path / "apt-get"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
        f"[ -s {said} ] || exit 0\nhead -n 1 {said} >&2\nsed -i 1d {said}\nexit 100\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(waiting.time, "sleep", lambda _: None)
    return said


def calls(said: Path) -> list[str]:
    return said.with_name("calls").read_text().splitlines()


def test_another_apt_get_is_waited_for(said: Path) -> None:
    said.write_text("E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)\n" * 2)
    apt_get("update", "-qq")
    assert calls(said) == ["update -qq"] * 3


def test_whatever_else_is_wrong_is_told_at_once(said: Path) -> None:
    said.write_text("E: Unable to locate package containerd\n" * 2)
    with pytest.raises(ClusterError, match="Unable to locate package containerd"):
        apt_get("install", "containerd")
    assert calls(said) == ["install containerd"]


ABSENT = {"no-such-program": "no-such-package"}


def test_prometheus_is_no_part_of_every_cluster() -> None:
    assert not PROMETHEUS.keys() & PROGRAMS.keys()


def test_what_is_there_is_not_installed(said: Path) -> None:
    install_missing({"sh": "dash"})
    assert not said.with_name("calls").exists()


def test_a_package_is_named_once_however_many_of_its_programs_are_missing() -> None:
    assert missing_packages({**ABSENT, "no-other-program": "no-such-package"}) == ["no-such-package"]


def test_who_is_not_root_is_told_what_to_run_as_root(said: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match="run `apt-get install no-such-package` as root"):
        install_missing(ABSENT)
    assert not said.with_name("calls").exists()


def test_without_apt_get_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("glm_cluster.packages.with_sbin", str)
    with pytest.raises(ClusterError, match="no apt-get to install them with: no-such-package"):
        install_missing(ABSENT)
