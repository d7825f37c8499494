"""The story of a promise: load comes and goes, Prometheus breaks, and the number of groups follows the load alone."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from e2e.arrivals import Arrivals, arriving
from e2e.conftest import MODEL_NAMESPACE
from e2e.deployments import Deployed, nano, wait_for
from e2e.kubectl_glm import kubectl_glm
from e2e.operator_release import Release
from glm_cluster.prometheus import Prometheus, pod_discovery_config, prometheus

SCRAPE_S = 2.0
SLOTS = 4
"""Requests that a group computes at once: what makes its capacity a number that this story can measure."""

TURNS = 60
ASKED = {
    "messages": [
        *(
            {"role": role, "content": text}
            for turn in range(TURNS)
            for role, text in (("user", f"What is {turn}+12?"), ("assistant", f"{turn + 12}"))
        ),
        {"role": "user", "content": "What is 12+30?"},
    ],
    "max_tokens": 8,
    "are_alike": False,
}
"""A long conversation and a short answer: work for the engine, and little for clients and servers on the same cores.

What glm-nano makes of it is not judged here, but that it answers to the end.
"""

MOST_GROUPS = 3
CALM, LOAD = 0.3, 2.0
"""Arrivals, in shares of what one group answers.

Three carry it with a third to spare, and two would be full where 70 % is wanted: what one group can do differs by some
15 per cent between two moments of a machine on which other tests run.
"""

FEW_PER_S, MANY_PER_S = 2.0, 16.0
"""Arrivals a second that one group answers on any machine, and that want all groups: one answers some 3 to 6."""

TTFT_S = 4.0
SPEC = {
    "slo": {"classes": [{"name": "chat", "ttft": f"{TTFT_S:g}s"}]},
    "scaling": {
        "mode": "Observe",
        "max": MOST_GROUPS,
        "targetUtilization": 70,
        "warmUpSeconds": 5,
        "down": {"stabilizationSeconds": 10, "periodSeconds": 5},
    },
}


@pytest.fixture(scope="module")
def scraping(release: Release) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the pods by their annotations, and an operator that asks it."""
    cluster = release.target.cluster
    if cluster is None:
        pytest.skip("these stories run a Prometheus of their own beside the cluster, which must be ours")
    config = pod_discovery_config(cluster, interval_s=SCRAPE_S, namespaces=[MODEL_NAMESPACE])
    with prometheus(cluster, config) as found:
        release.install("--set", f"prometheus.url={found.url}")
        yield found
    release.install()


@pytest.fixture(scope="module")
def promised(release: Release, scraping: Prometheus) -> Iterator[Deployed]:
    """A deployment of one group with 300m of a CPU, which observes and scales nothing yet."""
    manifest = nano("promised", MODEL_NAMESPACE, ranks_per_pod=1, ranks=1, resources={"limits": {"cpu": "300m"}})
    manifest["spec"]["engine"]["limits"]["maxNumSeqs"] = SLOTS
    manifest["spec"] |= SPEC
    manifest["spec"]["gateway"] = {"overload": {"enabled": False}}  # all of the load is to reach the groups
    release.target.apply(manifest)
    deployed = Deployed(release.target, "promised", MODEL_NAMESPACE)
    deployed.wait_settled("1/1")
    deployed.wait_answers()
    yield deployed
    deployed.delete()


@dataclass
class Watcher:
    """What the number of groups was, as time went by."""

    deployed: Deployed
    began_s: float = field(default_factory=time.monotonic)
    seen: list[tuple[float, int]] = field(default_factory=list)

    def groups(self) -> int:
        """Return how many groups are wanted now, and note when that changed."""
        groups = int(self.deployed.spec()["replicas"])
        if not self.seen or self.seen[-1][1] != groups:
            self.seen.append((self.seconds(), groups))
        return groups

    def seconds(self) -> float:
        return time.monotonic() - self.began_s

    def until(self, groups: int, *, timeout_s: float) -> None:
        wait_for(f"{groups} groups wanted", lambda: self.groups() == groups, timeout_s=timeout_s)


