"""Calls of programs."""

from pathlib import Path

import pytest

from glm_cluster import commands
from glm_cluster.commands import log_to, run


@pytest.fixture
def sbin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of root's programs, as it is on every machine, and a PATH without it, as `su` gives root."""
    program = tmp_path / "sbin/sysctl-of-root"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho set\n")
    program.chmod(0o755)
    monkeypatch.setattr(commands, "SBIN", (str(program.parent),))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return program


@pytest.mark.parametrize("env", [None, {"PATH": "/bin"}, {}])
def test_roots_programs_are_found_whatever_the_path(sbin: Path, tmp_path: Path, env: dict[str, str] | None) -> None:
    assert run(sbin.name, env=env) == "set\n"
    log_to(tmp_path / "log", sbin.name, env=env)
    assert (tmp_path / "log").read_text() == "set\n"


def test_a_program_of_the_path_comes_before_roots(sbin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / sbin.name
    own.write_text("#!/bin/sh\necho own\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert run(sbin.name) == "own\n"
