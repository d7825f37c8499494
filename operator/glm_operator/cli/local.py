"""`glm local`: run a GLMDeployment as processes of this machine."""

import asyncio
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from glm_gateway.access.keys import keyring_of
from glm_operator import names
from glm_operator.api.spec import GLMDeployment, parse_deployment
from glm_operator.cli.console import CommandError, SpecFile, err, out, plain_errors, progress, size, url_of_option
from glm_operator.cli.files import Planned, read_planned
from glm_operator.cli.follow import follow
from glm_operator.cli.key_stores import FolderStore
from glm_operator.local import controller, live, scaling
from glm_operator.local import down as local_down
from glm_operator.local import up as local_up
from glm_operator.local.errors import LocalError
from glm_operator.local.gateway import front
from glm_operator.local.gateway import process as gateway_process
from glm_operator.local.gateway.file import asks_for_keys, of_clusters_only
from glm_operator.local.gateway.status import GatewayStatus, gateway_statuses
from glm_operator.local.management import Management
from glm_operator.local.pods import index_of
from glm_operator.local.processes import worker_program
from glm_operator.local.state import DeploymentState, GatewayRecord, PodRecord, StateFolder
from glm_operator.local.status import group_statuses, url
from glm_operator.render import render

app = typer.Typer(help="Run GLMDeployments as processes of this machine: no cluster, no root.", no_args_is_help=True)

Name = Annotated[str | None, typer.Argument(help="One deployment; default: all of them.")]

LOCK_PATIENCE_S = 60.0
"""A controller that replaces a group has the lock for seconds; a `down` that waits for requests, for minutes."""


@app.command()
def up(
    file: SpecFile,
    wait: Annotated[
        float | None,
        typer.Option(help="Seconds to wait until every group serves; default: the spec's startLimitSeconds."),
    ] = None,
    prometheus: Annotated[
        str | None,
        typer.Option(help="URL of a Prometheus that scrapes the groups; default: the controller asks them itself."),
    ] = None,
) -> None:
    """Make what runs equal to the file, wait until it serves, and print its address: that of its gateway.

    Running it again changes only what differs; a group that runs keeps its GPUs, and the gateway takes over what it can
    while requests run. A deployment is known by its name alone: a file with another namespace and the same name changes
    the same processes. Unless spec.access.auth is None, callers need a key: `glm keys create NAME --local`.

    A small controller stays behind: it tells the gateway which groups there are, starts what has died, measures, starts
    and stops groups as the operator would, tells them what the spec wants of them, and `down` ends it. With
    scaling.mode Active it keeps the number of groups, whatever spec.replicas says; External and Disabled keep that.
    With spec.gateway.enabled false it stays for spec.slo, spec.scaling, spec.reasoning and spec.access only.

    Without meaning here, as there is no cluster: metadata.namespace; of spec.hardware the nodeSelector, tolerations,
    resources, sharedMemory and gpu.resourceName; of spec.engine the image, imagePullPolicy, imagePullSecrets and
    limits.drainAcceptSeconds. An edit of one still makes a new revision, which restarts the groups. What has none of
    spec.gateway and spec.access is named.
    """
    folder = StateFolder.of_user()
    with plain_errors():
        url_of_prometheus = None if prometheus is None else url_of_option(prometheus)
        planned = read_planned(file)
        body = _body(planned)
        deployment = parse_deployment(body)  # as the controller reads it, or it would take every group for changed
        program, name, spec = worker_program(), deployment.name, deployment.spec
        _say_what_counts_elsewhere(folder, deployment)
        with _locked(folder, name), _told_on_interrupt(name), progress("starting") as show:
            _stop_controllers(folder, name)
            try:
                indices = _indices(folder, deployment)
                started = local_up.bring_up(
                    folder,
                    name,
                    render(deployment, planned.layout, indices),
                    program,
                    stopping=lambda pods: show(_stopping(pods)),
                    leaving=lambda state, groups: front.leave(folder, state, groups),
                    awaits_policy=not spec.policy.is_default,  # then there is a controller
                )
                state = msgspec.structs.replace(started.state, body=body, controller=None, leaving=[], stopping=[])
                folder.write(state)
                state = front.bring_up(folder, state, deployment, stopping=lambda gateways: show(_stopping(gateways)))
                if scaling.needs_controller(spec):
                    controller.start(folder, state, url_of_prometheus)
            except LocalError as error:
                if local_up.is_any_alive(folder, name):
                    raise LocalError(f"{error}\n{_runs_on(name)}") from error
                raise
        done = started.changes
        err.print(f"started {len(done.start)}, stopped {len(done.stop)}, left alone {len(done.keep)} pods")
        limit = wait if wait is not None else max((pod.start_limit_s for pod in started.state.pods), default=0.0)
        with _told_on_interrupt(name), progress("waiting") as show:
            try:
                local_up.wait_until_ready(
                    started.state, folder, limit, lambda groups: show("; ".join(map(_progress, groups)))
                )
            except LocalError as error:
                raise LocalError(f"{error}\n{_runs_on(name)}") from error
        _tell(deployment, started.state)
        if not scaling.needs_controller(spec):
            front.tell_groups(folder, state)  # to gateways of others; nobody else would
        if state.gateway is not None:
            _wait_for_gateway(folder, state, state.gateway)
        _say_what_serves(folder, deployment, state)


