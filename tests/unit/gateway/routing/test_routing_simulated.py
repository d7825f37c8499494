"""benchmarks/routing_simulated.py, in short: prefixes are found again, load is even, and first tokens come sooner."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[4] / "benchmarks/routing_simulated.py"
LENGTHS_S = {"sessions": 200.0, "hot": 150.0}
"""In less time what each group computes once, the system prompts, is too much of all."""


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("routing_simulated", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(SCRIPT.parent))  # as where it is run as a script: its rooms are beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module", params=["sessions", "hot"])
def load(request: pytest.FixtureRequest, benchmark: ModuleType) -> tuple[Any, dict[str, Any]]:
    found = {each.name: each for each in benchmark.workloads(LENGTHS_S[request.param], seed=0)}[request.param]
    names = [*benchmark.PLAIN, "ours"]
    return found, {name: benchmark.run(found, benchmark.CHOOSERS[name]()) for name in names}


def test_nine_of_ten_tokens_are_found_that_one_endless_cache_would_have(load: tuple[Any, dict[str, Any]]) -> None:
    _, results = load
    assert results["ours"].of_ideal >= 0.92
    blind = [each for name, each in results.items() if name not in ("ours", "cache-aware")]
    assert results["ours"].hits > max(each.hits for each in blind)


def test_no_group_has_much_more_in_flight_than_the_mean(load: tuple[Any, dict[str, Any]]) -> None:
    assert load[1]["ours"].load <= 1.3


def test_first_tokens_come_sooner_than_by_any_plain_router_and_nobody_fails(load: tuple[Any, dict[str, Any]]) -> None:
    ours = load[1]["ours"]
    plain = {name: each for name, each in load[1].items() if name != "ours"}
    assert ours.ttft_s[1] <= plain.pop("cache-aware").ttft_s[1]
    assert all(ours.ttft_s[1] < 0.6 * each.ttft_s[1] for each in plain.values())
    assert ours.failed == 0
    assert ours.requests > 300


def test_a_group_of_the_simulation_ends_with_all_blocks_free(benchmark: ModuleType) -> None:
    workload = benchmark.Workload("few", seconds=1000.0, sessions_per_s=0.02, hot_per_s=0.1, seed=3)
    simulation = benchmark.Simulation(workload, benchmark.Plain("random"))
    simulation.run()
    answered = [flight for flight in simulation.flights if flight.generated == flight.turn.answer_tokens]
    assert len(answered) >= len(simulation.flights) - 2
    for engine in simulation.engines:
        if not engine.running:
            assert (engine.num_private, engine.in_use) == (0, {})
