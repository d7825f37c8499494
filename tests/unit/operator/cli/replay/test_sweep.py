"""The table of `glm replay --auto-threshold`: what it shows, what it calls an estimate, and what it refuses."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from glm_operator.api.slo import Slo
from glm_operator.autoscale.simulate.recorded import recorded_trace
from glm_operator.autoscale.simulate.thresholds import auto_thinking
from glm_operator.cli import app
from glm_operator.cli.console import CommandError
from glm_operator.cli.replay.sweep import Sweep, draw, sweep, thresholds_of
from unit.operator.autoscale.simulate.test_thresholds import BEGIN_S, END_S, recorded

SPEC = """
apiVersion: glm-operator.io/v1alpha1
kind: GLMDeployment
metadata: {name: air}
spec:
  model: {name: GLM-4.5-Air, source: "pvc://models/GLM-4.5-Air"}
  hardware: {device: cuda, gpu: {resourceName: nvidia.com/gpu, perNode: 8}}
  scaling: {min: 1, max: 8}
"""


def swept(**changes: Any) -> Sweep:
    series = recorded(**changes)
    arrivals = recorded_trace(series, Slo(), BEGIN_S, END_S)
    return sweep("air", arrivals, auto_thinking(series), (0.3, 0.7), BEGIN_S, 100_000, None)


def shown(found: Sweep) -> str:
    console = Console(width=200, file=StringIO())
    with console.capture() as captured:
        console.print(draw(found))
    return captured.get()


def test_thresholds_are_read_each_once_and_in_order() -> None:
    assert thresholds_of("0.7, 0.3,1,0.3") == (0.3, 0.7, 1.0)


@pytest.mark.parametrize("text", ["", "0.5,", "half", "1.1", "-0.1", "nan", "inf"])
def test_what_is_no_threshold_is_named(text: str) -> None:
    with pytest.raises(CommandError, match="is no number from 0 to 1"):
        thresholds_of(text)


def test_too_many_thresholds_are_refused() -> None:
    with pytest.raises(CommandError, match="has 21 thresholds; at most 20"):
        thresholds_of(",".join(str(n / 100) for n in range(21)))


def test_each_threshold_has_a_row_beside_what_was_recorded() -> None:
    found = swept(auto=4, enabled=1)
    assert [row.threshold for row in found.rows] == [None, 0.3, 0.7]
    assert [row.thinks for row in found.rows] == pytest.approx([0.25, 0.7, 0.3])
    text = shown(found)
    assert "auto decided about 480 chats; a thought had 500 tokens on average" in text
    assert "70.0 %" in text
    assert "(+" in text


def test_what_is_not_known_is_said_and_is_no_number() -> None:
    found = swept(auto=4, enabled=0)
    assert [(row.tokens, row.fleet) for row in found.rows[1:]] == [(None, None), (None, None)]
    text = shown(found)
    assert "not known" in text
    assert "no request of the range thought" in text
    assert "the deployment has no spec.scaling that decides" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--trace", "x.csv"], "--auto-threshold needs --prometheus, --from and --to: a trace has no scores"),
        (["--prometheus", "http://127.0.0.1:9", "-o", "a.svg"], "-o draws one; leave out either"),
        (["--prometheus", "http://127.0.0.1:9"], "--prometheus needs --from and --to"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "air.yaml").write_text(SPEC)
    given = ["replay", "-f", str(tmp_path / "air.yaml"), "--auto-threshold", "0.5", *arguments]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, given)
    assert result.exit_code == 1
    assert says in result.stderr
