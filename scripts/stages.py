"""`make test`: run every stage this machine can run, fast ones first, and say what took how long and what was left out.

A failed stage does not hide the next one, but the slow ones are not begun then. What waits more than it works runs
beside another stage; what one says while another speaks is shown when it has ended. Exit status 0: nothing failed.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/cluster"))

from glm_cluster import Cluster  # noqa: E402
from glm_cluster.errors import ClusterError  # noqa: E402
from glm_cluster.given import given_cluster  # noqa: E402
from glm_cluster.paths import find_paths  # noqa: E402
from glm_cluster.preflight import check  # noqa: E402


@dataclass(frozen=True)
class Stage:
    """A target of the Makefile.

    obstacle: why this machine cannot run it, or None. beside: the stage listed before that it runs at the same time as.
    """

    target: str
    about: str
    obstacle: Callable[[], str | None] = lambda: None
    is_slow: bool = False
    beside: str = ""


@dataclass(frozen=True)
class Ran:
    """How a stage that ran ended. left_out: the parts of it that did not run, each with the reason."""

    status: int
    seconds: float = 0.0
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    stage: Stage
    result: str  # passed, failed, left out, interrupted
    seconds: float = 0.0
    reason: str = ""
    left_out: tuple[str, ...] = ()  # parts of a stage that ran

    def lines(self) -> list[str]:
        time_or_reason = self.reason or f"{self.seconds:7.1f} s"
        parts = [f"  {'':<12} LEFT OUT    {part}" for part in self.left_out]
        return [f"  {self.stage.target:<12} {self.result:<11} {time_or_reason}", *parts]


def no_gpu() -> str | None:
    return None if shutil.which("nvidia-smi") else "no CUDA device here (no nvidia-smi)"


def given_cluster_is_named() -> bool:
    try:
        return given_cluster(os.environ) is not None
    except ClusterError:
        return True  # whoever names a cluster wants it used: let the stage fail and say what is wrong


def no_cluster() -> str | None:
    """Why the end-to-end stories cannot run: they need a cluster, or what it takes to bring one up."""
    if given_cluster_is_named():
        return None
    try:
        check(find_paths(os.environ), with_images=True)
    except ClusterError as error:
        return f"{error}; to run it anyway point E2E_KUBECONFIG at a cluster (CONTRIBUTING.md)"
    return None


def no_lifecycle() -> str | None:
    """Why the cluster's own story cannot run: it brings clusters up and down."""
    if given_cluster_is_named():
        return "E2E_KUBECONFIG names a cluster, and this is about the one made here"
    paths = find_paths(os.environ)
    if Cluster(paths).is_whole():
        return "a cluster is up (make cluster-down)"
    try:
        check(paths)
    except ClusterError as error:
        return str(error)
    return None


STAGES = (
    Stage("lint", "ruff"),
    Stage("types", "mypy --strict"),
    Stage("imports", "who may import whom"),
    Stage("lifecycle", "a cluster dies, comes back and goes", no_lifecycle),  # first: building it takes minutes
    Stage("unit", "pure tests", beside="lifecycle"),
    Stage("contract", "what types cannot pin", beside="lifecycle"),
    Stage("gpu", "parity on CUDA", no_gpu),
    Stage("e2e", "user stories on a real cluster", no_cluster, is_slow=True),
    Stage("demo", "what README shows first", is_slow=True, beside="e2e"),
    Stage("integration", "gloo ranks, HTTP, processes", is_slow=True, beside="e2e"),
)


class Running(Protocol):
    """A stage that runs."""

    def wait(self) -> Ran:
        """Return how it ended, when it has and what it said is shown. May be interrupted."""

    def stop(self) -> None:
        """End it early, after it has cleaned up, and show what it said."""