@app.command()
def status(
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """Print what every gateway and every group does. In JSON what has `gateway` is one, what has `group` the other."""
    with plain_errors():
        if output not in ("table", "json"):
            raise CommandError(f"--output {output} is not known; use table or json")
        states = StateFolder.of_user().deployments()
        groups, gateways = group_statuses(states), gateway_statuses(states)
    if output == "json":
        rows = [*(each.as_dict() for each in gateways), *(each.as_dict() for each in groups)]
        out.print_json(json.dumps(rows))
        return
    for gateway in gateways:
        out.print(_line_of(gateway), markup=False)
    if not groups and not gateways:
        out.print("nothing runs; start something with: glm local up -f examples/nano.yaml")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Group", "State", "Generation", "Pods", "URL", "Restarts", "Memory"):
        table.add_column(column)
    for group in groups:
        pods = f"{group.pods_alive}/{group.pods}"
        table.add_row(
            group.group, group.state, group.generation, pods, group.url, str(group.restarts), size(group.memory_bytes)
        )
    if groups:
        out.print(table)
    failures = [f"{group.group}: last failure: {group.last_failure}" for group in groups if group.last_failure]
    for line in (*failures, *_scaling_lines(StateFolder.of_user())):
        out.print(line, markup=False)


@app.command()
def logs(
    group: Annotated[
        str | None,
        typer.Argument(help="A group (nano-g0), a pod (nano-g0-1), or gateway; default: everything."),
    ] = None,
    keep_following: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on printing what is added, until Ctrl-C.")
    ] = False,
) -> None:
    """Print the logs of gateways and pods, each line with whose it is when there are several."""
    folder = StateFolder.of_user()
    with plain_errors():
        states = folder.deployments()
        pods = [(state.name, pod.name, pod.group) for state in states for pod in state.pods]
        gateways = [(state.name, state.gateway.name) for state in states if state.gateway is not None]
        chosen = {
            gateway: folder.log_file(name, gateway_process.RUN_DIR)
            for name, gateway in gateways
            if group in (None, "gateway", gateway)
        }
        chosen |= {pod: folder.log_file(name, pod) for name, pod, of in pods if group in (None, of, pod)}
        if not chosen:
            known = (
                ", ".join([*(gateway for _, gateway in gateways), *dict.fromkeys(of for _, _, of in pods)]) or "none"
            )
            raise CommandError(
                f"no gateway, group or pod {group!r} runs; there are: {known}" if group else "nothing runs"
            )
        follow(chosen, forever=keep_following, write=lambda line: out.print(line, markup=False))


@app.command()
def down(
    name: Name = None,
    deadline: Annotated[
        float | None,
        typer.Option(help="Seconds that requests may take to finish; default: the spec's drainDeadlineSeconds."),
    ] = None,
) -> None:
    """Let requests finish, stop every process, and check that none is left. Gateways take no new ones meanwhile."""
    folder = StateFolder.of_user()
    with plain_errors(), _locked(folder, name):
        _stop_controllers(folder, name)
        states = _states(folder, name)
        if name is not None and not states:
            raise CommandError(f"no deployment {name!r} runs")
        with progress("stopping") as show:
            for state in states:
                _stop(folder, state, deadline, show)
        if not states:
            out.print("nothing runs")


