"""`make test`: run every stage this machine can run, fast ones first, and say what took how long and what was left out.

A failed stage does not hide the next one, but the slow ones are not begun then. Exit status 0: nothing failed.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/cluster"))

from glm_cluster.errors import ClusterError  # noqa: E402
from glm_cluster.given import given_cluster  # noqa: E402
from glm_cluster.paths import find_paths  # noqa: E402
from glm_cluster.preflight import check  # noqa: E402


@dataclass(frozen=True)
class Stage:
    """A target of the Makefile. obstacle: why this machine cannot run it, or None."""

    target: str
    about: str
    obstacle: Callable[[], str | None] = lambda: None
    is_slow: bool = False


@dataclass(frozen=True)
class Ran:
    """How a stage that ran ended. left_out: the parts of it that did not run, each with the reason."""

    status: int
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


def no_cluster() -> str | None:
    """Why the end-to-end stories cannot run: they need a cluster, or what it takes to bring one up."""
    try:
        if given_cluster(os.environ) is not None:
            return None
    except ClusterError:
        return None  # whoever names a cluster wants it used: let the stage fail and say what is wrong
    try:
        check(find_paths(os.environ), with_images=True)
    except ClusterError as error:
        return f"{error}; to run it anyway point E2E_KUBECONFIG at a cluster (CONTRIBUTING.md)"
    return None


STAGES = (
    Stage("lint", "ruff"),
    Stage("types", "mypy --strict"),
    Stage("imports", "who may import whom"),
    Stage("unit", "pure tests"),
    Stage("contract", "what types cannot pin"),
    Stage("integration", "gloo ranks, HTTP, processes"),
    Stage("demo", "what README shows first"),
    Stage("gpu", "parity on CUDA", no_gpu),
    Stage("e2e", "user stories on a real cluster", no_cluster, is_slow=True),
)


def run_stages(stages: Sequence[Stage], run: Callable[[Stage], Ran], say: Callable[[str], None]) -> list[Outcome]:
    """Run the stages in order and return what became of each. run may be interrupted."""
    outcomes: list[Outcome] = []
    for stage in stages:
        has_failed = any(outcome.result == "failed" for outcome in outcomes)
        reason = "an earlier stage failed" if stage.is_slow and has_failed else stage.obstacle()
        if reason:
            say(f"==> {stage.target}: LEFT OUT: {reason}")
            outcomes.append(Outcome(stage, "left out", reason=reason))
            continue
        say(f"==> {stage.target}: {stage.about}")
        start = time.monotonic()
        try:
            ran = run(stage)
        except KeyboardInterrupt:
            outcomes.append(Outcome(stage, "interrupted", time.monotonic() - start))
            return outcomes
        result = "failed" if ran.status else "passed"
        outcomes.append(Outcome(stage, result, time.monotonic() - start, left_out=ran.left_out))
    return outcomes


def exit_status(outcomes: Sequence[Outcome]) -> int:
    results = {outcome.result for outcome in outcomes}
    return 130 if "interrupted" in results else int("failed" in results)


def make(stage: Stage) -> Ran:
    """Run `make TARGET`; when interrupted, let it clean up first."""
    with tempfile.NamedTemporaryFile("r", prefix="stages-") as left_out:
        environment = os.environ | {"STAGES_LEFT_OUT": left_out.name}
        child = subprocess.Popen(["make", stage.target], cwd=ROOT, env=environment)
        try:
            status = child.wait()
        except KeyboardInterrupt:
            child.send_signal(signal.SIGTERM)  # Ctrl-C reached it already; a SIGTERM sent to us alone did not
            child.wait()
            raise
        return Ran(status, tuple(left_out.read().splitlines()))


def interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    signal.signal(signal.SIGTERM, interrupt)
    start = time.monotonic()
    outcomes = run_stages(STAGES, make, say)
    say("\nStages:")
    for outcome in outcomes:
        for line in outcome.lines():
            say(line)
    status = exit_status(outcomes)
    say(f"{'All that ran passed' if not status else 'NOT passed'} in {time.monotonic() - start:.0f} s.")
    return status


if __name__ == "__main__":
    sys.exit(main())
