"""`glm local up`: make what runs equal to what the manifests say, then wait until it serves."""

import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from glm_operator.local import gpus, ports, processes
from glm_operator.local.changes import Changes, changes
from glm_operator.local.down import stop_pods
from glm_operator.local.errors import LocalError
from glm_operator.local.management import Management
from glm_operator.local.pods import AWAITS_POLICY, LocalPod, Placement, local_pods
from glm_operator.local.processes import Process
from glm_operator.local.rendezvous import assign_blocks
from glm_operator.local.state import DRAIN_DEADLINE_S, DeploymentState, PodRecord, StateFolder
from glm_operator.manifest import Manifest
from glm_operator.observe.report import GroupReport

POLL_S = 0.2
LOG_LINES = 15


@dataclass(frozen=True)
class Started:
    """What `up` did, and what it left alone."""

    state: DeploymentState
    changes: Changes


@dataclass(frozen=True)
class Waiting:
    """A group that does not serve yet."""

    group: str
    view: GroupReport | None  # None while its supervisor does not answer


def bring_up(
    folder: StateFolder,
    name: str,
    manifests: Sequence[Manifest],
    program: Sequence[str],
    stopping: Callable[[list[PodRecord]], None] = lambda _: None,
    leaving: Callable[[DeploymentState, Collection[str]], None] = lambda *_: None,
    untouched: Collection[str] = (),
    *,
    awaits_policy: bool = False,
) -> Started:
    """Start, restart and stop pods until exactly the manifests' pods run. Hold the folder's lock.

    stopping is called with the pods that are being waited for while they finish their requests; leaving before that,
    with what runs and the groups of which some pods will be stopped. untouched: groups that are left as they are,
    because they finish their requests by themselves; no manifest may name them. awaits_policy: whether pods that start
    wait to be told how to treat requests; those that run are left alone whatever it is.
    """
    known = _known_state(folder, name)
    aside = [pod for pod in known.pods if pod.group in untouched]
    old = msgspec.structs.replace(known, pods=[pod for pod in known.pods if pod.group not in untouched])
    others = [state for state in folder.deployments() if state.name != name]
    network = old.network if known.pods or known.gateway else ports.free_network({state.network for state in others})
    wanted = local_pods(manifests, Placement(network, lambda pod: folder.run_dir(name, pod)))
    alive = {pod.name for pod in old.pods if processes.is_alive(Process(pod.pid, pod.start_ticks))}
    others = [*others, msgspec.structs.replace(known, pods=aside)]  # what they hold is taken, too
    devices, blocks = _devices(wanted, old, alive, others), _blocks(wanted, old, alive, others)
    wanted = [_with_block(_with_devices(pod, devices), blocks) for pod in wanted]

    plan = changes(wanted, old.pods, alive)
    if plan.stop:
        leaving(known, {pod.group for pod in plan.stop})
    stop_pods(plan.stop, report=stopping)
    folder.remove_run_dirs(name, [pod.name for pod in plan.stop])
    _check_ports(plan.start)
    state = msgspec.structs.replace(old, network=network, pods=[*aside, *plan.keep])
    folder.write(state)
    for pod in plan.start if awaits_policy else map(_awaiting_nothing, plan.start):
        state = _start(folder, state, pod, program, devices.get(pod.name, []), blocks.get(pod.group))
    return Started(state, plan)


def wait_until_ready(
    state: DeploymentState, folder: StateFolder, deadline_s: float, report: Callable[[Sequence[Waiting]], None]
) -> None:
    """Return when every group serves. LocalError names the group that does not, why, and the end of its log.

    report is called with the groups still waited for, several times a second.
    """
    deadline = time.monotonic() + deadline_s
    waiting = dict(state.groups)
    with Management() as management:
        while True:
            waiting = {group: pods for group, pods in waiting.items() if not serves(pods[0], management)}
            if not waiting:
                return
            views = {group: management.group(pods[0].address) for group, pods in waiting.items()}
            report([Waiting(group, view) for group, view in views.items()])
            for group, pods in waiting.items():
                _raise_if_hopeless(folder, state, group, pods, views[group])
            if time.monotonic() > deadline:
                raise LocalError(_too_late(folder, state, views, deadline_s))
            time.sleep(POLL_S)


def serves(leader: PodRecord, management: Management) -> bool:
    """Whether a group serves. Where its leader has ended, whoever answers at the address is a stranger."""
    return processes.is_alive(Process(leader.pid, leader.start_ticks)) and management.is_ready(leader.address)


def is_any_alive(folder: StateFolder, name: str) -> bool:
    """Whether a recorded pod of the deployment runs. LocalError where bring_up has one, too: a damaged state."""
    return any(processes.is_alive(Process(pod.pid, pod.start_ticks)) for pod in _known_state(folder, name).pods)


def _known_state(folder: StateFolder, name: str) -> DeploymentState:
    known = {state.name: state for state in folder.deployments()}
    return known.get(name, DeploymentState(name=name, network=0))