@contextmanager
def _locked(folder: StateFolder, name: str | None) -> Iterator[None]:
    """Hold the lock, which another command or a controller may have for some seconds.

    A controller of what this command is about that has it for longer is stuck, and is ended. Whoever gives up because
    of another one leaves everything as it was.
    """
    with ExitStack() as stack:
        try:
            waits = functools.partial(err.print, "waiting for another `glm local` command, or a controller")
            stack.enter_context(folder.locked(LOCK_PATIENCE_S, waits))
        except LocalError:
            controllers = [state.controller for state in _states(folder, name)]
            if folder.holder() not in [record.pid for record in controllers if record is not None]:
                raise
            _stop_controllers(folder, name)
            stack.enter_context(folder.locked())
        yield


def _tell(deployment: GLMDeployment, state: DeploymentState) -> None:
    """Put what the spec wants of groups to those that have something else, also where it wants nothing any more."""
    with Management() as management:
        for group, pods in state.groups.items():
            report = management.group(pods[0].address)
            refused = live.tell(management, deployment, pods[0].address, report) if report is not None else []
            for what in refused:
                err.print(f"{group} does not take {what}: its worker is of another version", markup=False)


def _say_what_counts_elsewhere(folder: StateFolder, deployment: GLMDeployment) -> None:
    """Say what of a gateway's spec has no meaning here. LocalError, before anything starts, for what cannot be."""
    if not deployment.spec.front.is_wanted:
        return
    front.file_of(folder, DeploymentState(name=deployment.name, network=0), deployment)
    _, unserved = front.models_of(folder, deployment)
    for line in (*of_clusters_only(deployment, folder.usage_folder(deployment.name)), *unserved):
        err.print(line, markup=False)


def _say_what_serves(folder: StateFolder, deployment: GLMDeployment, state: DeploymentState) -> None:
    """Say where the deployment serves, and what else runs for it."""
    name, spec = deployment.name, deployment.spec
    if state.gateway is not None:
        out.print(f"{name} serves at {gateway_process.url(state.gateway)}")
    else:
        for group, pods in state.groups.items():
            out.print(f"{group} serves at {url(pods[0])}")
    if asks_for_keys(deployment) and not _has_keys(folder):
        err.print("callers need a key, and there is none yet; make one with: glm keys create NAME --local")
    if scaling.scales_or_promises(spec):
        out.print(f"a controller scales {name}; `glm local status` shows what it decides")
    elif not spec.policy.is_default:
        out.print(f"a controller tells the groups of {name} the policy of the spec")


def _wait_for_gateway(folder: StateFolder, state: DeploymentState, record: GatewayRecord) -> None:
    """Return when the gateway sends requests to all groups."""
    try:
        view = gateway_process.wait_until_ready(folder, state.name, record, [*state.groups])
    except LocalError as error:
        raise LocalError(f"{error}\n{_runs_on(state.name)}") from error
    if view.config_fault is not None:
        err.print(f"the gateway does not go by all of its file: {view.config_fault}", markup=False)


def _has_keys(folder: StateFolder) -> bool:
    return bool(keyring_of(asyncio.run(FolderStore(folder.keys_folder).items())).keys)


def _states(folder: StateFolder, name: str | None) -> list[DeploymentState]:
    return [state for state in folder.deployments() if name in (None, state.name)]


def _indices(folder: StateFolder, deployment: GLMDeployment) -> list[int]:
    """Return the groups that are to be: those that run stay, where their number is not the file's to say."""
    states = _states(folder, deployment.name)
    there = {index_of(group): group in state.leaving for state in states for group in state.groups}
    staying = [index for index, is_leaving in there.items() if not is_leaving]
    wanted = scaling.groups_to_bring_up(deployment.spec, len(staying) if states else None)
    return scaling.indices_after(staying, there, wanted, {})