def capacity(deployed: Deployed) -> float:
    """Return how many requests a second one group answers, with all of its slots in use."""
    seconds = 20.0
    with arriving(deployed, rate=0, right="", **ASKED) as calls:
        deadline = time.monotonic() + seconds
        calls.at_once = SLOTS
        wait_for("the end of the measurement", lambda: time.monotonic() > deadline, timeout_s=2 * seconds)
        answered = calls.num_answered()
        calls.at_once = 0
    assert calls.failures == []
    return answered / seconds


def is_kept(arrivals: Arrivals) -> bool:
    """Whether 95 % of the last seconds' requests got their first token in time, and of those that still wait, too."""
    judged, kept = arrivals.kept(TTFT_S, window_s=20)
    return judged >= 10 and kept >= 0.95 * judged


def history(deployed: Deployed) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = deployed.status()["scaling"]["history"]
    return found


def test_groups_follow_rising_load(
    promised: Deployed, scraping: Prometheus, capsys: pytest.CaptureFixture[str]
) -> None:
    with arriving(promised, rate=FEW_PER_S, right="", **ASKED) as arrivals:
        wait_for("requests in time", lambda: is_kept(arrivals), timeout_s=120)
        promised.patch(scaling={"mode": "Active"})
        watcher = Watcher(promised)
        assert watcher.groups() == 1
        arrivals.rate = MANY_PER_S
        try:
            watcher.until(MOST_GROUPS, timeout_s=60)
        finally:
            promised.patch(scaling={"mode": "Observe"})  # or groups would go while what waits is answered
        arrivals.rate = 0
        numbers = {"all_wanted_s": watcher.seconds()}
        assert_grown(promised)
        numbers["groups_ready_s"] = watcher.seconds()
        assert_explained(promised, watcher)
    assert arrivals.failures == []
    assert [groups for _, groups in watcher.seen] in ([1, 3], [1, 2, 3])
    tell(capsys, numbers)
    promised.scale(1)
    promised.wait_settled("1/1")


@pytest.mark.long  # minutes under load; `make demo` shows groups go in local mode
def test_groups_follow_the_load_up_and_down_and_nothing_else_even_where_prometheus_breaks(
    promised: Deployed, scraping: Prometheus, capsys: pytest.CaptureFixture[str]
) -> None:
    one_group, numbers = capacity(promised), dict[str, float]()
    with calm(promised, scraping, one_group) as arrivals:
        began_s = time.monotonic()
        watcher = grow(promised, arrivals, one_group, numbers)
        scraping.kill()
        wait_for("a condition that tells of it", lambda: metrics(promised) == "MetricsFallback", timeout_s=60)
        assert watcher.groups() == 3
        scraping.start()
        wait_for("a condition that tells of its return", lambda: metrics(promised) == "MetricsRead", timeout_s=120)
        assert watcher.groups() == 3
        wait_for("requests in time again", lambda: is_kept(arrivals), timeout_s=240)
        numbers["kept_again_s"] = time.monotonic() - began_s

        arrivals.rate = CALM * one_group
        eased_s = time.monotonic()
        watcher.until(1, timeout_s=240)
        numbers["one_group_again_s"] = time.monotonic() - eased_s
        promised.wait_settled("1/1")
    assert arrivals.failures == []
    assert [groups for _, groups in watcher.seen] in ([1, 3, 2, 1], [1, 2, 3, 2, 1]), "no turning back"
    assert_explained(promised, watcher)
    tell(capsys, numbers)


@contextmanager
def calm(promised: Deployed, scraping: Prometheus, one_group: float) -> Iterator[Arrivals]:
    """Have few requests come, until Prometheus says so and all are in time; then let the number of groups follow."""
    arriving_now = 'sum(rate(glm_requests_received_total{deployment="promised"}[45s]))'  # as the law looks at it
    with arriving(promised, rate=CALM * one_group, right="", **ASKED) as arrivals:
        wait_for("calm", lambda: 0.0 < (scraping.value(arriving_now) or 0.0) < 0.5 * one_group, timeout_s=120)
        wait_for("requests in time", lambda: is_kept(arrivals), timeout_s=120)
        promised.patch(scaling={"mode": "Active"})
        yield arrivals


