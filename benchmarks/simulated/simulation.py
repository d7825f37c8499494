"""What comes of it: a load on its way through a router to the groups, event by event."""

import heapq
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from simulated.choosers import GROUPS, Chooser
from simulated.engine import Engine, Flight
from simulated.workload import WARM_S, Turn, Workload, ideal

TOO_LATE_S = 30.0
PUSH_S = 0.1


@dataclass(frozen=True)
class Result:
    """One router under one load, without the first minute."""

    hits: float
    ideal: float  # what one group with an endless cache would have found, of the same requests
    load: float
    work: float
    ttft_s: tuple[float, ...]  # p50, p90, p99
    failed: float
    requests: int

    @property
    def of_ideal(self) -> float:
        return self.hits / self.ideal


@dataclass(order=True)
class Event:
    """Something that happens. kind and what: a turn that comes, a push of a group, the end of a group's step."""

    at_s: float
    order: int
    kind: str = field(compare=False)
    group: int = field(compare=False)
    turn: Turn | None = field(compare=False)


class Simulation:
    """A load on its way through a router."""

    def __init__(self, workload: Workload, chooser: Chooser) -> None:
        self.workload, self.chooser = workload, chooser
        self.engines = [Engine(speed) for speed in workload.speeds]
        self.flights: list[Flight] = []
        self.loads: list[list[int]] = []
        self.computed_before: list[int] = [0] * GROUPS
        self._events: list[Event] = []
        self._order = 0

    def run(self) -> Result:
        for session in self.workload.sessions:
            self._plan(session[0].at_s, "turn", 0, session[0])
        for group in range(GROUPS):
            self._plan(PUSH_S, "push", group)
        while self._events and self._events[0].at_s <= self.workload.seconds:
            event = heapq.heappop(self._events)
            if event.turn is not None:
                self._come(event.turn, event.at_s)
            elif event.kind == "push":
                self._push(event.group, event.at_s)
            else:
                self._step(event.group, event.at_s)
        return self._result()

    def _plan(self, at_s: float, kind: str, group: int, turn: Turn | None = None) -> None:
        self._order += 1
        heapq.heappush(self._events, Event(at_s, self._order, kind, group, turn))

    def _come(self, turn: Turn, now: float) -> None:
        group, handle = self.chooser.choose(turn, now)
        flight = Flight(turn, now, handle)
        self.flights.append(flight)
        self.engines[group].waiting.append(flight)
        self.chooser.opened(handle, turn, now)
        if not self.engines[group].is_busy:
            self._go_on(group, now)

    def _push(self, group: int, now: float) -> None:
        self.chooser.hear(group, self.engines[group], now)
        self._plan(now + PUSH_S, "push", group)
        if group == 0 and now < WARM_S:
            self.computed_before = [each.computed_tokens for each in self.engines]
        elif group == 0:
            self.loads.append([each.in_flight_tokens for each in self.engines])

    def _step(self, group: int, now: float) -> None:
        firsts, done = self.engines[group].finish(now)
        for flight in firsts:
            self.chooser.token(flight.handle)
        for flight in self.engines[group].running:
            if not flight.left and flight not in firsts:
                self.chooser.token(flight.handle)
        for flight in done:
            self.chooser.end(flight.handle)
            session = self.workload.sessions[flight.turn.session]
            for turn in session[session.index(flight.turn) + 1 :][:1]:
                self._plan(max(turn.at_s, now + 1.0), "turn", 0, turn)
        self._go_on(group, now)

    def _go_on(self, group: int, now: float) -> None:
        seconds = self.engines[group].plan()
        if seconds is not None:
            self._plan(now + seconds, "step", group)

    def _result(self) -> Result:
        # Who came in the last seconds has not had its time.
        last_s = self.workload.seconds - TOO_LATE_S
        judged = [flight for flight in self.flights if WARM_S <= flight.came_s <= last_s]
        waits = sorted(TOO_LATE_S if flight.first_s is None else flight.first_s - flight.came_s for flight in judged)
        found = [flight for flight in judged if flight.hits is not None]
        means = [statistics.fmean(column) for column in zip(*self.loads, strict=True)]
        computed = [each.computed_tokens - self.computed_before[place] for place, each in enumerate(self.engines)]
        return Result(
            hits=sum(flight.hits or 0 for flight in found) / sum(flight.turn.prompt_tokens for flight in found),
            ideal=ideal([(flight.came_s, flight.turn) for flight in self.flights], to_s=last_s),
            load=_fullest(means, self.workload.speeds),
            work=_fullest(computed, self.workload.speeds),
            ttft_s=tuple(waits[int(share * (len(waits) - 1))] for share in (0.5, 0.9, 0.99)),
            failed=sum(wait >= TOO_LATE_S for wait in waits) / len(waits),
            requests=len(judged),
        )


def _fullest(values: Sequence[float], speeds: Sequence[float]) -> float:
    """Return what the fullest group has for its speed, against all groups."""
    return max(value / speed for value, speed in zip(values, speeds, strict=True)) * sum(speeds) / sum(values)


def run(workload: Workload, chooser: Chooser) -> Result:
    """Send a load through a router."""
    return Simulation(workload, chooser).run()