def _stop_controllers(folder: StateFolder, name: str | None) -> None:
    """End what would change processes as soon as this command gives the lock back."""
    for state in _states(folder, name):
        controller.stop(folder, state)


def _body(planned: Planned) -> dict[str, object]:
    """Return the deployment as a file for this machine has it: without what a cluster has added to it."""
    deployment = planned.deployment
    spec = deployment.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    metadata: dict[str, object] = {"name": deployment.name, "namespace": deployment.namespace}
    if planned.labels:
        metadata["labels"] = {**planned.labels}
    return {"apiVersion": f"{names.GROUP}/{names.VERSION}", "kind": names.KIND, "metadata": metadata, "spec": spec}


def _scaling_lines(folder: StateFolder) -> list[str]:
    """Return what the controllers say, in lines for a person."""
    lines = []
    for state in folder.deployments():
        view = scaling.read(folder.scaling_file(state.name))
        if controller.has_died(state):
            log = folder.log_file(state.name, controller.RUN_DIR)
            lines.append(
                f"{state.name}: its controller has died, nothing is scaled; run `glm local up` again. Log: {log}"
            )
        elif view is not None:
            lines += _lines_of(state.name, view)
    return lines


def _lines_of(name: str, view: scaling.ScalingView) -> list[str]:
    limit = f", limited by {view.limited_by}" if view.limited_by else ""
    lines = [f"{name}: groups {view.current}, wanted {view.desired} ({view.mode}{limit}): {view.message}"]
    if view.trouble:
        lines.append(f"{name}: {view.trouble}")
    for slo_class, share in view.attainment.items():
        said = "no traffic" if share is None else f"{share:.1%} of requests as fast as promised"
        lines.append(f"{name}: class {slo_class}: {said}")
    lines += [f"{name}: class {each}: not measured just now" for each in view.unmeasured]
    lines += [f"{name}: {each.time} {each.before} -> {each.after}: {each.message}" for each in view.history]
    return lines


def _stop(folder: StateFolder, state: DeploymentState, deadline: float | None, show: Callable[[str], None]) -> None:
    killed = gateway_process.stop(folder, state, deadline, lambda gateways: show(_stopping(gateways)))
    front.leave(folder, state, [*state.groups])  # gateways of others that also serve it
    killed += local_down.stop_pods(state.pods, deadline, report=lambda pods: show(_stopping(pods)))
    folder.remove(state)
    if killed:
        err.print(f"killed after the deadline, with requests unfinished or hung: {', '.join(killed)}")
    gateway = "" if state.gateway is None else "gateway, "
    out.print(f"{state.name} stopped: {gateway}{len(state.pods)} pods, no process left")


@contextmanager
def _told_on_interrupt(name: str) -> Iterator[None]:
    """Ctrl-C ends the command, never what it has started: say so."""
    try:
        yield
    except KeyboardInterrupt:
        err.print(_runs_on(name), markup=False)
        raise


def _runs_on(name: str) -> str:
    return f"What was started of {name} still runs; stop it with: glm local down {name}"


def _line_of(gateway: GatewayStatus) -> str:
    if gateway.state != "serving":
        what = "has died, and is started again" if gateway.state == "dead" else "does not answer"
        return f"{gateway.deployment}: its gateway {what}; see `glm local logs {gateway.gateway}`"
    does = f"{gateway.running} requests run, {gateway.held} wait for a group"
    line = (
        f"{gateway.deployment} serves at {gateway.url}: {does}, {gateway.groups_ready} of {gateway.groups} groups ready"
    )
    return line if not gateway.fault else f"{line}; not all of its file holds: {gateway.fault}"


def _stopping(pods: Sequence[PodRecord] | Sequence[GatewayRecord]) -> str:
    return f"waiting for requests of {', '.join(pod.name for pod in pods)} to finish"


def _progress(waiting: local_up.Waiting) -> str:
    if waiting.view is None:
        return f"{waiting.group}: starting its supervisor"
    load = waiting.view.load_progress()
    loaded = f", {size(load.done_bytes)} of {size(load.total_bytes)} loaded" if load is not None else ""
    return f"{waiting.group}: {waiting.view.state.replace('_', ' ')}{loaded}"
