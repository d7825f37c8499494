"""How well laws of autoscaling keep promises, and for how many GPUs: ours and ten of others, in one run.

Simulated: GLM-4.5-Air in FP8, a group on one H200, as derived from its rooflines (simulate/model/calibration.py).
Every law gets the same hardware, router, cold starts, drains, scrapes of 5 s and their faults; none sees the trace.
Loads: the code trace in data/, a ramp 2 -> 10 -> 1 requests a second, a spike of 5x, a day in two hours whose mix of
thinking flips, a slow leak of longer prompts, steady with 5 % of noise; cold starts of 60 and 300 s; on the ramp four
faults of
metrics: 10 % of scrapes lost, Prometheus away for 2 minutes twice, a group's series frozen, a group silent.

Terms: attainment is the share of requests that met every threshold of their class. static is the smallest fixed fleet
with >= 97 % of it; its GPU-hours are 100 %. Need, breach and what counts as missing data: simulate/outcome.py. Of each
law with its defaults there is a row; its front are five values of its one main knob. The area under a front is the
mean, over budgets from 50 % to 150 % of static, of the best attainment that the law has within that budget at any of
its five values (0 where it has none). A fleet that breaks half of its promises scores high in that for being cheap; so
there is a second area, of attainment above 90 % alone: 0 up to 90 %, 1 at 100 %. Areas are averaged over the six loads
and both cold starts.

Prints a table for each scenario, then a JSON line for each number with a goal. Exit status 1: a goal was missed.
--quick: the ramp with cold starts of 60 s, with defaults only.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from glm_operator.api.scaling import Scaling
from glm_operator.autoscale.baselines.catalogue import BASELINES, Baseline
from glm_operator.autoscale.decide import decide
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.memory import Memory
from glm_operator.autoscale.reading import read
from glm_operator.autoscale.series import DEMAND_METRICS, DEMAND_WINDOW_S, Sample, Series
from glm_operator.autoscale.simulate.law import Law, Verdict
from glm_operator.autoscale.simulate.ours import LABELS, Ours
from glm_operator.autoscale.simulate.outcome import Outcome, outcome
from glm_operator.autoscale.simulate.run import Setup, simulate
from glm_operator.autoscale.simulate.scenarios import Scenario, scenarios
from glm_operator.autoscale.simulate.seen.latencies import latencies
from glm_operator.autoscale.simulate.seen.scraped import View
from glm_operator.autoscale.simulate.static import ENOUGH, static_fleet
from glm_operator.autoscale.simulate.trace import read_trace

TRACE = Path(__file__).resolve().parent / "data/azure-llm-2023-code.csv"
OURS = "GLM"
OUR_KNOB = "targetUtilization"
OUR_VALUES = (60.0, 70.0, 75.0, 85.0, 95.0)
OUR_DEFAULT = 85.0
PROCESSES = 2
DEPLOYMENTS = 1000
HEAD = "law                 kept   GPU-h  of static  ups downs  turns/h  beyond  blind"
BUDGETS = [0.5 + 0.01 * step for step in range(101)]


@dataclass(frozen=True)
class Task:
    """One run. knob None: the static fleet."""

    scenario: str
    cold_start_s: int
    law: str
    knob: float | None


@cache
def _scenarios(cold_start_s: int) -> dict[str, Scenario]:
    with TRACE.open(encoding="utf-8") as lines:
        trace = read_trace(lines)
    return {each.name: each for each in scenarios(trace, cold_start_s)}


def run(task: Task) -> Outcome:
    """Run one law, or find the static fleet."""
    setup = _scenarios(task.cold_start_s)[task.scenario].setup
    if task.knob is None:
        groups, found = static_fleet(setup)
        return replace(found, law=f"static {groups}")
    if task.law == OURS:
        given = setup.scaling.model_dump(by_alias=True) | {"targetUtilization": round(task.knob)}
        setup = replace(setup, scaling=Scaling.model_validate(given))
    return outcome(simulate(setup, _law(task, setup)))


def _law(task: Task, setup: Setup) -> Law:
    assert task.knob is not None
    if task.law == OURS:
        return Ours(setup.slo, setup.scaling, setup.began_s)
    return next(each for each in BASELINES if each.name == task.law).make(setup, task.knob)


def tasks(baselines: Sequence[Baseline], *, quick: bool) -> list[Task]:
    """Return every run of the benchmark. Fronts are drawn on loads without faults."""
    found = []
    for cold_start_s in (60,) if quick else (60, 300):
        for name in ["ramp"] if quick else list(_scenarios(cold_start_s)):
            found.append(Task(name, cold_start_s, "static", None))
            is_front = not quick and "," not in name
            values = OUR_VALUES if is_front else (OUR_DEFAULT,)
            found += [Task(name, cold_start_s, OURS, value) for value in values]
            for each in baselines:
                found += [
                    Task(name, cold_start_s, each.name, value)
                    for value in (each.values if is_front else (each.default,))
                ]
    return found


def default_of(law: str) -> float:
    return OUR_DEFAULT if law == OURS else next(each.default for each in BASELINES if each.name == law)


@dataclass(frozen=True)
class Results:
    """Outcomes by task, and the questions that are asked of them."""

    outcomes: dict[Task, Outcome]
    baselines: Sequence[Baseline]

    @property
    def cases(self) -> list[tuple[str, int]]:
        return [(task.scenario, task.cold_start_s) for task in self.outcomes if task.knob is None]

    def static(self, case: tuple[str, int]) -> Outcome:
        return self.outcomes[Task(*case, "static", None)]

    def plain(self, case: tuple[str, int], law: str) -> Outcome:
        return self.outcomes[Task(*case, law, default_of(law))]

    def share(self, case: tuple[str, int], found: Outcome) -> float:
        return found.gpu_hours / self.static(case).gpu_hours

    def better(self, case: tuple[str, int]) -> list[str]:
        """Return the baselines that keep more promises than ours for fewer GPU-hours, with their defaults."""
        ours = self.plain(case, OURS)
        return [
            each.name
            for each in self.baselines
            if (their := self.plain(case, each.name)).attainment > ours.attainment and their.gpu_hours < ours.gpu_hours
        ]

    def area(self, law: str, worthless: float) -> float:
        """Return the mean area under a law's fronts. worthless: attainment that counts as none."""
        areas = []
        for case in self.cases:
            points = [
                (self.share(case, found), found.attainment)
                for task, found in self.outcomes.items()
                if (task.scenario, task.cold_start_s) == case and task.law == law
            ]
            if len(points) > 1:
                areas.append(area(points, worthless))
        return sum(areas) / len(areas)


