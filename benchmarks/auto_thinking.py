"""How often `auto` decides as the labels of prompts say, and what a decision costs.

The prompts are those of the tests: 600 that the weights were found on, and 200 that were written before and never used
for it. With --fit the weights are found again, by logistic regression with a quadratic penalty, and printed as
`worker/glm_worker/server/thinking/score.py` has them; the exit status tells whether they are the same.

Ends with JSON lines: the accuracy on both sets at each threshold, and the milliseconds of processor of a decision, the
99th percentile over the prompts and the worst of some messages of 100,000 characters, each the median of the rounds.
There is no peer: no engine decides this.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from glm_worker.server.thinking.features import Features, PastTurn, features_of
from glm_worker.server.thinking.score import BIAS, WEIGHTS, Score, score_of

PROMPTS = Path(__file__).resolve().parents[1] / "tests/unit/worker/thinking"
DEFAULT_THRESHOLD = 0.5
THRESHOLDS = (0.2, 0.3, 0.4, DEFAULT_THRESHOLD, 0.6, 0.7, 0.8)
PENALTY = 1.0  # on the squares of the weights, against learning single prompts by heart
GOAL_ACCURACY, GOAL_TYPICAL_MS, GOAL_LONG_MS = 0.9, 1.0, 5.0
LONG = 100_000


@dataclass(frozen=True)
class Labelled:
    """A conversation, and whether thinking pays off for its answer."""

    turns: tuple[PastTurn, ...]
    num_tools: int
    thinks: bool
    about: str

    @property
    def features(self) -> Features:
        return features_of(self.turns, self.num_tools)


def prompts(name: str) -> list[Labelled]:
    lines = (PROMPTS / f"prompts_{name}.jsonl").read_text(encoding="utf-8").splitlines()
    raw = map(json.loads, lines)
    return [
        Labelled(tuple(PastTurn(**turn) for turn in each["turns"]), each["num_tools"], each["thinks"], each["about"])
        for each in raw
    ]


def fitted(labelled: Sequence[Labelled]) -> list[float]:
    """Return bias and weights, two digits each, by Newton's method. It has one solution, so nothing is random."""
    x = np.array([[1.0, *astuple(each.features)] for each in labelled])
    y = np.array([float(each.thinks) for each in labelled])
    penalty = np.diag([0.0, *[PENALTY] * (x.shape[1] - 1)])
    weights = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-x @ weights))
        step = np.linalg.solve((x.T * (p * (1 - p))) @ x + penalty, x.T @ (p - y) + penalty @ weights)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return [round(float(weight), 2) + 0.0 for weight in weights]


def accuracy(labelled: Sequence[Labelled], threshold: float) -> float:
    return statistics.mean((score_of(each.features).value >= threshold) == each.thinks for each in labelled)


def milliseconds(decide: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        began_s = time.thread_time()
        decide()
        taken.append((time.thread_time() - began_s) * 1000)
    return statistics.median(taken)


def long_messages() -> Iterator[tuple[str, str]]:
    """Give messages of 100,000 characters: what people send, and what would be slow in a careless pattern."""
    units = {
        "prose": "The committee met on Tuesday and agreed to compare both plans, because costs had risen by 12 %. ",
        "code": "def f(x):\n    return [g(y) for y in x if y > 3];\n",
        "log": "2024-05-03T10:11:12Z app/jobs.py:88 ERROR ValueError at handler (src/main.rs:12)\n",
        "chinese": "请分析下面的数据并比较两种方案的成本和风险。",
        "fences": "```\n",
        "quotation marks": '"',
        "opening quotations": "«",
        "line breaks": "\n",
        "spaces": " ",
        "path without end": "a/",
        "one word": "a",
        "digits": "1,",
        "operators": "x=",
        "colons": ":",
    }
    for name, unit in units.items():
        yield name, (unit * (LONG // len(unit) + 1))[:LONG]


def line(metric: str, ours: float, goal: float | None = None, *, is_least: bool = False) -> bool:
    is_met = goal is None or (ours >= goal if is_least else ours <= goal)
    told = {"bench": "auto_thinking", "metric": metric, "ours": round(ours, 3), "peer": None, "ratio": None}
    print(json.dumps(told if goal is None else {**told, "goal": goal, "met": is_met}))
    return is_met


def fit(tuning: Sequence[Labelled]) -> bool:
    bias, *weights = fitted(tuning)
    found = dict(zip([each.name for each in fields(Features)], weights, strict=True))
    print(f"BIAS = {bias}\nWEIGHTS = {{")
    for name, weight in found.items():
        print(f'    "{name}": {weight},')
    print("}")
    return (bias, found) == (BIAS, WEIGHTS)


def _scored(turns: tuple[PastTurn, ...]) -> Score:
    return score_of(features_of(turns, 20))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="find the weights again instead")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sets", nargs="+", default=["tuning", "unseen"], help="of prompts")
    arguments = parser.parse_args()
    if arguments.fit:
        return 0 if fit(prompts("tuning")) else 1
    is_met = True
    for name in arguments.sets:
        labelled = prompts(name)
        for each in labelled:
            score = score_of(each.features)
            if (score.value >= DEFAULT_THRESHOLD) != each.thinks:
                print(f"{name}: {score.value:.2f} for {each.turns[-1].text[:70]!r}, {' '.join(score.reasons)}")
        for threshold in THRESHOLDS:
            goal = GOAL_ACCURACY if threshold == DEFAULT_THRESHOLD else None
            is_met &= line(
                f"accuracy on {len(labelled)} prompts, {name}, threshold {threshold}",
                accuracy(labelled, threshold),
                goal,
                is_least=True,
            )
    every = [each for name in arguments.sets for each in prompts(name)]
    costs = sorted(milliseconds(partial(score_of, each.features), arguments.rounds) for each in every)
    is_met &= line("ms of a decision, p99 over the prompts", costs[int(len(costs) * 0.99)], GOAL_TYPICAL_MS)
    long_ms = {}
    for name, text in long_messages():
        turns = (PastTurn("system", text), PastTurn("user", text), PastTurn("tool", text))
        long_ms[name] = milliseconds(partial(_scored, turns), arguments.rounds)
    print(", ".join(f"{name} {cost:.1f} ms" for name, cost in long_ms.items()))
    is_met &= line("ms of a decision, worst message of 100,000 characters", max(long_ms.values()), GOAL_LONG_MS)
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
