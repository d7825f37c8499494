"""`glm local down`: let requests finish, then make sure that nothing is left."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from glm_operator.local import processes
from glm_operator.local.errors import LocalError
from glm_operator.local.processes import Process

POLL_S = 0.05
AFTER_DRAIN_S = 10.0  # for a supervisor to end its children once requests are done
AFTER_KILL_S = 10.0


class Record(Protocol):
    """What is known of a process that was started: a pod's supervisor, or a gateway."""

    @property
    def name(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def start_ticks(self) -> int: ...
    @property
    def drain_s(self) -> float: ...


R = TypeVar("R", bound=Record)


def stop_pods(
    pods: Sequence[R],
    deadline_s: float | None = None,
    report: Callable[[list[R]], None] = lambda _: None,
) -> list[str]:
    """End the pods and everything they started; return the names of those that had to be killed.

    All get SIGTERM at once, as when a StatefulSet goes, and finish their requests. deadline_s: None is what the spec
    allows. report is called with the pods that still may finish some. LocalError if a process survives even SIGKILL.
    """
    supervisors = {_process(pod): pod for pod in pods}
    for supervisor in supervisors:
        processes.terminate(supervisor)
    limit = deadline_s if deadline_s is not None else max((pod.drain_s for pod in pods), default=0.0) + AFTER_DRAIN_S
    deadline = time.monotonic() + limit
    while (running := _alive(supervisors)) and time.monotonic() < deadline:
        report(running)
        time.sleep(POLL_S)
    _kill_members(pods)
    return [pod.name for pod in running]


def _kill_members(pods: Sequence[Record]) -> None:
    """Kill supervisors past the deadline and whatever outlived its supervisor; return when all of them are dead.

    Not waited for is what was dying already when its supervisor had gone: nothing tells whose it is.
    """
    deadline = time.monotonic() + AFTER_KILL_S
    killed: dict[Process, Record] = {_process(pod): pod for pod in pods}  # one that just ends has only its number
    while True:
        found = {process: pod for pod in pods for process in processes.members(pod.token)}
        killed |= found
        for process in killed:
            processes.kill(process)
        if not found and not _alive(killed):
            return
        if time.monotonic() > deadline:
            pids = [str(process.pid) for process in killed if processes.is_alive(process)]
            raise LocalError(f"processes {', '.join(pids)} do not die on SIGKILL (blocked in the kernel?)")
        time.sleep(POLL_S)


def _alive(owners: Mapping[Process, R]) -> list[R]:
    """Return the pods of which a process is alive, each once."""
    return list({pod.name: pod for process, pod in owners.items() if processes.is_alive(process)}.values())


def _process(pod: Record) -> Process:
    return Process(pod.pid, pod.start_ticks)
