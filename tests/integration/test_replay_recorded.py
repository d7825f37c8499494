"""`glm replay --prometheus`: a range that a real Prometheus holds becomes a trace."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from glm_operator.cli import app
from integration.prometheus_process import backfill, prometheus_process

SPEC = """
apiVersion: glm-operator.io/v1alpha1
kind: GLMDeployment
metadata: {name: air, namespace: models}
spec:
  model: {name: GLM-4.5-Air, source: "pvc://models/GLM-4.5-Air"}
  hardware: {device: cuda, gpu: {resourceName: nvidia.com/gpu, perNode: 8}}
  slo: {classes: [{name: chat, ttft: 2s}]}
  scaling: {min: 1, max: 8}
"""
LENGTH_S = 600
COUNTERS = {
    'glm_requests_received_total{slo_class="chat"': 1.0,
    'glm_prompt_tokens_received_total{slo_class="chat"': 900.0,
    'glm_requests_total{outcome="finished"': 1.0,
    'glm_generation_tokens_total{kind="answer"': 300.0,
}
OF_THINKING = {
    'glm_generation_tokens_total{kind="reasoning"': 200.0,
    'glm_thinking_requests_total{thinking="enabled"': 0.25,
    'glm_thinking_decisions_total{mode="enabled",by="auto"': 0.25,
    'glm_thinking_decisions_total{mode="disabled",by="auto"': 0.75,
}
"""Of another deployment, `deep`: auto decides about every chat, and a quarter thinks, for 800 tokens."""


def recorded(begin_s: int) -> str:
    """Counters of two groups in OpenMetrics: each gets a request a second, of 900 tokens, answered with 300.

    Scores of `deep` lie evenly from 0.00 to 0.99.
    """
    lines = []
    for metric in dict.fromkeys(series.partition("{")[0] for series in (*COUNTERS, *OF_THINKING)):
        lines.append(f"# TYPE {metric.partition('_total')[0]} counter")
        for series, a_second in (COUNTERS | OF_THINKING).items():
            if series.partition("{")[0] == metric:
                for deployment in ("air", "deep") if series in COUNTERS else ("deep",):
                    lines += samples(series, deployment, a_second, begin_s)
    lines.append("# TYPE glm_auto_thinking_score histogram")
    for group in ("g0", "g1"):
        edges = [(f"{(step * 50 - 5) / 1000}", step / 20) for step in range(1, 21)]
        for edge, share in [*edges, ("+Inf", 1.0)]:
            lines += samples(f'glm_auto_thinking_score_bucket{{le="{edge}"', "deep", share, begin_s, (group,))
    return "\n".join([*lines, "# EOF", ""])


def samples(
    series: str, deployment: str, a_second: float, begin_s: int, groups: tuple[str, ...] = ("g0", "g1")
) -> list[str]:
    found = []
    for group in groups:
        labels = f'{series},namespace="models",deployment="{deployment}",group="{group}",revision="r1"}}'
        found += [f"{labels} {a_second * at_s} {begin_s + at_s}" for at_s in range(0, LENGTH_S + 1, 5)]
    return found


@dataclass(frozen=True)
class Recording:
    """A Prometheus that holds a range, and how it is asked about it."""

    url: str
    begin_s: int
    folder: Path

    def replay(self, *arguments: str, name: str = "air", between: tuple[str, str] | None = None) -> Result:
        (self.folder / f"{name}.yaml").write_text(SPEC.replace("name: air", f"name: {name}"))
        ends = (self.begin_s, self.begin_s + LENGTH_S)
        begin, end = between or (datetime.fromtimestamp(at_s, UTC).isoformat() for at_s in ends)
        asked = ["replay", "-f", str(self.folder / f"{name}.yaml"), "--prometheus", self.url]
        return CliRunner(env={"COLUMNS": "200"}).invoke(app, [*asked, "--from", begin, "--to", end, *arguments])


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    folder = tmp_path_factory.mktemp("recording")
    begin_s = int(datetime.now(UTC).timestamp()) - 3 * 3600
    backfill(folder / "prometheus", recorded(begin_s))
    with prometheus_process(folder / "prometheus") as process:
        yield Recording(process.url, begin_s, folder)


def test_a_recorded_range_is_replayed_with_its_rates_and_lengths(recording: Recording) -> None:
    result = recording.replay("--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert "in 10 minutes" in found["title"]
    assert 1180 <= int(re.sub(r"\D", "", found["title"].partition("requests")[0])) <= 1200  # looks lie 5 s apart
    assert found["attainment"] > 0.9


def test_a_range_that_nobody_recorded_is_one_sentence(recording: Recording) -> None:
    nothing = recording.replay("--json", between=("2020-01-01", "2020-01-02"))
    assert nothing.exit_code == 1
    assert "no series glm_requests_received_total" in nothing.stderr


def test_thresholds_of_mode_auto_are_compared_with_what_was_recorded(recording: Recording) -> None:
    result = recording.replay("--auto-threshold", "0.3,0.75,1", "--json", name="deep")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    was, often, as_before, never = found["rows"]
    assert [row["threshold"] for row in found["rows"]] == [None, 0.3, 0.75, 1.0]
    assert [row["thinks"] for row in found["rows"]] == pytest.approx([0.25, 0.7, 0.25, 0.0], abs=0.01)
    assert found["thought_tokens"] == pytest.approx(800, rel=0.02)
    assert was["tokens"] == pytest.approx(500, rel=0.03)
    assert often["tokens"] == pytest.approx(300 + 0.7 * 800, rel=0.03)
    assert as_before["tokens"] == pytest.approx(was["tokens"], rel=0.03)
    assert never["tokens"] == pytest.approx(300, rel=0.03)
    assert never["fleet"]["gpu_hours"] <= was["fleet"]["gpu_hours"] <= often["fleet"]["gpu_hours"]
    table = recording.replay("--auto-threshold", "0.3", name="deep").stdout
    assert "as recorded" in table
    assert "as scores were counted where a threshold is a multiple of 0.05" in table


def test_a_recording_of_the_version_before_says_what_it_lacks(recording: Recording) -> None:
    result = recording.replay("--auto-threshold", "0.5")
    assert result.exit_code == 1
    assert "there is no series glm_auto_thinking_score_bucket in this range" in result.stderr
    assert "nothing can be said of thresholds" in result.stderr
