"""The gateway's process: started, replaced when it cannot take over what is new, ended when its requests have."""

import hashlib
import secrets
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from glm_operator import names
from glm_operator.local import ports, processes
from glm_operator.local.down import stop_pods
from glm_operator.local.errors import LocalError
from glm_operator.local.gateway.view import StateView
from glm_operator.local.management import Management
from glm_operator.local.pods import gateway_address
from glm_operator.local.processes import Process
from glm_operator.local.state import DeploymentState, GatewayRecord, StateFolder
from glm_operator.local.up import last_lines

RUN_DIR = "gateway"
START_LIMIT_S = 30.0
TAKEN_LIMIT_S = 10.0
"""A gateway looks at its file every second, and at the groups' twice as often."""

CUT_S = 2.0
"""For a gateway to write what was used, when it has nothing to wait for."""

POLL_S = 0.05
PROGRAM = (sys.executable, "-P", "-m", "glm_gateway.main")


def url(record: GatewayRecord) -> str:
    """Base URL of the OpenAI-compatible API of a deployment."""
    return f"http://{record.address}:{names.HTTP_PORT}/v1"


def process_of(record: GatewayRecord) -> Process:
    return Process(record.pid, record.start_ticks)


def is_alive(record: GatewayRecord | None) -> bool:
    return record is not None and processes.is_alive(process_of(record))


def wanted(state: DeploymentState, fingerprint: str, drain_s: float) -> GatewayRecord:
    """Return the record of a gateway that is to be, not started yet. It has the secret of the one before."""
    return GatewayRecord(
        name=names.gateway_name(state.name),
        address=gateway_address(state.network),
        fingerprint=fingerprint,
        token=secrets.token_hex(16),
        secret=state.gateway.secret if state.gateway is not None else secrets.token_hex(32),
        drain_s=drain_s,
    )


def start(folder: StateFolder, state: DeploymentState, record: GatewayRecord) -> DeploymentState:
    """Start a gateway by the file that lies there. Recorded before it starts. LocalError if its ports are taken."""
    if busy := ports.busy_ports(record.address, ports.GATEWAY_PORTS):
        raise LocalError(
            f"the gateway of {state.name} needs {record.address}:{busy[0]}, which another program holds; "
            f"find it with: {ports.how_to_find(busy[0])}"
        )
    state = msgspec.structs.replace(state, gateway=record)
    folder.write(state)
    command = [*PROGRAM, "--config", str(folder.gateway_file(state.name)), "--follow-seconds", "0"]
    env = {"GLM_GATEWAY_TOKEN": names.gateway_token(uid=""), "GLM_GATEWAY_SECRET": record.secret}
    run_dir, log = folder.run_dir(state.name, RUN_DIR), folder.log_file(state.name, RUN_DIR)
    process = processes.start(command, env, record.token, run_dir, log)
    record = msgspec.structs.replace(record, pid=process.pid, start_ticks=process.start_ticks)
    state = msgspec.structs.replace(state, gateway=record)
    folder.write(state)
    return state


def stop(
    folder: StateFolder,
    state: DeploymentState,
    deadline_s: float | None = None,
    report: Callable[[list[GatewayRecord]], None] = lambda _: None,
) -> list[str]:
    """End the gateway of a deployment, if it has one, when its requests have ended; return whom it had to kill.

    deadline_s: None is what the spec allows. Where no group lives, none comes any more: what is held is cut.
    """
    if state.gateway is None:
        return []
    serves = any(processes.is_alive(Process(pods[0].pid, pods[0].start_ticks)) for pods in state.groups.values())
    killed = stop_pods([state.gateway], deadline_s if serves else CUT_S, report)
    folder.remove_run_dirs(state.name, [RUN_DIR])
    return killed


def wait_until(
    folder: StateFolder,
    name: str,
    record: GatewayRecord,
    is_so: Callable[[StateView], bool],
    limit_s: float,
    what: str,
) -> StateView:
    """Return what the gateway says once that is so. LocalError says that it does not do `what`, with its log's end."""
    deadline, log = time.monotonic() + limit_s, folder.log_file(name, RUN_DIR)
    with Management() as management:
        while True:
            view = management.gateway(record.address) if is_alive(record) else None
            if view is not None and is_so(view):
                return view
            if not is_alive(record):
                raise LocalError(f"the gateway of {name} ended. The end of {log}:\n{last_lines(log)}")
            if time.monotonic() > deadline:
                raise LocalError(
                    f"the gateway of {name} does not {what} after {limit_s:.0f} s. The end of {log}:\n{last_lines(log)}"
                )
            time.sleep(POLL_S)


def wait_until_ready(folder: StateFolder, name: str, record: GatewayRecord, groups: Sequence[str]) -> StateView:
    """Return when the gateway goes by its file, as far as that can be, and sends requests to each of the groups."""
    digest = hashlib.sha256(folder.gateway_file(name).read_bytes()).hexdigest()
    wait_until(folder, name, record, lambda view: view.takes(digest), START_LIMIT_S, "answer")
    return wait_until(folder, name, record, lambda view: view.knows_ready(groups), TAKEN_LIMIT_S, "find all groups")
