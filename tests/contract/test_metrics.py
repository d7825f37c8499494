"""Metrics that one side reads exist on the other, under the same name; all are documented."""

import re
from pathlib import Path
from random import Random

import pytest
from prometheus_client.metrics_core import Metric

from glm_operator.autoscale.series import ATTAINED, DECISIONS, DEMAND_METRICS, HISTOGRAMS
from glm_operator.autoscale.simulate.recorded import METRICS
from glm_operator.autoscale.simulate.thresholds import AUTO, SCORES, Scores
from glm_operator.cluster.metrics.queries import OWN_LABELS
from glm_worker.messages import Slo, SloClass
from glm_worker.server.metrics.telemetry import Gauges
from glm_worker.server.metrics.telemetry import Telemetry as ServerTelemetry
from glm_worker.server.thinking.resolve import Thinking
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.evidence.history import History
from glm_worker.supervisor.management.telemetry import Telemetry as LeaderTelemetry

DOCS = Path(__file__).resolve().parents[2] / "docs"


def a_page() -> list[Metric]:
    """Return what the leading pod of a group exposes."""
    server = ServerTelemetry("glm-nano")
    server.promise(Slo([SloClass(name="fast", thresholds_s={"ttft": 1}, objective=0.99)]))
    leader = LeaderTelemetry()
    return [*server.families(Gauges()), *leader.families("serving", History(), server_answers=True)]


def exposed() -> set[str]:
    """Return the names of all series, those of a histogram without the end."""
    series = {sample.name for family in a_page() for sample in family.samples}
    return series | {family.name for family in a_page() if family.type == "histogram"}


def test_what_autoscaling_reads_is_what_workers_expose() -> None:
    assert {*DEMAND_METRICS, *HISTOGRAMS.values(), ATTAINED} <= exposed()


def test_what_a_replay_reads_is_what_workers_expose() -> None:
    assert {*METRICS, SCORES, DECISIONS} <= exposed()
    labels = [sample.labels for family in a_page() for sample in family.samples if sample.name in (SCORES, DECISIONS)]
    assert {label for each in labels for label in each} <= OWN_LABELS, "or Prometheus' answer is read without them"
    edges = [float(each["le"]) for each in labels if "le" in each]
    assert edges == [*(round(step / 20 - 0.005, 3) for step in range(1, 21)), float("inf")]
    decided = {(each["mode"], each["by"]) for each in labels if "by" in each}
    assert {mode for mode, by in decided if by == AUTO} == {"enabled", "disabled"}


def test_a_replay_says_exactly_how_many_scores_reach_a_multiple_of_a_twentieth() -> None:
    """The worker counts, the operator reads: nothing is off by those whose score is the threshold itself."""
    chances = Random(11)
    scores = [chances.randrange(101) / 100 for _ in range(5_000)]
    scores += [step / 20 for step in range(21) for _ in range(step)]  # many right at a threshold
    telemetry = ServerTelemetry("glm-nano")
    for score in scores:
        telemetry.thinking.decided(Thinking(enabled=score >= 0.5, by="auto", score=score, threshold=0.5))
    buckets = [each for family in telemetry.families(Gauges()) for each in family.samples if each.name == SCORES]
    found = Scores(tuple((float(each.labels["le"]), each.value) for each in buckets))
    for step in range(21):
        threshold = step / 20
        assert found.share_from(threshold) == pytest.approx(
            sum(s >= threshold for s in scores) / len(scores), abs=1e-12
        )


def test_the_design_names_metrics_that_exist() -> None:
    design = (DOCS / "design/0007-autoscaling.md").read_text()
    table = design.partition("| metric |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(glm_\w+)`", table))
    assert len(named) > 20
    assert named <= exposed()


def test_labels_of_a_series_are_never_those_that_say_whose_it_is() -> None:
    identity = set(WorkerSettings(model="m").identity)
    clashing = [sample for family in a_page() for sample in family.samples if identity & sample.labels.keys()]
    assert clashing == []


def test_every_metric_of_a_worker_is_documented() -> None:
    documented = set(re.findall(r"^\| `([^`]+)` \|", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    names = {family.name + ("_total" if family.type == "counter" else "") for family in a_page()}
    assert names <= documented
