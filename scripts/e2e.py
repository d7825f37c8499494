"""`make e2e`: bring the cluster up if it is not, run the stories, and take it down again if it was not up before.

`make e2e-long` (--long) tells the long stories instead, and nothing else.

With --two-lanes they run in two on our own cluster, for they wait more than they work (tests/e2e/lanes.py). With
E2E_KUBECONFIG they run on that cluster and nothing is brought up or taken down (CONTRIBUTING.md). What is left out is
said, and appended to the file that STAGES_LEFT_OUT names, for the summary of `make test`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/cluster"))

from glm_cluster import Cluster, ClusterError  # noqa: E402
from glm_cluster.given import given_cluster  # noqa: E402
from glm_cluster.paths import find_paths  # noqa: E402
from glm_cluster.preflight import check  # noqa: E402

STORIES = ["tests/e2e"]
OF_OUR_CLUSTER = [
    "tests/integration/test_cluster_runs_pods.py",  # first: what fails here is the cluster's fault
    "tests/contract/test_chart_rendered.py",  # needs helm, which the cluster brings
]
GUESTS = ["tests/integration/test_cluster_guests.py"]  # Prometheus; long: what only long stories need built
SECOND_STORIES = [
    f"tests/e2e/{name}.py" for name in ("test_claims", "test_gateway", "test_quota", "test_rollouts", "test_traffic")
]
"""The second lane's. They share one deployment (`pair`), and the first lane's another (`shared`), which has GPUs."""

LONG = "--long"
TWO_LANES = "--two-lanes"


def is_up() -> bool:
    return Cluster(find_paths(os.environ)).is_whole()


def operators() -> list[str]:
    """Return the Helm releases on our cluster, which is up: `make cluster-nano` makes one."""
    listed = json.loads(Cluster.running().helm("list", "--all-namespaces", "--output", "json"))
    return [f"{each['name']} in {each['namespace']}" for each in listed]


def cluster(command: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests/cluster")}
    subprocess.run([sys.executable, "-m", "glm_cluster", command], cwd=ROOT, env=environment, check=True)


def bring_up() -> None:
    """Bring our cluster up. When that fails, keep its logs: what it left is taken down next."""
    try:
        cluster("up")
    except subprocess.CalledProcessError:
        paths = find_paths(os.environ)
        if paths.logs.is_dir():
            shutil.rmtree(paths.kept_logs, ignore_errors=True)
            shutil.copytree(paths.logs, paths.kept_logs, symlinks=True)
            print(f"The logs of the cluster that did not come up are kept in {paths.kept_logs}", file=sys.stderr)
        raise


def is_long() -> bool:
    return LONG in sys.argv[1:]


def flags() -> list[str]:
    """Return those that are pytest's."""
    return [flag for flag in sys.argv[1:] if flag not in (LONG, TWO_LANES)]


def pytest_of(tests: Sequence[str]) -> list[str]:
    """Return the command that runs the long ones of the tests, or all others."""
    marked = "long" if is_long() else "not long"
    command = [sys.executable, "-m", "pytest", "-v", "--durations=15", "-m", marked, *tests, *flags()]
    if is_long():
        command += ["-o", "faulthandler_timeout=1200"]  # a long story that takes its minutes is no test that hangs
    return command


def pytest(tests: list[str]) -> int:
    return subprocess.run(pytest_of(tests), cwd=ROOT, check=False).returncode


def lanes_of_stories() -> tuple[list[str], list[str]]:
    """Return the tests of both lanes. What needs no operator comes first, and tells of the cluster and its programs."""
    stories = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/e2e").glob("test_*.py"))
    on_pods, *of_chart = OF_OUR_CLUSTER
    first = [on_pods, *(story for story in stories if story not in SECOND_STORIES)]
    return first, [*of_chart, *GUESTS, *SECOND_STORIES]


def in_two_lanes(first: list[str], second: list[str]) -> int:
    """Run both at the same time. The second one's output is shown when both have ended."""
    with tempfile.TemporaryDirectory(prefix="e2e-lanes-") as name:
        folder, said = Path(name), Path(name) / "said"
        environ = os.environ | {"E2E_LANES": name}
        with said.open("wb") as output:
            beside = subprocess.Popen(
                pytest_of(second),
                cwd=ROOT,
                env=environ | {"E2E_LANE": "second"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        watcher = threading.Thread(target=tell_end, args=(beside, second, folder), name="second lane")
        watcher.start()
        try:
            status = run_first(pytest_of(first), environ | {"E2E_LANE": "first"})
        finally:
            beside.kill()  # no more than a formality, but where the first lane broke off: its end waits for the second
            watcher.join()
            print("\n==> e2e: the second lane, which ran beside the first:", flush=True)
            with said.open("rb") as told:
                shutil.copyfileobj(told, sys.stdout.buffer)
            sys.stdout.flush()
    return status or beside.returncode


def run_first(command: list[str], environ: Mapping[str, str]) -> int:
    return subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode


def tell_end(lane: subprocess.Popen[bytes], tests: list[str], folder: Path) -> None:
    """Tell the first lane when the second has ended, and how: it waits for that with its last stories."""
    told = {"status": lane.wait(), "files": [str(ROOT / test) for test in tests]}
    (folder / "ending").write_text(json.dumps(told))
    (folder / "ending").rename(folder / "ended")  # whole from the start


def leave_out(tests: list[str], reason: str) -> None:
    line = f"{', '.join(tests)}: {reason}"
    print(f"LEFT OUT: {line}", flush=True)
    notes = os.environ.get("STAGES_LEFT_OUT")
    if notes:
        with Path(notes).open("a") as file:
            file.write(f"{line}\n")


def on_given_cluster() -> int:
    status = pytest(STORIES)
    if is_long():
        return status
    leave_out(
        [*OF_OUR_CLUSTER, *GUESTS],
        "E2E_KUBECONFIG names a cluster, and these are about the one made here",
    )
    return status


def on_own_cluster() -> int:
    """Run the stories on this machine's cluster and leave it as it was found, up or down, but for an operator in it."""
    was_up = is_up()
    before = operators() if was_up else []
    if before:
        print(f"The stories use, and at their end uninstall, what is installed here: {', '.join(before)}.", flush=True)
    if not was_up:
        check(find_paths(os.environ), with_images=True)  # the images come last, and what they need is to be said first
    try:
        if not was_up:
            bring_up()
        for command in (
            "images",
            "kwok",
            "monitoring" if is_long() else "prometheus",
        ):  # by now, for their progress: inside a test nobody would see it
            cluster(command)
        if is_long():
            return pytest([*GUESTS, *STORIES])
        if TWO_LANES in sys.argv[1:]:
            return in_two_lanes(*lanes_of_stories())
        return pytest([*OF_OUR_CLUSTER, *GUESTS, *STORIES])
    finally:
        if before:
            print(
                f"The stories uninstall {', '.join(before)}: deployments in other namespaces serve on then, and nobody "
                "repairs or scales them. To install the operator again: make cluster-nano",
                flush=True,
            )
        if not was_up:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave mounts and processes behind
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            cluster("down")


def interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, interrupt)
    try:
        return on_own_cluster() if given_cluster(os.environ) is None else on_given_cluster()
    except subprocess.CalledProcessError as error:
        return error.returncode  # glm_cluster has said why
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
