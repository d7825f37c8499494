"""`glm local down`: let requests finish, then make sure that nothing is left."""

import time
from collections.abc import Callable, Sequence

from glm_operator.local import processes
from glm_operator.local.errors import LocalError
from glm_operator.local.processes import Process
from glm_operator.local.state import PodRecord

POLL_S = 0.05
AFTER_DRAIN_S = 10.0  # for a supervisor to end its children once requests are done
AFTER_KILL_S = 10.0


def stop_pods(
    pods: Sequence[PodRecord],
    deadline_s: float | None = None,
    report: Callable[[list[PodRecord]], None] = lambda _: None,
) -> list[str]:
    """End the pods and everything they started; return the names of those that had to be killed.

    All get SIGTERM at once, as when a StatefulSet goes, and finish their requests. deadline_s: None is what the spec
    allows. report is called with the pods that still run. LocalError if a process survives even SIGKILL.
    """
    for pod in pods:
        processes.terminate(_process(pod))
    limit = deadline_s if deadline_s is not None else max((pod.drain_s for pod in pods), default=0.0) + AFTER_DRAIN_S
    running = _wait(pods, lambda pod: processes.is_alive(_process(pod)), limit, report)

    # What is left: supervisors past the deadline, and whatever outlived its supervisor.
    for pod in pods:
        processes.kill(processes.members(pod.token))
    left = _wait(pods, lambda pod: bool(processes.members(pod.token)), AFTER_KILL_S, report)
    if left:
        pids = [pid for pod in left for pid in processes.members(pod.token)]
        raise LocalError(f"processes {', '.join(map(str, pids))} do not die on SIGKILL (blocked in the kernel?)")
    return [pod.name for pod in running]


def _wait(
    pods: Sequence[PodRecord],
    runs: Callable[[PodRecord], bool],
    limit_s: float,
    report: Callable[[list[PodRecord]], None],
) -> list[PodRecord]:
    """Return the pods that still run when none does or the limit has passed."""
    deadline = time.monotonic() + limit_s
    while True:
        running = [pod for pod in pods if runs(pod)]
        if not running or time.monotonic() > deadline:
            return running
        report(running)
        time.sleep(POLL_S)


def _process(pod: PodRecord) -> Process:
    return Process(pod.pid, pod.start_ticks)
