"""`make test`: run every stage this machine can run, fast ones first, and say what took how long and what was left out.

A failed stage does not hide the next one, but a slow one is not begun then. What waits more than it works runs beside
other stages: all that is about the cluster in a row beside all the rest. One stage speaks at a time; what another says
meanwhile is shown when both have ended. Exit status 0: nothing failed.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
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

    obstacle: why this machine cannot run it, or None. after: the stages that must have ended before it begins; None:
    all that are listed before it.
    """

    target: str
    about: str
    obstacle: Callable[[], str | None] = lambda: None
    is_slow: bool = False
    after: tuple[str, ...] | None = None


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


UNIT = ("unit-worker", "unit-rest", "contract")
EARLY = ("imports", "lifecycle", "contract")  # stories take the longest, and wait for most of it
STAGES = (
    Stage("lint", "ruff"),
    Stage("types", "mypy --strict"),
    Stage("imports", "who may import whom"),
    Stage("lifecycle", "a cluster dies, comes back and goes", no_lifecycle),  # first: building it takes minutes
    Stage("unit-worker", "pure tests of the worker", after=("imports",)),
    Stage("unit-rest", "all other pure tests", after=("imports",)),
    Stage("contract", "what types cannot pin", after=("imports",)),
    Stage("gpu", "parity on CUDA", no_gpu, after=UNIT),
    Stage("e2e", "user stories on a real cluster", no_cluster, is_slow=True, after=EARLY),
    Stage("integration", "gloo ranks, HTTP, processes", is_slow=True, after=(*UNIT, "gpu")),
    # Beside the end of integration, which waits more than it works then; before, they would starve stories.
    Stage("sanitize", "kernels in C, where faults end them", is_slow=True, after=("unit-worker", "e2e")),
    Stage("triton", "kernels in Triton, by its interpreter", is_slow=True, after=("unit-worker", "e2e")),
    Stage("demo", "what README shows first", is_slow=True, after=(*UNIT, "gpu", "e2e")),
)

POLL_S = 0.1
"""Between two looks at what runs."""


class Running(Protocol):
    """A stage that runs."""

    def ended(self) -> Ran | None:
        """Return how it ended, or None while it runs."""

    def show(self) -> None:
        """Show what it said and was kept. Once, when it has ended."""

    def stop(self) -> None:
        """End it early, after it has cleaned up."""


@dataclass(frozen=True)
class Begun:
    """A stage whose process runs or has ended. is_kept: another one spoke when it began."""

    stage: Stage
    process: Running
    is_kept: bool


def run_stages(
    stages: Sequence[Stage], start: Callable[[Stage, bool], Running], say: Callable[[str], None]
) -> list[Outcome]:
    """Run each stage when those before it have ended, and return what became of all, in the order of the list.

    start: begins a stage, whose output goes to the terminal, or is kept until it is shown (True). Waiting may be
    interrupted: those that run are stopped then, and no other begins.
    """
    outcomes: dict[str, Outcome] = {}
    waiting, running, unshown = list(stages), list[Begun](), list[Begun]()
    try:
        while waiting or running:
            ready = [stage for stage in waiting if _before(stage, stages) <= outcomes.keys()]
            for stage in ready:
                waiting.remove(stage)
                if reason := _reason(stage, outcomes):
                    say(f"==> {stage.target}: LEFT OUT: {reason}")
                    outcomes[stage.target] = Outcome(stage, "left out", reason=reason)
                else:
                    running.append(_begin(stage, _speaker(running), start, say))
            over = [(each, ran) for each in running if (ran := each.process.ended())]
            for each, ran in over:
                running.remove(each)
                unshown.append(each)
                result = "failed" if ran.status else "passed"
                outcomes[each.stage.target] = Outcome(each.stage, result, ran.seconds, left_out=ran.left_out)
                if speaker := _speaker(running):
                    comes = f"its output comes when {speaker} has ended"
                    say(f"==> {each.stage.target}: {result} after {ran.seconds:.0f} s; {comes}")
            if not _speaker(running):
                _show(unshown)
            if not ready and not over:
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        for each in running:
            each.process.stop()
            outcomes[each.stage.target] = Outcome(each.stage, "interrupted")
        _show([*unshown, *running])
    return [outcomes[stage.target] for stage in stages if stage.target in outcomes]


def _before(stage: Stage, stages: Sequence[Stage]) -> set[str]:
    """Return the stages that must have ended before this one begins."""
    if stage.after is not None:
        return set(stage.after)
    return {each.target for each in stages[: stages.index(stage)]}


def _reason(stage: Stage, outcomes: Mapping[str, Outcome]) -> str | None:
    """Return why a stage that could begin now is left out, or None."""
    has_failed = any(outcome.result == "failed" for outcome in outcomes.values())
    return "an earlier stage failed" if stage.is_slow and has_failed else stage.obstacle()


def _speaker(running: Sequence[Begun]) -> str:
    """Return which stage has the terminal now; empty: none."""
    return next((each.stage.target for each in running if not each.is_kept), "")


def _begin(stage: Stage, speaker: str, start: Callable[[Stage, bool], Running], say: Callable[[str], None]) -> Begun:
    beside = f" (beside {speaker}; its output comes when that has ended)" if speaker else ""
    say(f"==> {stage.target}: {stage.about}{beside}")
    return Begun(stage, start(stage, bool(speaker)), is_kept=bool(speaker))


def _show(unshown: list[Begun]) -> None:
    for each in unshown:
        each.process.show()
    unshown.clear()


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

    def ended(self) -> Ran | None:
        if self._watcher.is_alive():
            return None
        left_out = tuple(self._notes.read_text().splitlines())
        return Ran(self._child.returncode, self._ended_s - self._began_s, left_out)

    def show(self) -> None:
        with self._kept.open("rb") as said:
            shutil.copyfileobj(said, sys.stdout.buffer)
        sys.stdout.flush()
        self._folder.cleanup()

    def stop(self) -> None:
        self._child.send_signal(signal.SIGTERM)  # Ctrl-C reached it already; a SIGTERM sent to us alone did not
        self._watcher.join()

    def _watch(self) -> None:
        self._child.wait()
        self._ended_s = time.monotonic()


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