def area(points: Sequence[tuple[float, float]], worthless: float = 0.0) -> float:
    """Return the mean over budgets of the best attainment within the budget. points: GPU-hours and attainment."""
    best = [max((kept for hours, kept in points if hours <= budget), default=0.0) for budget in BUDGETS]
    return sum(max(0.0, kept - worthless) / (1 - worthless) for kept in best) / len(best)


def table(results: Results, case: tuple[str, int]) -> str:
    """Return what the laws did with their defaults, for people."""
    name, cold_start_s = case
    lines = [
        f"{name}, cold start {cold_start_s} s",
        HEAD,
    ]
    rows = [
        results.static(case),
        *(results.plain(case, law) for law in (OURS, *(each.name for each in results.baselines))),
    ]
    lines += [
        f"{each.law:16}{100 * each.attainment:7.1f}%{each.gpu_hours:8.2f}{100 * results.share(case, each):10.0f}%"
        f"{each.ups:5}{each.downs:6}{each.direction_changes_per_hour:9.1f}{each.beyond_need:8}{each.downs_on_missing:7}"
        for each in rows
    ]
    return "\n".join(lines)


def numbers(results: Results) -> Iterable[dict[str, object]]:
    """Yield the numbers that have goals."""
    cases = results.cases
    for case in cases:
        name, cold_start_s = case
        ours = results.plain(case, OURS)
        where = {"scenario": name, "cold_start_s": cold_start_s}
        if name == "ramp":
            share = results.share(case, ours)
            yield _number("ramp attainment", ours.attainment, ENOUGH, ours.attainment >= ENOUGH, **where)
            yield _number("ramp GPU-hours of static", share, 0.74, share <= 0.74, **where)
        better = results.better(case)
        yield _number("baselines better on both axes", len(better), 0, not better, **where, which=better)
        if name == "steady":
            turns = ours.direction_changes_per_hour
            yield _number("direction changes per hour", turns, 2, turns <= 2, **where)
        if ours.beyond_need > 0 or name == "ramp":
            yield _number("groups beyond need while pods pend", ours.beyond_need, 0, ours.beyond_need <= 0, **where)
    downs = sum(results.plain(case, OURS).downs_on_missing for case in cases)
    yield _number("scale-downs on missing data", downs, 0, downs == 0)
    reactions = sorted(each for case in cases for each in results.plain(case, OURS).breach_to_decision_s)
    if reactions:
        p95 = reactions[min(len(reactions) - 1, int(0.95 * len(reactions)))]
        yield _number("breach to decision p95, s", p95, 15, p95 <= 15, breaches=len(reactions))
    if any(task.law == OURS and task.knob != OUR_DEFAULT for task in results.outcomes):
        for metric, worthless in (("area under the front", 0.0), ("area under the front, above 90 %", 0.9)):
            areas = {each.name: results.area(each.name, worthless) for each in results.baselines}
            best = max(areas, key=lambda name: areas[name])
            ours_area = results.area(OURS, worthless)
            is_ahead = ours_area >= areas[best]
            yield _number(metric, ours_area, areas[best], is_ahead, best=best, areas=_rounded(areas))