def grow(promised: Deployed, arrivals: Arrivals, one_group: float, numbers: dict[str, float]) -> Watcher:
    """Load the one group until there are as many as may be."""
    watcher = Watcher(promised)
    assert watcher.groups() == 1
    arrivals.rate = LOAD * one_group
    wait_for("more groups wanted", lambda: watcher.groups() > 1, timeout_s=60)
    numbers |= {"one_group_requests_per_s": one_group, "decided_s": watcher.seconds()}
    watcher.until(MOST_GROUPS, timeout_s=60)
    assert_grown(promised)
    numbers["groups_ready_s"] = watcher.seconds()
    return watcher


def assert_grown(promised: Deployed) -> None:
    """All groups serve, and the command shows them."""
    promised.wait_settled("3/3", timeout_s=180)
    shown = json.loads(kubectl_glm(promised.target, "status", "promised", "-n", MODEL_NAMESPACE, "-o", "json"))
    assert len(shown["groups"]) == 3
    drawn = kubectl_glm(promised.target, "status", "promised", "-n", MODEL_NAMESPACE, "--once")
    assert all(word in drawn for word in ("promised-g2", "chat", "1 -> "))


def assert_explained(promised: Deployed, watcher: Watcher) -> None:
    """Every step that was seen is in the history, with a sentence."""
    changes = [(each["from"], each["to"]) for each in reversed(history(promised))]
    assert [to for _, to in changes][-len(watcher.seen) + 1 :] == [groups for _, groups in watcher.seen[1:]]
    assert all(each["message"] for each in history(promised)), "every step is explained"


def tell(capsys: pytest.CaptureFixture[str], numbers: dict[str, float]) -> None:
    with capsys.disabled():
        print(f"\n{json.dumps({'story': 'autoscaling', **{name: round(s, 1) for name, s in numbers.items()}})}")


def metrics(deployed: Deployed) -> str:
    return str(deployed.condition("MetricsAvailable")["reason"])


@pytest.mark.long  # minutes of waiting; tests/integration/test_prometheus_source.py has the short one
def test_a_relabelling_that_hides_our_series_is_a_condition_and_no_zero(
    promised: Deployed, scraping: Prometheus
) -> None:
    cluster = promised.target.cluster
    assert cluster is not None
    config = pod_discovery_config(cluster, interval_s=SCRAPE_S, namespaces=[MODEL_NAMESPACE])
    hidden = json.loads(json.dumps(config))
    hidden["scrape_configs"][0]["metric_relabel_configs"] = [{"action": "labeldrop", "regex": "deployment"}]
    promised.patch(scaling={"onMissingMetrics": "Hold", "min": 1})
    try:
        scraping.reload(hidden)

        def is_told() -> bool:
            condition = promised.condition("MetricsAvailable")
            return condition["reason"] == "NoSeries" and 'deployment="promised"' in condition["message"]

        wait_for("NoSeries with the query", is_told, timeout_s=180)
        assert promised.spec()["replicas"] == 1
        assert promised.status()["scaling"]["limitedBy"] == "MissingMetrics"
    finally:
        scraping.reload(config)
        promised.patch(scaling={"onMissingMetrics": None})
    wait_for("metrics again", lambda: metrics(promised) == "MetricsRead", timeout_s=120)


def test_an_edited_promise_reaches_workers_within_seconds_and_restarts_nothing(
    promised: Deployed, scraping: Prometheus
) -> None:
    before = promised.pod_uids()
    changed = {"classes": [{"name": "chat", "ttft": "700ms"}, {"name": "think", "ttfa": "3s"}]}
    promised.patch(slo=changed)

    def has_edges() -> bool:
        query = 'glm_time_to_first_token_seconds_bucket{deployment="promised",slo_class="chat",le=~"0.35|0.7|1.4"}'
        return {series["metric"]["le"] for series in scraping.query(query)} == {"0.35", "0.7", "1.4"}

    wait_for("edges at the promise, its half and its double", has_edges, timeout_s=30)
    assert scraping.value('max(glm_slo_threshold_seconds{deployment="promised",slo_class="think",signal="ttfa"})') == 3
    assert promised.pod_uids() == before
