"""What it costs the operator to decide on 1,000 deployments, once each.

Each has 4 groups that were scraped every 5 s for 45 s, two classes of promises with histograms, and an hour of memory.
Counted is the CPU time of this process from raw samples to a decision: reading, demand, decide. There is no peer: what
is compared is the promise of 1 s.

Ends with a JSON line: seconds of CPU for 1,000 decisions, the median of the rounds.
"""

import argparse
import json
import statistics
import sys
import time
from math import inf

from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.autoscale.decide import decide
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.memory import Memory
from glm_operator.autoscale.reading import read
from glm_operator.autoscale.series import (
    BURN_WINDOW_S,
    DEMAND_METRICS,
    SHORT_WINDOW_S,
    STATUS_WINDOW_S,
    Attained,
    Buckets,
    Latencies,
    Series,
)

GOAL_S = 1.0
GROUPS, SAMPLES, SCRAPE_S, PERIOD_S = 4, 10, 5.0, 5.0
BEGAN_S = 1_767_571_200.0

SLO = Slo.model_validate(
    {
        "classes": [
            {"name": "chat", "match": {"thinking": "Disabled"}, "ttft": "2s", "itl": "80ms"},
            {"name": "thinking", "match": {"thinking": "Enabled"}, "ttft": "4s", "itl": "80ms"},
        ]
    }
)
SCALING = Scaling.model_validate({"min": 1, "max": 20})
MONTH_S = 30 * 86_400.0

LABELS: dict[str, tuple[dict[str, str], ...]] = {
    "glm_requests_received_total": tuple({"slo_class": each} for each in ("chat", "thinking", "default")),
    "glm_prompt_tokens_received_total": tuple({"slo_class": each} for each in ("chat", "thinking", "default")),
    "glm_generation_tokens_total": tuple({"kind": each} for each in ("reasoning", "answer")),
    "glm_requests_total": tuple({"outcome": each} for each in ("finished", "cancelled", "refused", "failed")),
    "glm_cold_start_seconds": tuple({"phase": each} for each in ("import", "generation", "total")),
}
"""Labels of the series of a metric, beside those of the group."""

VALUES = {
    "glm_group_serving_timestamp_seconds": BEGAN_S - 86_400.0,
    "glm_num_requests_running": 12.0,
    "glm_in_flight_tokens": 20_000.0,
    "glm_kv_cache_usage_ratio": 0.3,
    "glm_kv_cache_tokens": 60_000.0,
    "glm_max_running_requests": 64.0,
    "glm_cold_start_seconds": 60.0,
    "glm_requests_received_total": 0.3,
    "glm_prompt_tokens_received_total": 450.0,
    "glm_generation_tokens_total": 300.0,
    "glm_requests_total": 0.2,
    "glm_prefill_tokens_total": 1_350.0,
    "glm_prefill_busy_seconds_total": 0.1,
    "glm_decode_tokens_total": 600.0,
    "glm_decode_steps_total": 50.0,
    "glm_decode_busy_seconds_total": 0.6,
}
"""Of gauges what they show, of counters what they rise by a second."""


def a_scrape(now_s: float) -> list[Series]:
    """Return the series of one deployment, as Prometheus answers a query of raw samples."""
    times = [now_s - SCRAPE_S * place for place in reversed(range(SAMPLES))]
    found = []
    for group in range(GROUPS):
        around = {"namespace": "models", "deployment": "glm", "group": f"glm-{group}", "revision": "r1"}
        target = {"job": "glm", "instance": f"10.0.0.{group}:9090", "pod": f"glm-{group}-0"}
        for name in DEMAND_METRICS:
            value = VALUES.get(name, 0.0)
            rises = name.endswith("_total")
            samples = tuple((at_s, value * (at_s - BEGAN_S + 1e5) if rises else value) for at_s in times)
            found += [Series(name, {**around, **target, **labels}, samples) for labels in LABELS.get(name, ({},))]
    return found


def some_latencies(now_s: float) -> Latencies:
    edges = [0.001 * 1.5**power for power in range(24)]
    counts = (*((edge, min(1000.0, 60.0 * place)) for place, edge in enumerate(edges)), (inf, 1000.0))
    names = [each.name for each in SLO.classes]
    return Latencies(
        now_s,
        tuple(
            Buckets(name, signal, window_s, counts)
            for name in names
            for signal in ("ttft", "ttfa", "itl", "e2e")
            for window_s in (SHORT_WINDOW_S, STATUS_WINDOW_S)
        ),
        tuple(
            Attained(name, window_s, 1000.0, 995.0)
            for name in names
            for window_s in (STATUS_WINDOW_S, BURN_WINDOW_S, MONTH_S)
        ),
    )


def settled_memory(situation: Situation) -> Memory:
    """Return the memory after an hour of decisions."""
    memory, now_s = Memory(), BEGAN_S - 3600.0
    while now_s < BEGAN_S:
        signals = read(a_scrape(now_s), some_latencies(now_s), SLO, EXPECTED, now_s, 30.0)
        _, memory = decide(SCALING, SLO, situation, signals, memory, now_s)
        now_s += PERIOD_S
    return memory


EXPECTED = tuple(f"glm-{group}" for group in range(GROUPS))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployments", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    situation = Situation(spec_groups=GROUPS, serving=GROUPS, starting=0, gpus_per_group=1)
    memory = settled_memory(situation)
    series, latencies = a_scrape(BEGAN_S), some_latencies(BEGAN_S)
    print(f"{len(series)} series with {sum(len(each.samples) for each in series)} samples a deployment")
    rounds = []
    for _ in range(arguments.rounds):
        began_s = time.process_time()
        for _ in range(arguments.deployments):
            signals = read(series, latencies, SLO, EXPECTED, BEGAN_S, 30.0)
            decide(SCALING, SLO, situation, signals, memory, BEGAN_S)
        rounds.append(time.process_time() - began_s)
    cost_s = statistics.median(rounds) * 1000 / arguments.deployments
    line = {
        "bench": "decision_cost",
        "metric": f"seconds of CPU for 1000 decisions on {GROUPS} groups each, {len(series)} series",
        "ours": round(cost_s, 3),
        "peer": None,
        "ratio": None,
        "goal": GOAL_S,
        "met": cost_s <= GOAL_S,
    }
    print(json.dumps(line))
    return 0 if line["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
