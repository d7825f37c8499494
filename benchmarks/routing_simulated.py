"""How much of their prompts requests find computed, and how even the load is: our router and three plain ones.

Simulated: four groups of one H200 with GLM-4.5-Air in FP8, step by step (the numbers of the autoscaler's simulator, and
the prefix cache that the engine will have: KV blocks of 64 tokens, shared, the longest unused forgotten first). The
router under test is the gateway's own code: it hashes real bytes, charges, and hears what groups push ten times a
second.

Five loads. Sessions: conversations of one to ten turns that begin with one of twelve system prompts, some of which are
much more frequent than others. Hot: fewer of them, and many single questions behind one system prompt of 8,000 tokens;
bursts: the same, and 32 such questions come at once. Uneven, and uneven hot: one group is twice as fast as the usual
one, and one half as fast. --rate: how many times as much of it. A turn comes at its time, and never before its
predecessor was answered. A request without a first token after 30 s counts as failed: latencies without that share say
little.

hits: tokens of prompts found in the cache, of all; of ideal: of what one group with an endless cache would have found,
of the same requests in the same order. load: tokens in flight for its speed at the fullest group against all groups,
averaged over the run; work: the same of prompt tokens computed. A group opens its reply when it admits a request, long
before the first token, as workers do. "cache-aware" is the law of the Rust routers. "ours x2" are two replicas of the
gateway that get the requests in turn and know of each other only what groups push; "x2, told" also tell each other
where they sent which prefix. --held-weight tries another weight of tokens in flight.

Ends with a JSON line a number: ours against the best of the others. Exit status 1: a goal was missed.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Collection
from math import inf
from typing import Any

from simulated.choosers import CHOOSERS, PLAIN, Plain
from simulated.simulation import Result, Simulation, run
from simulated.workload import Workload

from glm_gateway.routing import pick as law
from glm_gateway.routing.book import Load
from glm_gateway.routing.pick import Group, Request
from glm_gateway.routing.prefix import ENDS, Prefix
from glm_gateway.routing.router import Router

__all__ = ["CHOOSERS", "PLAIN", "Plain", "Simulation", "Workload", "run", "workloads"]

GOAL_HITS, GOAL_LOAD, GOAL_PICK_US = 0.9, 1.3, 50.0
LOADS = ("sessions", "hot", "bursts", "uneven", "uneven hot")
UNEVEN = (2.0, 1.0, 1.0, 0.5)


def pick_us(rounds: int = 2000) -> float:
    """Return the median microseconds of CPU of a pick: 16 groups, 64 blocks, a prompt that a quarter of them knows."""
    dice = random.Random(0)
    groups = [Group(name=f"nano-g{number}", heard_s=0.0) for number in range(16)]
    router = Router()
    for group in groups:
        router.book.hear(group.name, Load(in_flight_tokens=dice.randrange(10_000), prefill_tokens_per_s=14_000.0))
    taken = []
    for number in range(rounds):
        prefix = Prefix(tuple(dice.getrandbits(64) for _ in range(64)), ENDS[63])
        for group in dice.sample(groups, 4):
            router.book.use(group.name, Prefix(prefix.hashes[: dice.randrange(65)], 0), 0.0)
        request = Request(key=f"r{number}", prompt_tokens=30_000, prefix=prefix)
        began_s = time.process_time()
        choice = router.route(request, groups, 1.0)
        taken.append(time.process_time() - began_s)
        assert choice is not None
        router.end(choice)
    return 1e6 * statistics.median(taken)


def workloads(seconds: float, seed: int, rate: float = 1.0, names: Collection[str] = LOADS) -> list[Workload]:
    """Return the loads of these names. At rate 1 they keep round robin busy and not drowned, where groups are alike."""

    def load(name: str, *, sessions: float, hot: float = 0.0, **given: Any) -> list[Workload]:
        if name not in names:
            return []
        return [
            Workload(name, seconds=seconds, sessions_per_s=rate * sessions, hot_per_s=rate * hot, seed=seed, **given)
        ]

    return [
        *load("sessions", sessions=1.2),
        *load("hot", sessions=0.8, hot=8.0),
        *load("bursts", sessions=0.8, hot=8.0, burst=32),
        *load("uneven", sessions=1.2, speeds=UNEVEN),
        *load("uneven hot", sessions=0.8, hot=8.0, speeds=UNEVEN),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="of simulated time, the first minute not counted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-weight", type=float, help="instead of the router's own")
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--loads", nargs="*", default=["sessions", "hot"], choices=LOADS)
    parser.add_argument("--routers", nargs="*", default=list(CHOOSERS), choices=list(CHOOSERS))
    arguments = parser.parse_args()
    if arguments.held_weight is not None:
        law.HELD_WEIGHT = arguments.held_weight
    lines = []
    for workload in workloads(arguments.seconds, arguments.seed, arguments.rate, arguments.loads):
        print(f"{workload.name}: {sum(map(len, workload.sessions))} requests")
        print("router         hits  of ideal   load   work   TTFT p50    p90    p99   failed")
        results: dict[str, Result] = {}
        for name in arguments.routers:
            each = results[name] = run(workload, CHOOSERS[name]())
            waits = "".join(f"{wait:7.2f}" for wait in each.ttft_s)
            shares = f"{each.hits:.3f}  {each.of_ideal:8.3f}  {each.load:5.2f}  {each.work:5.2f}"
            print(f"{name:13}  {shares}    {waits}  {each.failed:7.4f}", flush=True)
        if "ours" in results:
            lines += json_lines(workload.name, results)
    cost = pick_us()
    lines.append(
        {
            "bench": "routing_simulated",
            "metric": "microseconds of CPU of a pick among 16 groups, a prompt of 64 blocks",
            "ours": round(cost, 1),
            "peer": None,
            "ratio": None,
            "goal": GOAL_PICK_US,
            "met": cost <= GOAL_PICK_US,
        }
    )
    for line in lines:
        print(json.dumps(line))
    return 0 if all(line["met"] for line in lines) else 1


def json_lines(load: str, results: dict[str, Result]) -> list[dict[str, object]]:
    """Return the lines of one load: ours beside the best of the others in each."""
    ours, others = results["ours"], [each for name, each in results.items() if name in PLAIN]
    best_s = min((each.ttft_s[1] for each in others), default=inf)
    found = []
    metrics: tuple[tuple[str, Callable[[Result], float], Callable[..., float], float, bool], ...] = (
        ("prefix hits of the ideal", lambda each: each.of_ideal, max, GOAL_HITS, ours.of_ideal >= GOAL_HITS),
        ("fullest group against the mean", lambda each: each.load, min, GOAL_LOAD, ours.load <= GOAL_LOAD),
        ("seconds to first token, p90", lambda each: each.ttft_s[1], min, best_s, ours.ttft_s[1] <= best_s),
        ("share that failed", lambda each: each.failed, min, 0.001, ours.failed <= 0.001),
    )
    for metric, value, best, goal, met in metrics:
        peer = best((value(each) for each in others), default=0.0)
        found.append(
            {
                "bench": "routing_simulated",
                "metric": f"{load}: {metric}",
                "ours": round(value(ours), 3),
                "peer": round(peer, 3) if others else None,
                "ratio": round(value(ours) / peer, 3) if peer else None,
                "goal": round(goal, 3),
                "met": met,
            }
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
