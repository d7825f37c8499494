"""What `glm local` tells the person who typed it."""

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from glm_operator.api.spec import parse_deployment
from glm_operator.cli import app
from glm_operator.cli import local as command
from glm_operator.layout import Layout, plan
from glm_operator.local import scaling
from glm_operator.local.changes import Changes
from glm_operator.local.errors import LocalError
from glm_operator.local.gateway.status import GatewayStatus
from glm_operator.local.scaling import ScalingView
from glm_operator.local.state import ControllerRecord, DeploymentState, PodRecord, StateFolder
from glm_operator.local.up import Started
from glm_operator.render import render

NANO = Path(__file__).resolve().parents[4] / "examples/nano.yaml"
RUNS_ON = "What was started of nano still runs; stop it with: glm local down nano\n"


def record_controller(folder: Path, pid: int, ticks: int) -> StateFolder:
    """Remember a controller that has said something."""
    found = StateFolder(folder / "glm-operator/local")
    found.write(
        DeploymentState(name="nano", network=64, controller=ControllerRecord(token="t", pid=pid, start_ticks=ticks))
    )
    view = ScalingView(
        mode="Active",
        desired=2,
        current=2,
        starting=0,
        message="two are needed",
        attainment={"chat": 0.5, "idle": None},
        unmeasured=["new"],
    )
    scaling.write(found.scaling_file("nano"), view)
    return found


def test_a_controller_that_has_died_is_told_instead_of_what_it_said_last(tmp_path: Path) -> None:
    folder = record_controller(tmp_path, pid=2**22 + 1, ticks=1)
    (line,) = command._scaling_lines(folder)
    assert line.startswith("nano: its controller has died, nothing is scaled; run `glm local up` again.")
    assert line.endswith(str(folder.log_file("nano", "controller")))
    record_controller(tmp_path, os.getpid(), start_ticks(os.getpid()))
    assert command._scaling_lines(folder) == [
        "nano: groups 2, wanted 2 (Active): two are needed",
        "nano: class chat: 50.0% of requests as fast as promised",
        "nano: class idle: no traffic",
        "nano: class new: not measured just now",
    ]


def test_a_deployment_that_has_no_controller_any_more_shows_no_decision_of_the_last_one(tmp_path: Path) -> None:
    folder = record_controller(tmp_path, pid=2**22 + 1, ticks=1)
    (state,) = folder.deployments()
    command.controller.stop(folder, state)
    folder.write(DeploymentState(name="nano", network=64))
    assert command._scaling_lines(folder) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("localhost:9090", "localhost:9090"),
        ("http://me:word@host", "http://...@host"),
        ("http://host/api/v1/query", "http://host/api/v1/query"),
        ("http://[::1", "http://[::1"),
    ],
)
def test_a_url_of_prometheus_that_cannot_be_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, shown: str
) -> None:
    result = up(monkeypatch, tmp_path, "--prometheus", url, start=None, wait=None)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: --prometheus {shown}: ")
    assert StateFolder(tmp_path / "glm-operator/local").deployments() == []


def test_what_a_cluster_added_to_a_file_is_no_part_of_what_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    body = yaml.safe_load(NANO.read_text())
    body["metadata"] |= {"uid": "8f0c", "resourceVersion": "17", "creationTimestamp": "2026-11-01T00:00:00Z"}
    file = tmp_path / "of-a-cluster.yaml"
    file.write_text(yaml.safe_dump(body))
    made: list[object] = []
    for each in (NANO, file):
        up(monkeypatch, tmp_path, file=each, start=None, wait=None, made=made)
    (state,) = StateFolder(tmp_path / "glm-operator/local").deployments()
    deployment = parse_deployment(state.body)
    layout = plan(deployment)
    assert isinstance(layout, Layout)
    assert made == [render(deployment, layout, [0])] * 2, "as the controller makes them"


