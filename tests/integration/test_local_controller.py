"""The controller of local mode with real processes: it starts, stops and brings back groups, and ends when told."""

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from glm_operator.api.slo import Slo
from glm_operator.api.spec import parse_deployment
from glm_operator.cluster.metrics.scrape import Scraper
from glm_operator.cluster.metrics.sources import Sources
from glm_operator.layout import Layout, plan
from glm_operator.local import controller, crashes, processes, scaling
from glm_operator.local.control import Controller, Replaced
from glm_operator.local.management import Management
from glm_operator.local.ports import free_network
from glm_operator.local.processes import Process
from glm_operator.local.state import ControllerRecord, DeploymentState, StateFolder
from glm_operator.local.status import group_statuses
from glm_operator.local.up import bring_up, wait_until_ready
from glm_operator.observe.report import policy_digest, slo_digest
from glm_operator.render import render
from integration.local_world import stop_all

PROGRAM = [sys.executable, str(Path(__file__).with_name("pretend_worker.py"))]
DEADLINE_S = 60.0
TOKEN = "the controller of this test"


def body(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "glm-operator.io/v1alpha1",
        "kind": "GLMDeployment",
        "metadata": {"name": "nano"},
        "spec": {
            "model": {"name": "glm-nano", "source": "builtin://glm-nano"},
            "hardware": {"device": "cpu"},
            **spec,
        },
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateFolder]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = StateFolder.of_user()
    yield folder
    stop_all(folder)


@cache
def network() -> int:
    """A network that no other test, and no `glm local` on this machine, has meanwhile."""
    return free_network(())


def put(folder: StateFolder, **spec: Any) -> None:
    """Give the deployment another spec, as `up` does."""
    known = {state.name: state for state in folder.deployments()}
    state = known.get("nano", DeploymentState(name="nano", network=network()))
    record = ControllerRecord(token=TOKEN)
    folder.write(msgspec.structs.replace(state, body=body(**spec), controller=record))


@asynccontextmanager
async def controlling(folder: StateFolder) -> AsyncIterator[Controller]:
    sources = Sources(Scraper())
    try:
        with Management() as management:
            yield Controller(folder, "nano", TOKEN, PROGRAM, sources, management)
    finally:
        await sources.close()


def groups(folder: StateFolder) -> list[str]:
    """Return the groups of which every pod lives and that stay."""
    (state,) = folder.deployments()
    alive = [
        group
        for group, pods in state.groups.items()
        if all(processes.is_alive(Process(pod.pid, pod.start_ticks)) for pod in pods)
    ]
    return [group for group in alive if group not in state.leaving]


