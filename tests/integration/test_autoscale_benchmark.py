"""benchmarks/autoscale.py: its quick mode runs, and its sums are right."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks/autoscale.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("autoscale_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_whole_benchmark_runs_every_law_at_five_values_on_every_load(benchmark: ModuleType) -> None:
    todo = benchmark.tasks(benchmark.BASELINES, quick=False)
    of_ramp = [task for task in todo if task.scenario == "ramp" and task.cold_start_s == 300]
    assert len(of_ramp) == 1 + 5 * (1 + len(benchmark.BASELINES))
    assert len({task.scenario for task in todo}) == 10


def test_the_area_counts_the_best_within_each_budget(benchmark: ModuleType) -> None:
    assert benchmark.area([(0.4, 1.0)]) == pytest.approx(1.0)
    assert benchmark.area([(1.6, 1.0)]) == 0.0
    assert benchmark.area([(1.0, 1.0)]) == pytest.approx(0.5, abs=0.01)
    assert benchmark.area([(0.4, 0.6), (1.0, 1.0)]) == pytest.approx(0.8, abs=0.01)
    assert benchmark.area([(0.4, 0.95), (1.0, 1.0)], 0.9) == pytest.approx(0.75, abs=0.01)
    assert benchmark.area([(0.4, 0.89)], 0.9) == 0.0


@pytest.mark.long
def test_the_quick_mode_prints_a_row_a_law_and_a_line_a_goal() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--baselines", "WVA v2,Dynamo planner"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == (0 if all(line["met"] for line in lines) else 1), done.stderr
    assert {"ramp attainment", "ramp GPU-hours of static", "scale-downs on missing data"} <= {
        line["metric"] for line in lines
    }
    for law in ("static", "GLM", "WVA v2", "Dynamo planner"):
        assert f"\n{law}" in done.stdout