def up(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *arguments: str,
    start: BaseException | None,
    wait: BaseException | None,
    file: Path = NANO,
    made: list[object] | None = None,
) -> Result:
    """Run `glm local up` with a start and a wait that end like this, no gateway and no controller.

    made: takes the manifests.
    """

    def bring_up(_folder: object, _name: object, manifests: object, *_: object, **__: object) -> Started:
        if made is not None:
            made.append(manifests)
        if start is not None:
            raise start
        return Started(DeploymentState(name="nano", network=64), Changes(stop=[], start=[], keep=[]))

    def wait_until_ready(*_: object) -> None:
        if wait is not None:
            raise wait

    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    monkeypatch.setattr(command, "worker_program", lambda: ["glm-worker"])
    monkeypatch.setattr(command.local_up, "bring_up", bring_up)
    monkeypatch.setattr(command.front, "bring_up", lambda _folder, state, *_, **__: state)
    monkeypatch.setattr(command.controller, "start", lambda *_: None)
    monkeypatch.setattr(command.local_up, "wait_until_ready", wait_until_ready)
    return CliRunner().invoke(app, ["local", "up", "-f", str(file), *arguments])


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


def test_what_of_a_gateway_has_no_meaning_here_is_named_and_what_cannot_be_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    body = yaml.safe_load(NANO.read_text())
    file = tmp_path / "edited.yaml"
    for gateway, code, said in (
        ({"replicas": 2}, 0, "gateway.replicas counts in clusters only; here there is one process\n"),
        ({"tlsSecretRef": {"name": "tls"}}, 1, "error: gateway.tlsSecretRef names a Secret, which only a cluster has"),
        (
            {"names": [{"name": "a", "arms": [{"to": "b"}]}]},
            1,
            "error: the gateway of nano: the name a has an arm to b",
        ),
    ):
        file.write_text(yaml.safe_dump({**body, "spec": {**body["spec"], "gateway": gateway}}))
        made: list[object] = []
        result = up(monkeypatch, tmp_path, file=file, start=None, wait=None, made=made)
        assert (result.exit_code, bool(made)) == (code, not code), result.stderr
        assert said in result.stderr


def a_status(**changes: Any) -> GatewayStatus:
    known = {
        "state": "serving",
        "running": 3,
        "held": 1,
        "groups_ready": 1,
        "groups": 2,
        "memory_bytes": 0,
        "fault": "",
    }
    return GatewayStatus(
        deployment="nano", gateway="nano-gateway", url="http://127.64.255.1:8000/v1", **known | changes
    )


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (
            a_status(),
            "nano serves at http://127.64.255.1:8000/v1: 3 requests run, 1 wait for a group, 1 of 2 groups ready",
        ),
        (a_status(fault="usage: cannot change"), "; not all of its file holds: usage: cannot change"),
        (a_status(state="dead"), "nano: its gateway has died, and is started again; see `glm local logs nano-gateway`"),
        (a_status(state="unreachable"), "nano: its gateway does not answer; see `glm local logs nano-gateway`"),
    ],
)
def test_a_line_says_what_a_gateway_does(status: GatewayStatus, line: str) -> None:
    assert command._line_of(status).endswith(line)


def start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def record(folder: Path, pid: int) -> None:
    """Remember a process as the one pod of nano."""
    pod = PodRecord(
        name="nano-g0-0",
        group="nano-g0",
        index=0,
        address="127.64.0.1",
        fingerprint="f",
        token="t",
        pid=pid,
        start_ticks=start_ticks(pid),
    )
    StateFolder(folder / "glm-operator/local").write(DeploymentState(name="nano", network=64, pods=[pod]))


def test_a_spec_that_cannot_be_started_says_nothing_of_what_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = up(monkeypatch, tmp_path, start=LocalError("the spec needs 8 GPUs"), wait=None)
    assert result.stderr.endswith("error: the spec needs 8 GPUs\n")


def test_a_controller_that_is_stuck_with_the_lock_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, stuck = record_controller(tmp_path, os.getpid(), ticks=1), contextlib.ExitStack()
    stuck.enter_context(folder.locked())
    monkeypatch.setattr(command, "LOCK_PATIENCE_S", 0.1)
    monkeypatch.setattr(command, "_stop_controllers", lambda *_: stuck.close())
    with command._locked(folder, "nano"), pytest.raises(LocalError), folder.locked():
        pass


def test_a_command_that_gives_up_on_another_one_ends_no_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = record_controller(tmp_path, os.getppid(), ticks=1)
    monkeypatch.setattr(command, "LOCK_PATIENCE_S", 0.1)
    monkeypatch.setattr(command, "_stop_controllers", lambda *_: pytest.fail("nobody would repair its groups"))
    with folder.locked(), pytest.raises(LocalError, match="wait for it to end"), command._locked(folder, "nano"):
        pass