def _devices(
    wanted: Sequence[LocalPod], old: DeploymentState, alive: Collection[str], others: Sequence[DeploymentState]
) -> dict[str, list[str]]:
    """Return the devices of each pod on CUDA. A group that runs keeps its own, a dead one those still to be had."""
    if not any(pod.num_gpus for pod in wanted):
        return {}
    visible = processes.visible_gpus()
    running = {pod.group for pod in old.pods if pod.name in alive}
    held = {pod.name: pod.devices for pod in old.pods if pod.group in running or {*pod.devices} <= {*visible}}
    taken = {device for state in others for pod in state.pods for device in pod.devices}
    return gpus.assign_gpus(wanted, visible, taken, held)


def _with_devices(pod: LocalPod, devices: Mapping[str, list[str]]) -> LocalPod:
    if pod.name not in devices:
        return pod
    return replace(pod, env={**pod.env, "CUDA_VISIBLE_DEVICES": ",".join(devices[pod.name])})


def _awaiting_nothing(pod: LocalPod) -> LocalPod:
    return replace(pod, env={name: value for name, value in pod.env.items() if name != AWAITS_POLICY})


def _blocks(
    wanted: Sequence[LocalPod], old: DeploymentState, alive: Collection[str], others: Sequence[DeploymentState]
) -> dict[str, int]:
    """Return the first port of the block of each group of several pods. A group that runs keeps its block."""
    groups = dict.fromkeys(pod.group for pod in wanted if pod.index > 0)
    held = {pod.group: pod.rendezvous_port for pod in old.pods if pod.rendezvous_port and pod.name in alive}
    taken = {pod.rendezvous_port for state in others for pod in state.pods if pod.rendezvous_port}
    return assign_blocks([*groups], held, taken, ports.is_block_free)


def _with_block(pod: LocalPod, blocks: Mapping[str, int]) -> LocalPod:
    if pod.group not in blocks:
        return pod
    return replace(pod, env={**pod.env, "GLM_RENDEZVOUS_PORT": str(blocks[pod.group])})


def _check_ports(start: Sequence[LocalPod]) -> None:
    for pod in start:
        needed = ports.LEADER_PORTS if pod.index == 0 else ports.LEADER_PORTS[1:2]
        if busy := ports.busy_ports(pod.address, needed):
            raise LocalError(
                f"pod {pod.name} needs {pod.address}:{busy[0]}, which another program holds; "
                f"find it with: {ports.how_to_find(busy[0])}"
            )


def _start(
    folder: StateFolder,
    state: DeploymentState,
    pod: LocalPod,
    program: Sequence[str],
    devices: list[str],
    rendezvous_port: int | None,
) -> DeploymentState:
    """Record the pod, start it, record its process. Whatever dies in between, the token finds it again."""
    record = PodRecord(
        name=pod.name,
        group=pod.group,
        index=pod.index,
        address=pod.address,
        fingerprint=pod.fingerprint,
        token=secrets.token_hex(16),
        drain_s=float(pod.env.get("GLM_DRAIN_DEADLINE_S", DRAIN_DEADLINE_S)),
        start_limit_s=pod.start_limit_s,
        gpus=[*devices],
        rendezvous_port=rendezvous_port,
    )
    before = state.pods
    folder.write(msgspec.structs.replace(state, pods=[*before, record]))
    log = folder.log_file(state.name, pod.name)
    process = processes.start(
        [*program, *pod.arguments], pod.env, record.token, folder.run_dir(state.name, pod.name), log
    )
    started = msgspec.structs.replace(record, pid=process.pid, start_ticks=process.start_ticks)
    state = msgspec.structs.replace(state, pods=[*before, started])
    folder.write(state)
    return state


MAX_START_FAILURES = 3
"""A group that failed to start this often in a row will not start by waiting."""


def _raise_if_hopeless(
    folder: StateFolder, state: DeploymentState, group: str, pods: Sequence[PodRecord], view: GroupReport | None
) -> None:
    for pod in pods:
        if not processes.is_alive(Process(pod.pid, pod.start_ticks)):
            log = folder.log_file(state.name, pod.name)
            raise LocalError(
                f"group {group}: pod {pod.name} ended before it served. The end of {log}:\n{last_lines(log)}"
            )
    if view is not None and view.consecutive_start_failures >= MAX_START_FAILURES:
        raise LocalError(
            f"group {group} failed to start {view.consecutive_start_failures} times in a row. {view.failure_text}"
        )


def _too_late(
    folder: StateFolder, state: DeploymentState, views: Mapping[str, GroupReport | None], deadline_s: float
) -> str:
    group, view = next(iter(views.items()))
    said = "its supervisor does not answer" if view is None else f"it is {view.state}. {view.failure_text}".rstrip()
    log = folder.log_file(state.name, state.groups[group][0].name)
    return f"group {group} does not serve after {deadline_s:.0f} s: {said}. The end of {log}:\n{last_lines(log)}"


def last_lines(log: Path, count: int = LOG_LINES) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    except FileNotFoundError:
        return "(no log)"
