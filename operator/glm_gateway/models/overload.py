"""Where one model stands on the ladder of overload: what its requests wait, looked at now and again."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from glm_gateway.ladder.easing import NO_EASING, Easing
from glm_gateway.ladder.ladder import Ladder, Rung, Steps, Waiting, pressure
from glm_gateway.ladder.throughput import Throughput

log = logging.getLogger(__name__)

LOOK_S = 0.1
"""Between two looks: each one goes through all that wait."""


@dataclass(eq=False, slots=True)
class Pending:
    """A request without its first token. group: None: it is at the gateway. sent_s: when it went to its group."""

    arrived_s: float
    promise_s: float
    group: str | None = None
    sent_s: float = 0.0


@dataclass
class Overload:
    """group_wait_s: returns how long the oldest request of a group waits there, by the group; 0: none does.

    is_able: returns whether any group takes requests. Without one nobody is overloaded: requests wait for a start.
    num_shed: by the name of a priority class.
    """

    name: str
    group_wait_s: Callable[[str], float]
    is_able: Callable[[], bool]
    is_enabled: bool = True
    num_shed: Counter[str] = field(default_factory=Counter)
    ladder: Ladder = field(default_factory=Ladder)
    throughput: Throughput = field(default_factory=Throughput)
    _pending: dict[Pending, None] = field(default_factory=dict)
    _able_since: float | None = None
    _looked_s: float | None = None

    @property
    def rung(self) -> Rung:
        return self.ladder.rung

    @property
    def easing(self) -> Easing:
        """What is done to a request that is sent now."""
        return Easing(self.rung, self.ladder.steps.max_thinking_tokens) if self.rung else NO_EASING

    @property
    def has_work(self) -> bool:
        """Whether it must be looked at again, though nobody comes."""
        return self.rung is not Rung.NONE or bool(self._pending)

    def set_steps(self, steps: Steps, *, is_enabled: bool) -> None:
        """Take other steps; they count from the next look on."""
        self.ladder.steps, self.is_enabled = steps, is_enabled
        self._looked_s = None

    def know(self, classes: Iterable[str]) -> None:
        """Count from nothing for these classes, where nothing is counted yet."""
        self.num_shed.update(dict.fromkeys(classes, 0))

    def enter(self, arrived_s: float, promise_s: float | None) -> Pending | None:
        """Note a request that has come; return what `leave` takes. None: nothing is promised, and nothing measured."""
        if promise_s is None:
            return None
        pending = Pending(arrived_s, promise_s)
        self._pending[pending] = None
        return pending

    def leave(self, pending: Pending | None) -> None:
        """Note its first token, or its end. A second time changes nothing."""
        if pending is not None:
            self._pending.pop(pending, None)

    def look(self, now: float) -> bool:
        """Take a look, if the last one is not just over; return whether it stands elsewhere now."""
        if self._looked_s is not None and now - self._looked_s < LOOK_S:
            return False
        self._looked_s = now
        if not self.is_able():
            self._able_since = None
        elif self._able_since is None:
            self._able_since = now
        before, seen = self.rung, pressure(self._waiting(now)) if self.is_enabled else 0.0
        if not self.is_enabled:
            self.ladder = Ladder(self.ladder.steps)
        elif self.ladder.look(seen, now) is not before:
            log.info("model=%s overload=%s after %s: pressure %.2f", self.name, self.rung.word, before.word, seen)
        return self.rung is not before

    def _waiting(self, now: float) -> Iterator[Waiting]:
        able_since = self._able_since
        if able_since is None:
            return
        waits: dict[str, float] = {}
        for each in self._pending:
            waited_s = now - max(each.arrived_s, able_since)
            if each.group is not None:
                if each.group not in waits:
                    waits[each.group] = self.group_wait_s(each.group)
                at_group_s = waits[each.group]
                if at_group_s <= 0.0:  # nobody waits there: it is computed
                    continue
                # Who came to the group before its oldest request that waits has been begun: nobody waits longer there.
                waited_s = min(waited_s, max(0.0, each.sent_s - max(each.arrived_s, able_since)) + at_group_s)
            yield Waiting(waited_s, each.promise_s)
