"""What `glm local` tells the person who typed it."""

import subprocess
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from glm_operator.cli import app
from glm_operator.cli import local as command
from glm_operator.local.changes import Changes
from glm_operator.local.errors import LocalError
from glm_operator.local.state import DeploymentState, PodRecord, StateFolder
from glm_operator.local.up import Started

NANO = Path(__file__).resolve().parents[4] / "examples/nano.yaml"
RUNS_ON = "What was started of nano still runs; stop it with: glm local down nano\n"


def up(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, start: BaseException | None, wait: BaseException | None
) -> Result:
    """Run `glm local up` with a start and a wait that end like this."""

    def bring_up(*_: object, **__: object) -> Started:
        if start is not None:
            raise start
        return Started(DeploymentState(name="nano", network=64), Changes(stop=[], start=[], keep=[]))

    def wait_until_ready(*_: object) -> None:
        if wait is not None:
            raise wait

    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    monkeypatch.setattr(command, "worker_program", lambda: ["glm-worker"])
    monkeypatch.setattr(command.local_up, "bring_up", bring_up)
    monkeypatch.setattr(command.local_up, "wait_until_ready", wait_until_ready)
    return CliRunner().invoke(app, ["local", "up", "-f", str(NANO)])


def test_a_group_that_does_not_serve_is_told_to_run_on_with_how_to_stop_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = up(monkeypatch, tmp_path, start=None, wait=LocalError("group nano-g0 failed to start 3 times in a row."))
    assert result.exit_code == 1
    assert result.stderr.endswith(f"error: group nano-g0 failed to start 3 times in a row.\n{RUNS_ON}")


@pytest.mark.parametrize("moment", ["start", "wait"])
def test_ctrl_c_says_what_runs_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moment: str) -> None:
    moments: dict[str, BaseException | None] = {"start": None, "wait": None}
    result = up(monkeypatch, tmp_path, **moments | {moment: KeyboardInterrupt()})
    assert result.exit_code != 0
    assert RUNS_ON in result.stderr


def test_a_start_that_fails_halfway_says_what_runs_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "100"]) as child:
        record(tmp_path, child.pid)
        result = up(monkeypatch, tmp_path, start=LocalError("port 8000 is busy"), wait=None)
        assert result.stderr.endswith(f"error: port 8000 is busy\n{RUNS_ON}")
        child.kill()
    result = up(monkeypatch, tmp_path, start=LocalError("port 8000 is busy"), wait=None)
    assert result.stderr.endswith("error: port 8000 is busy\n"), "a pod that has ended runs no more"


def record(folder: Path, pid: int) -> None:
    """Remember a process as the one pod of nano."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pod = PodRecord(
        name="nano-g0-0",
        group="nano-g0",
        index=0,
        address="127.64.0.1",
        fingerprint="f",
        token="t",
        pid=pid,
        start_ticks=int(stat[19]),
    )
    StateFolder(folder / "glm-operator/local").write(DeploymentState(name="nano", network=64, pods=[pod]))


def test_a_spec_that_cannot_be_started_says_nothing_of_what_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = up(monkeypatch, tmp_path, start=LocalError("the spec needs 8 GPUs"), wait=None)
    assert result.stderr.endswith("error: the spec needs 8 GPUs\n")
