"""What `glm local` tells the person who typed it."""

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from glm_operator.cli import app
from glm_operator.cli import local as command
from glm_operator.local.changes import Changes
from glm_operator.local.errors import LocalError
from glm_operator.local.state import DeploymentState
from glm_operator.local.up import Started

NANO = Path(__file__).resolve().parents[3] / "examples/nano.yaml"
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


def test_a_spec_that_cannot_be_started_says_nothing_of_what_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = up(monkeypatch, tmp_path, start=LocalError("the spec needs 8 GPUs"), wait=None)
    assert result.stderr.endswith("error: the spec needs 8 GPUs\n")
