"""Runs a trace through a fleet under a law, event by event. Pure and seeded: equal input gives equal results."""

import heapq
import random
from dataclasses import dataclass, field

from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.autoscale.bounds.limits import bounds_at
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.errors import InputError
from glm_operator.autoscale.simulate.law import Law
from glm_operator.autoscale.simulate.model.calibration import Calibration
from glm_operator.autoscale.simulate.model.fleet import Fleet, Life
from glm_operator.autoscale.simulate.model.group import Request
from glm_operator.autoscale.simulate.seen.exposition import Exposition
from glm_operator.autoscale.simulate.seen.faults import NO_FAULTS, Faults, is_within
from glm_operator.autoscale.simulate.seen.scraped import Scraped, View
from glm_operator.autoscale.simulate.trace import Arrival, class_of

MONDAY_S = 1_767_571_200.0
"""2026-01-05 00:00 UTC: when a simulation begins, unless somebody says otherwise."""

POINT_S = 5.0
_DECIDE_AT_S = 0.5  # after a whole second: between scrapes, as it happens


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything that a run is about, except the law."""

    arrivals: tuple[Arrival, ...]
    slo: Slo
    scaling: Scaling
    calibration: Calibration
    start_groups: int
    cold_start_s: tuple[float, ...] = ()  # one is drawn for each start; empty: those of the calibration
    duration_s: float | None = None  # None: up to the last arrival
    scrape_s: float = 5.0
    faults: Faults = NO_FAULTS
    kills: tuple[float, ...] = ()  # seconds at which the oldest group dies
    gpus_per_group: int = 1
    began_s: float = MONDAY_S  # unix time of second 0
    seed: int = 0

    @property
    def length_s(self) -> float:
        return self.arrivals[-1].at_s if self.duration_s is None else self.duration_s


@dataclass(frozen=True)
class Change:
    """A decision that changed the number of groups; of one that is only observed, the number that was wanted."""

    at_s: float
    before: int
    desired: int
    serving: int
    starting: int
    why: str
    limited_by: str | None
    oldest_sample_s: float  # age of the newest sample of the group that was scraped longest ago
    is_away: bool  # Prometheus did not answer


@dataclass(frozen=True)
class Point:
    """What stood at a moment."""

    at_s: float
    desired: int
    serving: int
    starting: int
    draining: int
    waiting: int
    running: int


@dataclass
class Result:
    """What happened. Seconds of the simulation."""

    law: str
    setup: Setup
    requests: list[Request]
    changes: list[Change] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    gpu_seconds: float = 0.0


def simulate(setup: Setup, law: Law) -> Result:
    """Run a trace to its end, and the requests that are left to theirs. Raises InputError for what never fits."""
    return _Run(setup, law).run()


class _Run:
    def __init__(self, setup: Setup, law: Law) -> None:
        self._setup = setup
        self._law = law
        self._random = random.Random(setup.seed)  # noqa: S311  no secret
        self._losses = random.Random(setup.seed + 1)  # noqa: S311  apart: a lost scrape moves no cold start
        exposition = self._exposition = Exposition(setup.slo, setup.began_s)
        self._fleet = Fleet(setup.calibration, exposition, self._draw_cold_start, random.Random(setup.seed + 2).random)  # noqa: S311
        self._scraped = Scraped(exposition)
        self._frozen: dict[str, tuple[float, ...]] = {}
        self._spec = setup.start_groups
        limit = setup.calibration.max_model_len
        self._requests = []
        for arrival in setup.arrivals:
            if arrival.prompt_tokens + arrival.output_tokens > limit:
                raise InputError(
                    f"a request of {arrival.prompt_tokens} + {arrival.output_tokens} tokens is in the trace; "
                    f"the model takes {limit}"
                )
            self._requests.append(Request(arrival, class_of(setup.slo, arrival)))
        self._result = Result(law.name, setup, self._requests)
        self._timers: list[tuple[float, int, str, str]] = []
        self._order = 0

    def run(self) -> Result:
        setup, fleet, timers = self._setup, self._fleet, self._timers
        fleet.begin(setup.start_groups, self._draw_cold_start())
        for group in fleet.serving:
            self._scrape_from(group.name, 0.0)
        self._at(0.0, "point")
        self._at(setup.scrape_s + _DECIDE_AT_S, "decide")
        for kill_s in setup.kills:
            self._at(kill_s, "kill")
        following = 0
        while timers and timers[0][0] <= setup.length_s:
            now_s, _, kind, about = heapq.heappop(timers)
            while following < len(self._requests) and self._requests[following].arrival.at_s <= now_s:
                request = self._requests[following]
                fleet.route(request, request.arrival.at_s)
                following += 1
            self._happen(kind, about, now_s)
        for request in self._requests[following:]:
            if request.arrival.at_s <= setup.length_s:
                fleet.route(request, request.arrival.at_s)
        self._result.gpu_seconds = fleet.gpu_seconds(setup.length_s) * setup.gpus_per_group
        self._result.lives = list(fleet.lives.values())
        self._finish()
        return self._result

    def _finish(self) -> None:
        """Let what is in flight end, on the groups that are there."""
        fleet = self._fleet
        if fleet.starting:
            fleet.make_ready(max(life.ready_s for life in fleet.starting))
        for group in fleet.all_groups:
            group.advance(float("inf"))

    def _happen(self, kind: str, about: str, now_s: float) -> None:
        fleet, setup = self._fleet, self._setup
        if kind == "scrape":
            self._scrape(about, now_s)
        elif kind == "decide":
            self._decide(now_s)
            self._at(now_s + self._law.period_s, "decide")
        elif kind == "ready":
            for group in fleet.make_ready(now_s):
                self._scrape_from(group.name, now_s)
        elif kind == "kill":
            if fleet.serving:
                name = fleet.serving[0].name
                fleet.kill(name, now_s)
                self._scraped.forget(name)
                self._await_starts()
        else:
            for group in fleet.retire(now_s):
                self._scraped.forget(group.name)
            for group in fleet.serving:
                group.advance(now_s)
            self._result.points.append(
                Point(
                    now_s,
                    self._spec,
                    len(fleet.serving),
                    len(fleet.starting),
                    len(fleet.draining),
                    sum(group.num_waiting for group in fleet.all_groups),
                    sum(group.num_running for group in fleet.all_groups),
                )
            )
            self._scraped.is_away = is_within(setup.faults.away, now_s)
            self._at(now_s + POINT_S, "point")

    def _decide(self, now_s: float) -> None:
        fleet, setup = self._fleet, self._setup
        self._scraped.is_away = is_within(setup.faults.away, now_s)
        situation = Situation(
            spec_groups=self._spec,
            serving=len(fleet.serving),
            starting=len(fleet.starting),
            gpus_per_group=setup.gpus_per_group,
        )
        verdict = self._law.decide(
            View(self._scraped, now_s, frozenset(group.name for group in fleet.serving)), situation
        )
        is_observed = setup.scaling.mode == "Observe"
        bounds = bounds_at(setup.scaling, situation, setup.began_s + now_s)
        desired = self._spec if is_observed else max(bounds.least, min(bounds.most, verdict.desired))
        before = self._spec
        told = desired
        if is_observed:  # nothing is set, so what was last wanted is what changes
            told = verdict.desired
            before = self._result.changes[-1].desired if self._result.changes else self._spec
        if told != before:
            self._result.changes.append(
                Change(
                    now_s,
                    before,
                    told,
                    situation.serving,
                    situation.starting,
                    verdict.why,
                    verdict.limited_by,
                    self._oldest_sample_s(now_s),
                    self._scraped.is_away,
                )
            )
        if desired != self._spec:
            self._spec = desired
            fleet.resize(desired, now_s)
            self._await_starts()

    def _scrape(self, name: str, now_s: float) -> None:
        setup, scraped = self._setup, self._scraped
        group = next((each for each in self._fleet.all_groups if each.name == name), None)
        if group is None:
            scraped.forget(name)
            return
        self._at(now_s + setup.scrape_s, "scrape", name)
        is_oldest = bool(self._fleet.serving) and name == self._fleet.serving[0].name
        if is_within(setup.faults.away, now_s):
            return
        if self._losses.random() < setup.faults.lost_share or (is_oldest and is_within(setup.faults.silent, now_s)):
            if name in scraped.rows:
                scraped.lose(name)
            return
        if is_oldest and is_within(setup.faults.frozen, now_s):
            row = self._frozen.setdefault(name, self._exposition.row(group, now_s))
        else:
            self._frozen.pop(name, None)
            row = self._exposition.row(group, now_s)
        scraped.keep(name, now_s, row)

    def _scrape_from(self, name: str, now_s: float) -> None:
        """Scrape a group regularly, each group at its own moment of the interval, as Prometheus does."""
        self._at(now_s + (int(name[1:]) * 0.618034 % 1.0) * self._setup.scrape_s, "scrape", name)

    def _await_starts(self) -> None:
        for life in self._fleet.starting:
            self._at(life.ready_s, "ready")

    def _oldest_sample_s(self, now_s: float) -> float:
        newest = [self._scraped.newest_s(group.name) for group in self._fleet.serving]
        since = [group.serving_since_s for group in self._fleet.serving]
        ages = [now_s - max(begun, sample or begun) for sample, begun in zip(newest, since, strict=True)]
        return max(ages, default=0.0)

    def _draw_cold_start(self) -> float:
        return self._random.choice(self._setup.cold_start_s or self._setup.calibration.cold_start_s)

    def _at(self, at_s: float, kind: str, about: str = "") -> None:
        self._order += 1
        heapq.heappush(self._timers, (at_s, self._order, kind, about))