def _rounded(areas: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in areas.items()}


def _number(metric: str, value: float, goal: float, met: bool, **more: object) -> dict[str, object]:
    return {"bench": "autoscale", "metric": metric, "ours": round(value, 4), "goal": round(goal, 4), "met": met, **more}


class _Watched(Ours):
    """Our law, which keeps what its last decision was made from."""

    seen: tuple[View, Situation]

    def decide(self, view: View, situation: Situation) -> Verdict:
        self.seen = (view, situation)
        return super().decide(view, situation)


def decision_seconds() -> float:
    """Return the CPU seconds of DEPLOYMENTS decisions, from samples to a number, on three groups scraped every 5 s."""
    whole = _scenarios(60)["steady"].setup
    setup = replace(whole, arrivals=tuple(each for each in whole.arrivals if each.at_s < 600), start_groups=3)
    fixed = replace(setup, scaling=setup.scaling.model_copy(update={"min_groups": 3, "max_groups": 3}))
    law = _Watched(fixed.slo, fixed.scaling, fixed.began_s)
    simulate(fixed, law)
    view, situation = law.seen
    series = view.series(DEMAND_METRICS, DEMAND_WINDOW_S, LABELS, fixed.began_s)
    of_latency = latencies(view.scraped, fixed.slo, view.now_s, fixed.began_s)
    memories = [Memory() for _ in range(DEPLOYMENTS)]
    spent = []
    for period in range(3):  # the first fills memories
        now_s = fixed.began_s + view.now_s + 5 * period
        later = [Series(each.name, each.labels, _moved(each.samples, 5 * period)) for each in series]
        begun = time.process_time()
        for place, memory in enumerate(memories):
            signals = read(later, of_latency, fixed.slo, view.serving, now_s, fixed.scaling.warm_up_seconds)
            _, memories[place] = decide(fixed.scaling, fixed.slo, situation, signals, memory, now_s)
        spent.append(time.process_time() - begun)
    return min(spent[1:])


def _moved(samples: Sequence[Sample], seconds: float) -> tuple[Sample, ...]:
    return tuple((at_s + seconds, value) for at_s, value in samples)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the ramp with cold starts of 60 s, defaults only")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--baselines", help="names with commas between; all of them otherwise")
    parser.add_argument("--points", type=Path, help="write every run as a JSON line into this file")
    arguments = parser.parse_args()
    names = arguments.baselines.split(",") if arguments.baselines else [each.name for each in BASELINES]
    baselines = [each for each in BASELINES if each.name in names]
    todo = tasks(baselines, quick=arguments.quick)
    with ProcessPoolExecutor(arguments.processes, initializer=os.nice, initargs=(5,)) as pool:
        found = Results(dict(zip(todo, pool.map(run, todo, chunksize=4), strict=True)), baselines)
    for case in found.cases:
        print(table(found, case), end="\n\n")
    if arguments.points is not None:
        with arguments.points.open("w", encoding="utf-8") as lines:
            for task, each in found.outcomes.items():
                share = found.share((task.scenario, task.cold_start_s), each)
                print(json.dumps({**task.__dict__, **each.__dict__, "of_static": share}), file=lines)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{len(todo)} runs took {used.ru_utime + used.ru_stime:.0f} s of CPU")
    goals = list(numbers(found))
    seconds = decision_seconds()
    goals.append(_number(f"CPU seconds of {DEPLOYMENTS} decisions", seconds, 1.0, seconds <= 1.0))
    for line in goals:
        print(json.dumps(line))
    return 0 if all(line["met"] for line in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
