"""`glm replay`: what it prints, writes and refuses."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from glm_operator.cli import app

SPEC = """
apiVersion: glm-operator.io/v1alpha1
kind: GLMDeployment
metadata: {name: air}
spec:
  model: {name: GLM-4.5-Air, source: "pvc://models/GLM-4.5-Air"}
  hardware: {device: cuda, gpu: {resourceName: nvidia.com/gpu, perNode: 8}}
  slo:
    classes:
      - {name: chat, ttft: 2s, itl: 80ms}
"""
ACTIVE = "  scaling: {min: 1, max: 8, mode: Active}\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Five minutes at one request in two seconds, five at four a second, five at one in two seconds."""
    times = [i * 2.0 for i in range(150)] + [300 + i / 4 for i in range(1200)] + [600 + i * 2.0 for i in range(150)]
    path = tmp_path / "trace.csv"
    path.write_text("at_s,prompt_tokens,output_tokens\n" + "".join(f"{at_s},1500,600\n" for at_s in times))
    return path


def replay(tmp_path: Path, spec: str, *arguments: str) -> Result:
    file = tmp_path / "air.yaml"
    file.write_text(spec)
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, ["replay", "-f", str(file), *arguments])


def test_it_tells_decisions_with_reasons_and_what_they_were_worth(tmp_path: Path, trace: Path) -> None:
    result = replay(tmp_path, SPEC + ACTIVE, "--trace", str(trace), "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert 0.5 < found["attainment"] <= 1
    assert found["attainment_by_class"] == {"chat": found["attainment"]}
    assert found["static"]["groups"] >= 2
    assert found["gpu_hours"] > 0
    ups = [each for each in found["decisions"] if each["desired"] > each["before"]]
    assert ups
    assert all(each["why"] for each in ups)
    assert 300 <= ups[-1]["at_s"] <= 600


def test_the_terminal_shows_curves_and_a_row_a_decision(tmp_path: Path, trace: Path) -> None:
    result = replay(tmp_path, SPEC + ACTIVE, "--trace", str(trace))
    assert "air: 1,500 requests in 15 minutes" in result.stdout
    assert "fixed group" in result.stdout
    assert "chat TTFT p95" in result.stdout
    assert "▲" in result.stdout
    assert "-> " in result.stdout


def test_observe_sets_nothing_and_says_so(tmp_path: Path, trace: Path) -> None:
    spec = SPEC + ACTIVE.replace("Active", "Observe")
    found = json.loads(replay(tmp_path, spec, "--trace", str(trace), "--json").stdout)
    assert found["decisions"]
    assert {point["serving"] for point in found["points"]} == {1}
    assert "nothing was set" in replay(tmp_path, spec, "--trace", str(trace)).stdout


def test_without_a_gateway_one_group_stays_and_that_is_said(tmp_path: Path, trace: Path) -> None:
    result = replay(tmp_path, SPEC + ACTIVE.replace("min: 1", "min: 0"), "--trace", str(trace), "--json")
    assert "scaling.min is 0; a simulation has no gateway that holds requests, so one group stays" in result.stderr
    found = json.loads(result.stdout)
    assert min(point["desired"] for point in found["points"]) == 1
    assert "NoGateway" not in {each["limited_by"] for each in found["decisions"]}


@pytest.mark.parametrize(("name", "begins"), [("a.svg", b"<?xml"), ("a.png", b"\x89PNG")])
def test_a_picture_is_written_and_is_small(tmp_path: Path, trace: Path, name: str, begins: bytes) -> None:
    result = replay(tmp_path, SPEC + ACTIVE, "--trace", str(trace), "-o", str(tmp_path / name))
    assert result.exit_code == 0, result.stderr
    written = (tmp_path / name).read_bytes()
    assert written.startswith(begins)
    assert len(written) < 100_000


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = replay(tmp_path, SPEC + ACTIVE, "--trace", str(trace), "-o", str(tmp_path / "a.png"))
    assert result.exit_code == 1
    assert 'pip install "glm-operator[plot]"' in result.stderr


def test_nothing_of_matplotlib_is_imported_without_a_picture(tmp_path: Path, trace: Path) -> None:
    before = {name for name in sys.modules if name.startswith("matplotlib")}
    assert replay(tmp_path, SPEC + ACTIVE, "--trace", str(trace), "--json").exit_code == 0
    assert {name for name in sys.modules if name.startswith("matplotlib")} == before


@pytest.mark.parametrize(
    ("scaling", "arguments", "says"),
    [
        ("", ["--trace", "TRACE"], "has no spec.scaling"),
        ("  scaling: {mode: External}\n", ["--trace", "TRACE"], "mode is External; only Active and Observe"),
        (ACTIVE, [], "give --trace, or --prometheus"),
        (ACTIVE, ["--prometheus", "http://localhost:1"], "needs --from and --to"),
        (ACTIVE, ["--trace", "nowhere.csv"], "cannot read nowhere.csv"),
        (ACTIVE, ["--trace", "TRACE", "--calibration", "nowhere.json"], "cannot read nowhere.json"),
        (ACTIVE, ["--trace", "TRACE", "-o", "a.gif"], "a picture is .svg or .png"),
        (ACTIVE, ["--trace", "TRACE", "--start", "soon"], "--start soon is no time"),
        (
            ACTIVE,
            ["--prometheus", "http://127.0.0.1:9", "--from", "2026-01-05T09:00", "--to", "2026-01-05T08:00"],
            "is not after",
        ),
    ],
)
def test_what_cannot_be_replayed_is_one_sentence(
    tmp_path: Path, trace: Path, scaling: str, arguments: list[str], says: str
) -> None:
    given = [str(trace) if argument == "TRACE" else argument for argument in arguments]
    result = replay(tmp_path, SPEC + scaling, *given)
    assert result.exit_code == 1
    assert says in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("url", "shown", "says"),
    [
        ("localhost:9090", "localhost:9090", "http://prometheus.monitoring:9090"),
        ("ftp://host", "ftp://host", "http://prometheus.monitoring:9090"),
        ("http://host/api/v1/query", "http://host/api/v1/query", "leave out /api/v1"),
        ("http://host?token=hidden", "http://host?...", "no query"),
        ("http://me:hidden@host:9090", "http://...@host:9090", "no query, fragment, user or password"),
    ],
)
def test_a_url_of_prometheus_that_cannot_be_is_refused_without_its_password(
    tmp_path: Path, url: str, shown: str, says: str
) -> None:
    given = ["--prometheus", url, "--from", "2026-01-05T08:00", "--to", "2026-01-05T09:00"]
    result = replay(tmp_path, SPEC + ACTIVE, *given)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: --prometheus {shown}: ")
    assert says in result.stderr
    assert "hidden" not in result.stderr


def test_a_window_opens_by_the_clock_that_the_replay_starts_at(tmp_path: Path, trace: Path) -> None:
    night = "  scaling: {min: 1, max: 8, schedules: [{name: night, cron: '0 22 * * *', duration: 8h, min: 5}]}\n"

    def most(start: str) -> int:
        result = replay(tmp_path, SPEC + night, "--trace", str(trace), "--start", start, "--json")
        return int(max(point["serving"] + point["starting"] for point in json.loads(result.stdout)["points"][:20]))

    assert most("2026-01-05T23:00") == 5
    assert most("2026-01-05T12:00") < 5


def test_a_trace_of_one_moment_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("at_s,prompt_tokens,output_tokens\n7,100,10\n7,100,10\n")
    result = replay(tmp_path, SPEC + ACTIVE, "--trace", str(path))
    assert result.exit_code == 1
    assert "every request of the trace comes at the same moment" in result.stderr


def test_a_trace_that_a_spreadsheet_wrote_is_read(tmp_path: Path, trace: Path) -> None:
    marked = tmp_path / "marked.csv"
    marked.write_text("\ufeff" + trace.read_text(), encoding="utf-8")
    assert replay(tmp_path, SPEC + ACTIVE, "--trace", str(marked)).exit_code == 0