def run_stages(
    stages: Sequence[Stage], start: Callable[[Stage, bool], Running], say: Callable[[str], None]
) -> list[Outcome]:
    """Run the stages in order, some beside others, and return what became of each.

    start: begins a stage, whose output goes to the terminal, or is kept until it has ended (True). Waiting for one may
    be interrupted: those that run are stopped then, and no other begins.
    """
    outcomes: list[Outcome] = []
    for together in _groups(stages):
        chosen = []
        for stage in together:
            has_failed = any(outcome.result == "failed" for outcome in outcomes)
            reason = "an earlier stage failed" if stage.is_slow and has_failed else stage.obstacle()
            if reason:
                say(f"==> {stage.target}: LEFT OUT: {reason}")
                outcomes.append(Outcome(stage, "left out", reason=reason))
            else:
                chosen.append(stage)
        outcomes += _side_by_side(chosen, start, say)
        if any(outcome.result == "interrupted" for outcome in outcomes):
            break
    return outcomes


def _groups(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Return the stages in order, together those that run side by side."""
    groups: list[list[Stage]] = []
    for stage in stages:
        if groups and stage.beside == groups[-1][0].target:
            groups[-1].append(stage)
        else:
            groups.append([stage])
    return groups


def _side_by_side(
    stages: Sequence[Stage], start: Callable[[Stage, bool], Running], say: Callable[[str], None]
) -> list[Outcome]:
    """Run stages at the same time. The first one speaks on the terminal, each other one after it."""
    outcomes: list[Outcome] = []
    running: list[tuple[Stage, Running]] = []
    try:
        for place, stage in enumerate(stages):
            beside = f" (beside {stages[0].target}; its output comes when that has ended)" if place else ""
            say(f"==> {stage.target}: {stage.about}{beside}")
            running.append((stage, start(stage, place > 0)))
        while running:
            stage, process = running[0]
            ran = process.wait()
            running.pop(0)
            outcomes.append(Outcome(stage, "failed" if ran.status else "passed", ran.seconds, left_out=ran.left_out))
    except KeyboardInterrupt:
        for stage, process in running:
            process.stop()
            outcomes.append(Outcome(stage, "interrupted"))
    return outcomes


def exit_status(outcomes: Sequence[Outcome]) -> int:
    results = {outcome.result for outcome in outcomes}
    return 130 if "interrupted" in results else int("failed" in results)


class Make:
    """`make TARGET` as a process. What it says goes to the terminal, or is kept and shown when it has ended."""

    def __init__(self, stage: Stage, is_kept: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="stages-")
        self._notes, self._kept = Path(self._folder.name) / "left-out", Path(self._folder.name) / "said"
        self._notes.touch()
        self._kept.touch()
        self._began_s = self._ended_s = time.monotonic()
        with self._kept.open("wb") as output:
            self._child = subprocess.Popen(
                ["make", stage.target],
                cwd=ROOT,
                env=os.environ | {"STAGES_LEFT_OUT": str(self._notes)},
                stdout=output if is_kept else None,
                stderr=subprocess.STDOUT if is_kept else None,
            )
        self._watcher = threading.Thread(target=self._watch, name=stage.target)
        self._watcher.start()

    def wait(self) -> Ran:
        self._watcher.join()
        left_out = tuple(self._notes.read_text().splitlines())
        self._show()
        return Ran(self._child.returncode, self._ended_s - self._began_s, left_out)

    def stop(self) -> None:
        self._child.send_signal(signal.SIGTERM)  # Ctrl-C reached it already; a SIGTERM sent to us alone did not
        self._watcher.join()
        self._show()

    def _watch(self) -> None:
        self._child.wait()
        self._ended_s = time.monotonic()

    def _show(self) -> None:
        with self._kept.open("rb") as said:
            shutil.copyfileobj(said, sys.stdout.buffer)
        sys.stdout.flush()
        self._folder.cleanup()


def interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    signal.signal(signal.SIGTERM, interrupt)
    start = time.monotonic()
    outcomes = run_stages(STAGES, Make, say)
    say("\nStages:")
    for outcome in outcomes:
        for line in outcome.lines():
            say(line)
    status = exit_status(outcomes)
    say(f"{'All that ran passed' if not status else 'NOT passed'} in {time.monotonic() - start:.0f} s.")
    return status


if __name__ == "__main__":
    sys.exit(main())
