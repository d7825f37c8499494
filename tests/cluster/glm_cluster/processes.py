"""The cluster's background programs: started in the network namespace, known by pid file, stopped by pid.

A pid file holds the pid and the start time, so that a pid which the kernel gave to somebody else meanwhile is never
killed. The programs outlive the command that started them.
"""

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from glm_cluster.addresses import NETNS
from glm_cluster.commands import cluster_environment, tail
from glm_cluster.errors import ClusterError
from glm_cluster.waiting import GaveUp, wait_for


class Stat(NamedTuple):
    """What /proc/PID/stat says of a process that we need."""

    state: str
    start_ticks: int


def parse_stat(text: str) -> Stat:
    """Return state and start time. The name is in parentheses and may itself hold spaces and parentheses."""
    fields = text.rpartition(")")[2].split()
    return Stat(state=fields[0], start_ticks=int(fields[19]))


def stat_of(pid: int) -> Stat | None:
    """Return the process' state, or None when there is none (a zombie of ours is reaped and counts as none)."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        stat = parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if stat.state == "Z" else stat


@dataclass(frozen=True)
class Processes:
    """The programs whose pid files are in one folder and whose logs are in another."""

    pids: Path
    logs: Path

    def start(self, name: str, *argv: str | Path) -> None:
        """Start a program in the cluster's network namespace with its output in NAME.log."""
        self.pids.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        # NOTE: nsenter, not `ip netns exec`: that one remounts /sys, which hides the cgroups.
        command = ["/usr/bin/nsenter", f"--net=/run/netns/{NETNS}", "--", *(str(a) for a in argv)]
        to_log = os.open(self.log(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            pid = os.posix_spawn(
                command[0],
                command,
                cluster_environment(),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, to_log, 1),
                    (os.POSIX_SPAWN_DUP2, to_log, 2),
                ],
                setsid=True,
            )
        finally:
            os.close(to_log)
        stat = stat_of(pid)
        if stat is None:
            raise ClusterError(f"{name} ended at once:\n{self.said(name)}")
        unfinished = self._file(name).with_suffix(".new")
        unfinished.write_text(json.dumps({"pid": pid, "start_ticks": stat.start_ticks, "at": time.time()}))
        unfinished.replace(self._file(name))  # whole or not at all

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def said(self, name: str) -> str:
        """Return the end of a program's log."""
        log = self.log(name)
        return tail(log.read_text(errors="replace"), 15) if log.exists() else ""

    def pid(self, name: str) -> int | None:
        """Return the pid of a program that is running."""
        try:
            noted = json.loads(self._file(name).read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # never started, or the disk was full
            return None
        stat = stat_of(noted["pid"])
        return noted["pid"] if stat and stat.start_ticks == noted["start_ticks"] else None

    def require(self, name: str) -> None:
        """Raise GaveUp with the end of its log when a program that should run does not."""
        if self.pid(name) is None:
            raise GaveUp(f"{name} has ended; the end of {self.log(name)}:\n{self.said(name)}")

    def names(self) -> list[str]:
        """Return every program started here, the first started first."""
        files = sorted(self.pids.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        return [file.stem for file in files]

    def stop(self, name: str, *, grace_s: float = 10.0) -> None:
        """End a program: SIGTERM, and SIGKILL when that was not enough. One that does not run is forgotten."""
        for sign, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 20.0)):
            if (pid := self.pid(name)) is None:
                break
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
            with suppress(ClusterError):
                wait_for(f"the end of {name}", lambda: self.pid(name) is None, timeout_s=patience_s, interval_s=0.02)
        if pid := self.pid(name):
            raise ClusterError(f"{name} (pid {pid}) survives SIGKILL: it is stuck in the kernel")
        self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.pids / f"{name}.json"
