"""The groups of a simulated deployment: how they come, go and share requests. Pure.

Groups go as the operator lets them go: first those that do not serve yet, the newest first, then the one with the
fewest tokens in flight. One that goes finishes its requests. It costs GPUs from its creation until it is gone.

The router draws two serving groups for each request and takes the one with fewer tokens in flight, as proxies with
"least request" do. Taking the least of all would send every request to a group that is new and therefore empty, for as
long as it takes to fill: its prompts would queue while the others idle.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from glm_operator.autoscale.simulate.model.calibration import Calibration
from glm_operator.autoscale.simulate.model.group import Group, Request
from glm_operator.autoscale.simulate.seen.exposition import Exposition


@dataclass
class Life:
    """One group's time on the GPUs. Seconds of the simulation; None: not yet."""

    name: str
    created_s: float
    ready_s: float
    gone_s: float | None = None


class Fleet:
    """All groups of one deployment."""

    def __init__(
        self,
        calibration: Calibration,
        exposition: Exposition,
        cold_start_s: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        """cold_start_s: seconds of the next start. draw: a random number from 0 to below 1, for the router."""
        self._calibration = calibration
        self._exposition = exposition
        self._cold_start_s = cold_start_s
        self._draw = draw
        self._count = 0
        self.lives: dict[str, Life] = {}
        self.starting: list[Life] = []  # by time of creation
        self.serving: list[Group] = []
        self.draining: list[Group] = []
        self._held: list[Request] = []  # arrived while no group served

    @property
    def size(self) -> int:
        """Groups that stay: serving and starting."""
        return len(self.serving) + len(self.starting)

    def begin(self, groups: int, cold_start_s: float) -> None:
        """Have groups that serve, and did so long before the simulation began."""
        for _ in range(groups):
            life = self._new(0.0, 0.0)
            self.serving.append(self._group(life, -3600.0, cold_start_s))

    def resize(self, groups: int, now_s: float) -> None:
        """Create or remove groups until this many stay."""
        while self.size < groups:
            life = self._new(now_s, now_s + self._cold_start_s())
            self.starting.append(life)
        while self.size > groups and self.starting:
            self.starting.pop().gone_s = now_s
        if self.size > groups:
            for group in self.serving:
                group.advance(now_s)
            surplus = heapq.nsmallest(
                self.size - groups, self.serving, key=lambda each: (each.in_flight_tokens(now_s), -int(each.name[1:]))
            )
            for group in surplus:
                self.serving.remove(group)
                group.is_draining = True
                self.draining.append(group)

    def make_ready(self, now_s: float) -> list[Group]:
        """Let groups serve whose start is over, and return them."""
        ready = [life for life in self.starting if life.ready_s <= now_s]
        self.starting = [life for life in self.starting if life.ready_s > now_s]
        groups = [self._group(life, life.ready_s, life.ready_s - life.created_s) for life in ready]
        self.serving += groups
        held, self._held = self._held, []
        for request in held:
            self.route(request, now_s)
        return groups

    def route(self, request: Request, now_s: float) -> None:
        """Give a request to one of two groups, that with fewer tokens in flight; hold it while none serves."""
        if not self.serving:
            self._held.append(request)
            return
        target, other = self._two(self.serving)
        target.advance(now_s)
        if other is not target:
            other.advance(now_s)
            if other.in_flight_tokens(now_s) < target.in_flight_tokens(now_s):
                target = other
        target.add(request, now_s)

    def _two(self, serving: list[Group]) -> tuple[Group, Group]:
        """Draw two groups, different ones where there are two."""
        count = len(serving)
        first = int(self._draw() * count)
        second = int(self._draw() * (count - 1))
        return serving[first], serving[second + (second >= first) if count > 1 else first]

    def kill(self, name: str, now_s: float) -> None:
        """Lose a group at once. Requests that streamed nothing go to others, the rest have failed; a new one starts."""
        for group in [each for each in self.serving if each.name == name]:
            group.advance(now_s)
            self.serving.remove(group)
            self.lives[name].gone_s = now_s
            for request in group.abandon():
                if request.first_token_at is None:
                    request.epoch += 1
                    request.left = 0
                    self.route(request, now_s)
                else:
                    request.has_failed = True
                    request.ended_at = now_s
            life = self._new(now_s, now_s + self._cold_start_s())
            self.starting.append(life)

    def retire(self, now_s: float) -> list[Group]:
        """Remove draining groups that have nothing left to do, and return them."""
        for group in self.draining:
            group.advance(now_s)
        done = [group for group in self.draining if group.is_idle]
        for group in done:
            self.draining.remove(group)
            self.lives[group.name].gone_s = now_s
        return done

    @property
    def all_groups(self) -> list[Group]:
        return [*self.serving, *self.draining]

    def gpu_seconds(self, until_s: float) -> float:
        """Return the seconds that groups existed up to a moment, added up; of a group's GPUs one."""
        total = 0.0
        for life in self.lives.values():
            gone_s = until_s if life.gone_s is None else min(life.gone_s, until_s)
            total += max(0.0, gone_s - life.created_s)
        return total

    def _new(self, created_s: float, ready_s: float) -> Life:
        name = f"g{self._count}"
        self._count += 1
        life = self.lives[name] = Life(name, created_s, ready_s)
        return life

    def _group(self, life: Life, serving_since_s: float, cold_start_s: float) -> Group:
        exposition = self._exposition
        return Group(
            life.name, self._calibration, exposition.edges, exposition.thresholds, serving_since_s, cold_start_s
        )
