"""One cluster and one operator for all stories; a clean operator log after each; diagnostics of a failed one."""

import contextlib
import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.deployments import Deployed, nano
from e2e.footprint import MODEL_NAMESPACE, OPERATOR_NAMESPACE, in_the_way
from e2e.kubectl_glm import printed
from e2e.lanes import found_lanes
from e2e.operator_release import Release
from e2e.target import Target, found_target
from glm_cluster.addresses import GPU_RESOURCE
from glm_cluster.errors import CommandFailed

KEYS_SECRET = "pair-clients"

GPUS_AT_ONCE = 8
"""Three groups of `nano`, each a pod with two, beside the two pods of `two-pods` with one each."""

LAST = ("test_autoscaling.py", "test_release.py")
"""What measures how fast groups are comes when nothing else runs beside it, and what uninstalls the operator after all.
"""

LANES = found_lanes(os.environ)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "alone: does something to the operator or the node, which no other story expects"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _is_story(item):  # pytest hands over those of other folders too
            item.add_marker(pytest.mark.e2e)
    items.sort(key=_place)


def _is_story(item: pytest.Item) -> bool:
    return item.path.is_relative_to(Path(__file__).parent)


def _place(item: pytest.Item) -> int:
    """Return when a test comes: before those that must be alone, as one of these, or as one of the last."""
    if item.path.name in LAST:
        return 2 + LAST.index(item.path.name)
    return int(item.get_closest_marker("alone") is not None)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around faulthandler's timeout: waiting is no test that hangs
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Tell a story when the other lane lets us; set-up and teardown are parts of it."""
    if LANES is None or not _is_story(item):
        return (yield)
    if item.path.name in LAST:
        LANES.wait_second()
        return (yield)
    if not LANES.is_first:
        LANES.wait_installed()  # before its turn: the first lane may want to be alone for its first story
    LANES.begin_turn(alone=_place(item) > 0)
    try:
        return (yield)
    finally:
        # Of the fixtures of a file, too, the other lane should know nothing: fake nodes, another version's operator.
        if not (_place(item) and nextitem and _place(nextitem) and nextitem.path == item.path):
            LANES.end_turn()


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    """Return the cluster with the namespaces of the stories, which go at the end with all that is in them.

    Of a given cluster only what was made here goes: the run ends before it has begun where one of them is there. Our
    own cluster is the stories' own, namespaces that an earlier run left in it included. Of two lanes only the first
    makes and deletes them.
    """
    with contextlib.ExitStack() as made:
        target = made.enter_context(found_target())
        if LANES is not None and not LANES.is_first:
            yield target
            return
        if target.cluster is None and (reason := in_the_way(*target.found())):
            pytest.exit(reason, returncode=1)
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        verb = "create" if target.cluster is None else "apply"
        for namespace in (OPERATOR_NAMESPACE, MODEL_NAMESPACE):
            manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
            target.kubectl(verb, "-f", "-", stdin=json.dumps(manifest))
            delete = ("delete", "namespace", namespace, "--ignore-not-found")
            made.callback(target.kubectl, *delete, timeout_s=180)
        yield target


@pytest.fixture(scope="session")
def release(target: Target) -> Iterator[Release]:
    release = Release(target, "glm", OPERATOR_NAMESPACE)
    if LANES is not None and not LANES.is_first:
        yield release  # the first lane's
        return
    release.install()
    if LANES is not None:
        LANES.tell_installed()
    yield release
    with contextlib.suppress(CommandFailed):  # the last story uninstalls it itself
        release.uninstall()


@pytest.fixture(scope="session")
def counted_gpus(target: Target) -> int:
    """Return how many GPUs the stories may ask for: all they want, or none of a given cluster that has fewer."""
    num_gpus = target.num_gpus()
    assert target.cluster is None or num_gpus >= GPUS_AT_ONCE
    return GPUS_AT_ONCE if num_gpus >= GPUS_AT_ONCE else 0


@pytest.fixture(scope="session")
def gpus(counted_gpus: int) -> None:
    """Leave out a story whose pods ask for GPUs that a given cluster does not have."""
    if not counted_gpus:
        pytest.skip(f"this cluster has fewer than {GPUS_AT_ONCE} allocatable {GPU_RESOURCE}, which the stories ask for")


@pytest.fixture(scope="session")
def shared(release: Release, counted_gpus: int) -> Iterator[Deployed]:
    """One deployment of 1 pod x 2 ranks that stories may use and must leave as they found it."""
    deployed = Deployed(release.target, "nano", MODEL_NAMESPACE)
    hardware: dict[str, Any] = {"resources": {"limits": {GPU_RESOURCE: "2"}}} if counted_gpus else {}
    release.target.apply(nano("nano", MODEL_NAMESPACE, **hardware))
    deployed.wait_ready()
    deployed.wait_answers()
    yield deployed
    deployed.delete()


@pytest.fixture(scope="session")
def pair(release: Release) -> Iterator[Deployed]:
    """Two groups behind two pods of a gateway that asks for keys; a rollout says early when it stands still.

    Stories leave it as they found it, with other pods.
    """
    manifest = nano("pair", MODEL_NAMESPACE, ranks_per_pod=1, ranks=1)
    manifest["spec"] |= {
        "replicas": 2,
        "rollout": {"progressDeadlineSeconds": 30},
        "access": {"auth": "APIKeys", "keysSecretRef": {"name": KEYS_SECRET}},
        "gateway": {"replicas": 2, "drainSeconds": 60},
    }
    release.target.kubectl("delete", "secret", KEYS_SECRET, "-n", MODEL_NAMESPACE, "--ignore-not-found")
    key = printed(release.target, "keys", "create", "guest", "-n", MODEL_NAMESPACE, "--secret", KEYS_SECRET)
    release.target.apply(manifest)
    deployed = Deployed(release.target, "pair", MODEL_NAMESPACE, key)
    deployed.wait_settled("2/2")
    deployed.wait_answers()
    yield deployed
    deployed.delete()


@pytest.fixture
def all_stories(request: pytest.FixtureRequest) -> None:
    """Leave out what is true only when every story before has run and passed."""
    files = {item.path.resolve() for item in request.session.items}
    failed = request.session.testsfailed
    if LANES is not None:
        status, others = LANES.second()
        files |= others
        failed = failed or status
    if request.config.option.keyword or not files.issuperset(Path(__file__).resolve().parent.glob("test_*.py")):
        pytest.skip("true only of a run of all stories, and some were not asked for")
    if failed:
        pytest.skip("true only of a run of all stories, and some did not come to their end")


@pytest.fixture(autouse=True)
def _clean_operator_log(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "release" in request.fixturenames or "shared" in request.fixturenames:
        request.getfixturevalue("release").assert_clean_logs()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the state of the cluster to a failed story."""
    report = yield
    target = getattr(item, "funcargs", {}).get("target")
    if report.failed and isinstance(target, Target):
        report.sections.append(("the cluster when it failed", diagnostics(target)))
    return report


def diagnostics(target: Target) -> str:
    """Return objects, events and logs of both namespaces."""
    commands = [
        ("get", "glmd,statefulsets,pods,services", "-A", "-o", "wide"),
        ("get", "glmd", "-A", "-o", "yaml"),
        ("get", "events", "-A", "--sort-by=.lastTimestamp"),
        ("logs", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/component=operator", "--tail=200"),
        ("logs", "-n", MODEL_NAMESPACE, "-l", "app.kubernetes.io/managed-by=glm-operator", "--tail=60", "--prefix"),
    ]
    parts = []
    for command in commands:
        try:
            said = target.kubectl(*command)
        except CommandFailed as error:
            said = str(error)
        parts.append(f"$ kubectl {' '.join(command)}\n{said}")
    return "\n".join(parts)
