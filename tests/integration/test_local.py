"""Local mode with real processes: what it starts it finds again, stops, and leaves nothing behind."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from typer.testing import CliRunner

from glm_operator.api.spec import parse_deployment
from glm_operator.cli import app
from glm_operator.layout import Layout, plan
from glm_operator.local import ports, processes
from glm_operator.local.down import stop_pods
from glm_operator.local.errors import LocalError
from glm_operator.local.management import Management
from glm_operator.local.pods import AWAITS_POLICY
from glm_operator.local.processes import Process
from glm_operator.local.rendezvous import BLOCK_SIZE
from glm_operator.local.state import DeploymentState, PodRecord, StateFolder
from glm_operator.local.status import GroupStatus, group_statuses
from glm_operator.local.up import Started, bring_up, wait_until_ready
from glm_operator.manifest import Manifest
from glm_operator.observe.report import policy_digest
from glm_operator.render import render
from glm_worker.supervisor.group.attempts import NUM_PORT_PAIRS
from integration.local_world import stop_all
from integration.pauses import Pauses
from unit.operator.operator_builders import a_body

PROGRAM = [sys.executable, str(Path(__file__).with_name("pretend_worker.py"))]
DEADLINE_S = 60.0
TORCH_DEADLINE_S = 300.0  # two groups that import torch in each pod, on a busy machine


def manifests(name: str = "nano", **spec: Any) -> list[Manifest]:
    body = {
        "apiVersion": "glm-operator.io/v1alpha1",
        "kind": "GLMDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "glm-nano", "source": "builtin://glm-nano"},
            "hardware": {"device": "cpu", "ranksPerPod": 1},
            "parallelism": {"expert": 2},
            **spec,
        },
    }
    deployment = parse_deployment(body)
    layout = plan(deployment)
    assert isinstance(layout, Layout)
    return render(deployment, layout)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateFolder]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = StateFolder.of_user()
    yield folder
    stop_all(folder)


def start(folder: StateFolder, name: str = "nano", **spec: Any) -> Started:
    with folder.locked():
        return bring_up(folder, name, manifests(name, **spec), PROGRAM)


def wait(folder: StateFolder, state: DeploymentState, deadline_s: float = DEADLINE_S) -> None:
    wait_until_ready(state, folder, deadline_s, lambda _: None)


def up(folder: StateFolder, name: str = "nano", **spec: Any) -> DeploymentState:
    started = start(folder, name, **spec)
    wait(folder, started.state)
    return started.state


def only_status(folder: StateFolder) -> GroupStatus:
    (status,) = group_statuses(folder.deployments())
    return status


def rendezvous_ports(state: DeploymentState) -> list[int]:
    """Return, of each pod, where its ranks meet those of the others: what its process was started with."""
    return [int(environment(pod)["GLM_RENDEZVOUS_PORT"]) for pod in state.pods]


def environment(pod: PodRecord) -> dict[str, str]:
    """Return what the process of a pod was started with."""
    variables = Path(f"/proc/{pod.pid}/environ").read_text().split("\0")
    return dict(each.split("=", 1) for each in variables if each)


def pids(state: DeploymentState) -> dict[str, int]:
    return {pod.name: pod.pid for pod in state.pods}


def left_of(pods: list[PodRecord]) -> list[int]:
    return [process.pid for pod in pods for process in processes.members(pod.token)]


def until(condition: Callable[[], bool]) -> None:
    deadline, pauses = time.monotonic() + DEADLINE_S, Pauses()
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        pauses.pause()


def test_a_group_of_two_pods_serves_and_stops_without_a_trace(folder: StateFolder) -> None:
    state = up(folder)
    status = only_status(folder)
    assert (status.state, status.pods_alive, status.pods) == ("serving", 2, 2)
    assert status.memory_bytes > 2**20
    assert len(left_of(state.pods)) == 4  # two supervisors, each with a child

    assert stop_pods(state.pods) == []
    folder.remove(state)
    assert left_of(state.pods) == []
    assert folder.deployments() == []
    assert not any(folder.run_dir("nano", pod.name).exists() for pod in state.pods)


def test_a_second_up_of_the_same_file_leaves_every_process_alone(folder: StateFolder) -> None:
    first = up(folder)
    again = start(folder)
    assert pids(again.state) == pids(first)
    assert (again.changes.start, again.changes.stop) == ([], [])


def test_pods_wait_for_a_policy_only_where_somebody_tells_it_and_none_restarts_for_that(folder: StateFolder) -> None:
    with folder.locked():
        first = bring_up(folder, "nano", manifests(), PROGRAM, awaits_policy=True)
        again = bring_up(folder, "nano", manifests(), PROGRAM)
        more = bring_up(folder, "nano", manifests(replicas=2), PROGRAM)
    assert (again.changes.start, again.changes.stop, more.changes.stop) == ([], [], [])
    assert [AWAITS_POLICY in environment(pod) for pod in more.state.pods] == [True, True, False, False]
    assert pids(first.state).items() <= pids(more.state).items()


def test_a_change_restarts_the_group(folder: StateFolder) -> None:
    first = up(folder)
    second = up(folder, engine={"limits": {"maxNumSeqs": 7}})
    assert not set(pids(first).values()) & set(pids(second).values())
    assert left_of(first.pods) == []


def test_replicas_scale_without_touching_what_stays(folder: StateFolder) -> None:
    one = up(folder, replicas=1)
    three = up(folder, replicas=3)
    assert list(three.groups) == ["nano-g0", "nano-g1", "nano-g2"]
    back = up(folder, replicas=1)
    assert pids(back) == pids(one)
    assert left_of([pod for pod in three.pods if pod.group != "nano-g0"]) == []


def test_a_killed_supervisor_is_started_again_and_what_it_left_is_swept(folder: StateFolder) -> None:
    first = up(folder)
    leader, follower = first.groups["nano-g0"]
    os.kill(leader.pid, signal.SIGKILL)
    until(lambda: not processes.is_alive(Process(leader.pid, leader.start_ticks)))
    assert only_status(folder).state == "dead"

    second = up(folder)
    assert pids(second)[follower.name] == follower.pid
    assert pids(second)[leader.name] != leader.pid
    assert left_of([leader]) == []


def test_a_command_that_died_while_starting_leaves_nothing_unknown(folder: StateFolder) -> None:
    first = up(folder)
    forgotten = [msgspec.structs.replace(pod, pid=0, start_ticks=0) for pod in first.pods]  # recorded, pid not yet
    folder.write(msgspec.structs.replace(first, pods=forgotten))
    second = up(folder)
    assert not set(pids(first).values()) & set(pids(second).values())
    assert left_of(first.pods) == []


def test_a_pod_with_much_memory_has_given_back_its_port_when_it_counts_as_stopped(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes a dying process's environment first, then its memory page by page, its sockets last."""
    monkeypatch.setenv("PRETEND", "hangs")
    monkeypatch.setenv("MEMORY_BYTES", str(2**30))
    state = up(folder, parallelism={"expert": 1})
    assert stop_pods(state.pods, deadline_s=0) == ["nano-g0-0"]
    assert ports.busy_ports(state.pods[0].address, ports.LEADER_PORTS) == []


