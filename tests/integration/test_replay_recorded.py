"""`glm replay --prometheus`: a range that a real Prometheus holds becomes a trace."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

from typer.testing import CliRunner

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


def recorded(begin_s: int) -> str:
    """Counters of two groups in OpenMetrics: each gets a request a second, of 900 tokens, answered with 300."""
    counters = {
        'glm_requests_received_total{slo_class="chat"': 1,
        'glm_prompt_tokens_received_total{slo_class="chat"': 900,
        'glm_requests_total{outcome="finished"': 1,
        'glm_generation_tokens_total{kind="answer"': 300,
    }
    lines = []
    for counter, a_second in counters.items():
        lines.append(f"# TYPE {counter.partition('_total')[0]} counter")
        for group in ("g0", "g1"):
            labels = f'{counter},namespace="models",deployment="air",group="{group}",revision="r1"}}'
            lines += [f"{labels} {a_second * at_s} {begin_s + at_s}" for at_s in range(0, LENGTH_S + 1, 5)]
    return "\n".join([*lines, "# EOF", ""])


def test_a_recorded_range_is_replayed_with_its_rates_and_lengths(tmp_path: Path) -> None:
    begin_s = int(datetime.now(UTC).timestamp()) - 3 * 3600
    (tmp_path / "air.yaml").write_text(SPEC)
    folder = tmp_path / "prometheus"
    backfill(folder, recorded(begin_s))
    begin, end = (datetime.fromtimestamp(at_s, UTC).isoformat() for at_s in (begin_s, begin_s + LENGTH_S))
    with prometheus_process(folder) as process:
        arguments = ["replay", "-f", str(tmp_path / "air.yaml"), "--prometheus", process.url]
        result = CliRunner().invoke(app, [*arguments, "--from", begin, "--to", end, "--json"])
        nothing = CliRunner().invoke(app, [*arguments, "--from", "2020-01-01", "--to", "2020-01-02"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert "in 10 minutes" in found["title"]
    assert 1180 <= int(re.sub(r"\D", "", found["title"].partition("requests")[0])) <= 1200  # looks lie 5 s apart
    assert found["attainment"] > 0.9
    assert nothing.exit_code == 1
    assert "no series glm_requests_received_total" in nothing.stderr