async def look_until(control: Controller, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, "the condition never came true"
        await control.look()


async def test_groups_come_and_go_as_the_bounds_say_and_leave_nothing(folder: StateFolder) -> None:
    put(folder, scaling={"min": 1, "max": 3}, replicas=1)
    async with controlling(folder) as control:
        start_first(folder)
        put(folder, scaling={"min": 2, "max": 3})
        await look_until(control, lambda: groups(folder) == ["nano-g0", "nano-g1"])
        put(folder, scaling={"min": 1, "max": 1})
        await look_until(control, lambda: groups(folder) == ["nano-g0"])
        await look_until(control, lambda: len(folder.deployments()[0].pods) == 1)
    view = scaling.read(folder.scaling_file("nano"))
    assert view is not None
    assert [(each.before, each.after) for each in view.history] == [(2, 1), (1, 2)]


def start_first(folder: StateFolder) -> None:
    """Bring up one group, and wait for it, as `up` does."""
    wait_until_ready(bring_up_first(folder), folder, DEADLINE_S, lambda _: None)


def bring_up_first(folder: StateFolder) -> DeploymentState:
    (state,) = folder.deployments()
    deployment = parse_deployment(state.body)
    layout = plan(deployment)
    assert isinstance(layout, Layout)
    with folder.locked():
        return bring_up(folder, "nano", render(deployment, layout, [0]), PROGRAM).state


async def test_promises_reach_every_group_also_when_they_are_edited_or_gone(folder: StateFolder) -> None:
    bounds = {"min": 2, "max": 2}
    put(folder, scaling=bounds)
    async with controlling(folder) as control:

        def measure_by(digest: str | None) -> bool:
            """Tell whether every group measures by these promises."""
            reports = [control.management.group(pods[0].address) for pods in folder.deployments()[0].groups.values()]
            return all(report is not None and report.slo_digest == digest for report in reports)

        start_first(folder)
        await look_until(control, lambda: len(groups(folder)) == 2 and measure_by(None))  # none were promised yet
        for classes in ([{"name": "chat", "ttft": "500ms"}], [{"name": "chat", "ttft": "1s"}], []):
            slo = Slo.model_validate({"classes": classes})
            put(folder, scaling=bounds, slo=slo.model_dump(mode="json", by_alias=True, exclude_none=True))
            await look_until(control, partial(measure_by, slo_digest(slo.for_workers())))
            view = scaling.read(folder.scaling_file("nano"))
            assert view is not None
            assert (view.attainment, view.unmeasured) == ({}, ["chat"] if classes else []), (
                "its workers measure nothing"
            )


async def test_the_policy_reaches_every_group_also_when_it_is_edited_or_gone(folder: StateFolder) -> None:
    bounds = {"min": 2, "max": 2}
    put(folder, scaling=bounds)
    async with controlling(folder) as control:

        def treat_by(digest: str | None) -> bool:
            """Tell whether every group has this policy."""
            reports = [control.management.group(pods[0].address) for pods in folder.deployments()[0].groups.values()]
            return all(report is not None and report.policy_digest == digest for report in reports)

        start_first(folder)
        await look_until(control, lambda: len(groups(folder)) == 2 and treat_by(None))  # none was wanted yet
        pids = [pod.pid for pod in folder.deployments()[0].pods]
        for reasoning in ({"visibility": "Hidden"}, {"default": "Auto", "autoThreshold": 0.7}, {}):
            put(folder, scaling=bounds, reasoning=reasoning)
            wanted = policy_digest(parse_deployment(folder.deployments()[0].body).spec.policy.for_workers())
            await look_until(control, partial(treat_by, wanted))
        assert [pod.pid for pod in folder.deployments()[0].pods] == pids, "an edit restarts nothing"


async def test_a_pod_that_died_is_started_again(folder: StateFolder) -> None:
    put(folder, scaling={"max": 2})
    async with controlling(folder) as control:
        start_first(folder)
        (pod,) = folder.deployments()[0].pods
        processes.kill(Process(pod.pid, pod.start_ticks))
        await look_until(control, lambda: groups(folder) == ["nano-g0"] and folder.deployments()[0].pods[0] != pod)


def tokens(folder: StateFolder) -> dict[str, str]:
    """Return the token of each pod's newest process."""
    return {pod.name: pod.token for pod in folder.deployments()[0].pods}


async def test_a_pod_that_ends_at_once_is_started_later_and_later_and_holds_up_no_other(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    put(folder, scaling={"max": 2})
    async with controlling(folder) as control:
        control.now = lambda: clock[0]
        start_first(folder)
        (pod,) = folder.deployments()[0].pods
        monkeypatch.setenv("PRETEND", "crashes")
        processes.kill(Process(pod.pid, pod.start_ticks))

        def said() -> str:
            (status,) = [each for each in group_statuses(folder.deployments(), control.now) if each.group == "nano-g0"]
            return status.last_failure

        await look_until(control, lambda: "2 times in a row; it is started again in 2 s" in said())
        for pause_s, count in ((2.0, 3), (4.0, 4), (8.0, 5)):
            before = tokens(folder)
            clock[0] += pause_s - 0.1
            await control.look()
            assert tokens(folder) == before, "not yet"
            clock[0] += 0.1
            sentence = f"{count} times in a row; it is started again in {2 * pause_s:.0f} s"
            await look_until(control, lambda sentence=sentence: sentence in said())  # type: ignore[misc]
            assert tokens(folder) != before
        monkeypatch.setenv("PRETEND", "serves")
        put(folder, scaling={"min": 2, "max": 2})
        await look_until(control, lambda: groups(folder) == ["nano-g1"])
        clock[0] += crashes.MAX_PAUSE_S
        await look_until(control, lambda: groups(folder) == ["nano-g0", "nano-g1"])
        assert "5 times in a row; it runs again" in said()
        await look_until(control, lambda: folder.deployments()[0].crashes[0].serves_since is not None)
        clock[0] += crashes.SERVED_S
        await look_until(control, lambda: folder.deployments()[0].crashes == [])
        assert said() == ""


async def test_of_two_groups_the_one_that_does_not_serve_goes(folder: StateFolder) -> None:
    put(folder, scaling={"min": 2, "max": 2})
    async with controlling(folder) as control:
        start_first(folder)
        await look_until(control, lambda: groups(folder) == ["nano-g0", "nano-g1"])
        wait_until_ready(folder.deployments()[0], folder, DEADLINE_S, lambda _: None)
        (pod,) = folder.deployments()[0].groups["nano-g0"]
        processes.kill(Process(pod.pid, pod.start_ticks))
        until_gone = time.monotonic() + DEADLINE_S
        while groups(folder) != ["nano-g1"]:
            assert time.monotonic() < until_gone
        put(folder, scaling={"min": 1, "max": 1})
        await look_until(control, lambda: len(folder.deployments()[0].pods) == 1)
        assert groups(folder) == ["nano-g1"]


async def test_what_up_has_started_is_no_order_of_the_controller_whose_effect_is_waited_for(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("START_S", "3")  # of the second pod; the group serves when both are there
    put(folder, scaling={"max": 2}, parallelism={"expert": 2}, hardware={"device": "cpu", "ranksPerPod": 1})
    async with controlling(folder) as control:
        bring_up_first(folder)
        await control.look()
        assert control.memory.at_s is None, "nothing is decided yet"
        await look_until(control, lambda: control.memory.serving == 1)
        assert control.memory.grew_s is None


async def test_while_another_command_holds_the_lock_nothing_is_changed_and_nothing_fails(folder: StateFolder) -> None:
    put(folder, scaling={"min": 2, "max": 2})
    async with controlling(folder) as control:
        start_first(folder)
        with folder.locked():
            for _ in range(2):
                await control.look()
            assert groups(folder) == ["nano-g0"]
            view = scaling.read(folder.scaling_file("nano"))
            assert view is not None
            assert (view.current, view.history) == (1, []), "what was not done is no change"
        await look_until(control, lambda: groups(folder) == ["nano-g0", "nano-g1"])
        assert [(each.before, each.after) for each in control.history] == [(1, 2)]


async def test_a_group_past_its_time_is_killed_at_once(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRETEND", "hangs")  # ignores SIGTERM
    put(folder, scaling={"min": 2, "max": 2}, replicas=2)
    async with controlling(folder) as control:
        start_first(folder)
        await look_until(control, lambda: control.memory.serving == 2)  # until then a process dies of SIGTERM
        put(folder, scaling={"min": 1, "max": 1}, replicas=1)
        await look_until(control, lambda: len(control.leaving) == 1)
        control.leaving = dict.fromkeys(control.leaving, time.monotonic() - 1.0)
        begun_s = time.monotonic()
        await look_until(control, lambda: len(folder.deployments()[0].pods) == 1)
        assert time.monotonic() - begun_s < folder.deployments()[0].pods[0].drain_s, "it has no second deadline"


async def test_a_look_that_fails_ends_no_controller(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, scaling={"max": 2})
    async with controlling(folder) as control:
        looks = iter([ZeroDivisionError("a bug"), Replaced()])

        async def look() -> None:
            raise next(looks)

        monkeypatch.setattr(control, "look", look)
        await control.run(period_s=0.01)  # goes on until it is replaced
    assert list(looks) == []


async def test_a_controller_that_was_replaced_changes_nothing_and_ends(folder: StateFolder) -> None:
    put(folder, scaling={"min": 2, "max": 2})
    async with controlling(folder) as control:
        start_first(folder)
        (state,) = folder.deployments()
        folder.write(msgspec.structs.replace(state, controller=ControllerRecord(token="another")))
        await control.run(period_s=0.01)  # returns
    assert groups(folder) == ["nano-g0"]


def test_the_process_starts_and_ends_with_its_deployment(folder: StateFolder) -> None:
    put(folder, scaling={"max": 2})
    (state,) = folder.deployments()
    started = controller.start(folder, state, prometheus=None)
    assert started.controller is not None
    token = started.controller.token
    assert [process.pid for process in processes.members(token)] == [started.controller.pid]
    controller.stop(folder, started)
    assert processes.members(token) == []
    assert not folder.run_dir("nano", "controller").exists()


def test_a_group_that_was_told_to_go_and_has_gone_is_not_shown_as_dead(folder: StateFolder) -> None:
    put(folder, scaling={"max": 2})
    start_first(folder)
    (state,) = folder.deployments()
    processes.kill(Process(state.pods[0].pid, state.pods[0].start_ticks))
    until_gone = time.monotonic() + DEADLINE_S
    while groups(folder):
        assert time.monotonic() < until_gone
    assert [status.state for status in group_statuses([state])] == ["dead"]
    assert group_statuses([msgspec.structs.replace(state, leaving=["nano-g0"])]) == []