def test_a_recycled_pid_is_never_signalled(folder: StateFolder) -> None:
    state = up(folder)
    (bystander,) = [pod for pod in state.pods if pod.index == 1]
    impostor = Process(bystander.pid, bystander.start_ticks - 1)  # same number, started at another time
    assert not processes.is_alive(impostor)
    processes.terminate(impostor)
    assert processes.is_alive(Process(bystander.pid, bystander.start_ticks))


def test_a_pod_that_ignores_sigterm_is_killed_after_the_deadline(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRETEND", "hangs")
    monkeypatch.setenv("START_S", "0.5")
    state = up(folder)
    assert sorted(stop_pods(state.pods, deadline_s=0.2)) == ["nano-g0-0", "nano-g0-1"]
    assert left_of(state.pods) == []


def test_a_pod_that_ends_at_once_is_reported_with_the_end_of_its_log(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRETEND", "crashes")
    started = start(folder)
    with pytest.raises(
        LocalError, match=r"(?s)group nano-g0: pod nano-g0-\d ended before it served.*no such model: /nowhere"
    ):
        wait(folder, started.state)


def test_a_stranger_that_answers_at_the_address_of_a_dead_pod_is_not_taken_for_it(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another user's deployment does that has taken the same free network a moment later."""
    monkeypatch.setenv("PRETEND", "crashes")
    started = start(folder)
    leader = started.state.pods[0]
    until(lambda: not processes.is_alive(Process(leader.pid, leader.start_ticks)))
    monkeypatch.setattr(Management, "is_ready", lambda *_: True)
    with pytest.raises(LocalError, match="ended before it served"):
        wait(folder, started.state)


def test_a_group_that_fails_again_and_again_is_not_waited_for(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRETEND", "fails")
    started = start(folder)
    with pytest.raises(LocalError, match=r"failed to start 3 times in a row. rank 1 failed"):
        wait(folder, started.state)


def test_a_group_that_never_serves_is_named_at_the_deadline_with_its_state(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRETEND", "loads")
    started = start(folder)
    until(lambda: only_status(folder).state == "starting")
    with pytest.raises(LocalError, match="does not serve after 0 s: it is starting"):
        wait(folder, started.state, deadline_s=0)


def test_a_port_that_somebody_holds_is_avoided_by_another_network(folder: StateFolder) -> None:
    network = ports.free_network([])
    with socket.create_server((f"127.{network}.0.1", 9090)):
        state = up(folder)
    assert state.network != network


def test_variables_of_the_calling_shell_do_not_reach_the_worker(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM_MAX_NUM_SEQS", "1")
    state = up(folder)
    assert b"GLM_MAX_NUM_SEQS" not in Path(f"/proc/{state.pods[0].pid}/environ").read_bytes()


def test_the_commands_show_status_and_logs_and_stop_everything(folder: StateFolder) -> None:
    state = up(folder)
    run = CliRunner()
    status = run.invoke(app, ["local", "status"])
    assert status.exit_code == 0
    assert "nano-g0" in status.stdout
    assert "serving" in status.stdout
    logs = run.invoke(app, ["local", "logs", "nano-g0"])
    assert "nano-g0-1 | nano-g0 pod 1: ['serve']" in logs.stdout
    down = run.invoke(app, ["local", "down"])
    assert "nano stopped: 2 pods, no process left" in down.stdout
    assert left_of(state.pods) == []
    assert "nothing runs" in run.invoke(app, ["local", "status"]).stdout


def test_up_tells_groups_the_policy_and_takes_it_from_them_again(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where no controller stays that would: a spec that wants nothing any more."""
    monkeypatch.setattr(sys.modules["glm_operator.cli.local"], "worker_program", lambda: PROGRAM)
    file, pods = tmp_path / "nano.yaml", []
    for reasoning in ({"visibility": "Hidden"}, {}):
        body = a_body("nano", namespace="default", reasoning=reasoning)
        file.write_text(json.dumps({**body, "metadata": {"name": "nano"}}))
        result = CliRunner().invoke(app, ["local", "up", "-f", str(file)])
        assert result.exit_code == 0, result.stderr
        assert ("tells the groups of nano the policy" in result.stdout) is bool(reasoning)
        (state,) = folder.deployments()
        with Management() as management:
            report = management.group(state.pods[0].address)
        wanted = policy_digest(parse_deployment(body).spec.policy.for_workers())
        assert report is not None
        assert report.policy_digest == wanted
        pods.append(pids(state))
    assert pods[0] == pods[1], "an edit restarts nothing"
    assert CliRunner().invoke(app, ["local", "down"]).exit_code == 0


def test_every_group_of_several_pods_has_ports_of_its_own_and_keeps_them(folder: StateFolder) -> None:
    nano, other = up(folder, replicas=2), up(folder, "other")
    (a, also_a, b, also_b), (c, also_c) = rendezvous_ports(nano), rendezvous_ports(other)
    assert (a, b, c) == (also_a, also_b, also_c)
    assert len({a, b, c}) == 3
    assert 2 * NUM_PORT_PAIRS == BLOCK_SIZE  # what the worker uses is what it is given

    restarted = up(folder, replicas=2, engine={"limits": {"maxNumSeqs": 7}})
    assert not set(pids(restarted).values()) & set(pids(nano).values())
    assert rendezvous_ports(restarted) == [a, a, b, b]


def visible_devices(state: DeploymentState) -> list[str]:
    """Return, of each pod, the CUDA devices that its process was started with."""
    environments = [Path(f"/proc/{pod.pid}/environ").read_bytes().split(b"\0") for pod in state.pods]
    prefix = b"CUDA_VISIBLE_DEVICES="
    return [v.removeprefix(prefix).decode() for each in environments for v in each if v.startswith(prefix)]


CUDA = {"hardware": {"device": "cuda", "ranksPerPod": 1, "gpu": {"perNode": 8}}, "parallelism": {"expert": 1}}


def test_pods_get_the_devices_that_the_shell_lists(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,GPU-5ce1")
    assert visible_devices(up(folder, replicas=2, **CUDA)) == ["6", "GPU-5ce1"]


def test_a_group_that_runs_keeps_its_devices_whatever_else_comes_and_goes(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    other, nano = up(folder, "other", **CUDA), up(folder, **CUDA)
    stop_pods(other.pods)
    folder.remove(other)
    assert pids(up(folder, **CUDA)) == pids(nano)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert pids(up(folder, **CUDA)) == pids(nano)

    os.kill(nano.pods[0].pid, signal.SIGKILL)
    until(lambda: not processes.is_alive(Process(nano.pods[0].pid, nano.pods[0].start_ticks)))
    assert visible_devices(up(folder, **CUDA)) == ["2"]  # its own is none of this shell's


@pytest.mark.long
def test_two_groups_of_two_pods_with_torch_answer_right_at_once(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both in their first generation: torch's store listens on every address, so only the ports keep them apart."""
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", processes.worker_program())
    started = start(folder, replicas=2)
    wait(folder, started.state, TORCH_DEADLINE_S)
    body = {
        "model": "glm-nano",
        "messages": [{"role": "user", "content": "Count from 1 to 12."}],
        "temperature": 0,
        "max_tokens": 400,
    }
    for leader, _ in started.state.groups.values():
        url = f"http://{leader.address}:8000/v1/chat/completions"
        answer = httpx.post(url, json=body, timeout=TORCH_DEADLINE_S).raise_for_status().json()
        assert answer["choices"][0]["message"]["content"] == ", ".join(map(str, range(1, 13)))
    generations = [status.generation for status in group_statuses(folder.deployments())]
    assert [generation.rpartition("-")[2] for generation in generations] == ["1", "1"]
    assert stop_pods(started.state.pods) == []
