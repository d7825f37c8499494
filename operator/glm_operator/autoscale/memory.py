"""What the law remembers of one deployment between two decisions. Pure.

Times are unix seconds. Between two decisions never less than 0 and never more than MAX_STEP_S counts: when the clock
jumps, every remembered time jumps with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from glm_operator.autoscale.constants import MAX_STEP_S, REGRET_S, WRITE_LAG_S
from glm_operator.autoscale.decision import Limit
from glm_operator.autoscale.estimate.coldstart import ColdStarts
from glm_operator.autoscale.estimate.held import Held
from glm_operator.autoscale.estimate.rates import Rates
from glm_operator.autoscale.estimate.trend import Arrivals
from glm_operator.autoscale.zero.idle import Idle

Said = tuple[tuple[float, int], ...]
"""Numbers of groups that were wanted, each with the time until which it was: falling, so that the first is the most."""


@dataclass(frozen=True)
class Move:
    """A change of spec.replicas that was ours."""

    at_s: float
    groups: int  # below 0: fewer


@dataclass(frozen=True)
class Age:
    """How long the oldest request had waited at a moment."""

    at_s: float
    waited_s: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Begin with Memory(). Give each decision the one that the last returned."""

    at_s: float | None = None  # of the last decision
    began_s: float | None = None  # since when timers run: the first decision, or a number set by hand
    spec_groups: int | None = None  # as last seen or written
    desired: int | None = None  # of the last decision
    ceiling: Limit | None = None  # what kept more groups from coming, as long as the need stays near it
    before_write: int | None = None  # what was there before our last write, as long as it may still be seen
    written_s: float = 0.0
    serving: int | None = None
    grew_s: float | None = None  # when groups last began to serve
    most: Said = ()  # wanted numbers, for the most of them within a time: what a scale-down waits for
    least: Said = ()  # the same with the sign changed, for the fewest of them: what a scale-up waits for
    moves: tuple[Move, ...] = ()
    removed_s: float | None = None  # when we last removed a group
    regretted_s: float | None = None  # when we last wanted one back that had been removed shortly before
    boost: float = 1.0  # of the safety factor, by latencies
    requests_level: float | None = None  # arriving a second, without noise
    prompt_level: float | None = None
    generated_level: float | None = None
    arrivals: tuple[Arrivals, ...] = ()
    held: tuple[Held, ...] = ()  # at gateways, at the moments when all of them were heard
    ages: tuple[Age, ...] = ()
    shown: frozenset[str] = frozenset()  # groups that serve and have shown everything of their load
    hung: Mapping[str, float] = field(default_factory=dict)  # groups that computed nothing, and when they last did so
    infeasible: frozenset[tuple[str, str]] = frozenset()  # class and signal
    rates: Rates = field(default_factory=Rates)
    starts: ColdStarts = field(default_factory=ColdStarts)
    idle: Idle = field(default_factory=Idle)

    def noted(self, desired: int) -> "Memory":
        """Return the memory after this number was written to spec.replicas. Call it after a write that succeeded."""
        if self.spec_groups is None or self.at_s is None or desired == self.spec_groups:
            return replace(self, spec_groups=desired)
        return replace(
            self._turned(desired - self.spec_groups, self.at_s),
            spec_groups=desired,
            desired=desired,
            before_write=self.spec_groups,
            written_s=self.at_s,
            moves=(*self.moves, Move(self.at_s, desired - self.spec_groups)),
        )

    def _turned(self, groups: int, now_s: float) -> "Memory":
        """Return the memory after a move of ours, with what it says of a removal before it."""
        if groups < 0:
            return replace(self, removed_s=now_s)
        is_regret = self.removed_s is not None and now_s - self.removed_s < REGRET_S
        return replace(self, regretted_s=now_s) if is_regret else self

    def is_by_hand(self, spec_groups: int) -> bool:
        """Whether somebody else wrote this number: it is neither what was there nor what we wanted."""
        if self.spec_groups is None or spec_groups in (self.spec_groups, self.desired):
            return False
        return spec_groups != self.before_write

    def elapsed_s(self, now_s: float) -> float:
        """Return the seconds since the last decision that count."""
        return 0.0 if self.at_s is None else min(max(now_s - self.at_s, 0.0), MAX_STEP_S)

    def moved_to(self, now_s: float) -> "Memory":
        """Return the memory at another time, with all times moved by what does not count of a jump."""
        if self.at_s is None:
            return replace(self, at_s=now_s, began_s=now_s)
        jump = now_s - self.at_s - self.elapsed_s(now_s)
        if jump == 0.0:
            return replace(self, at_s=now_s, before_write=self._still_before_write(now_s))
        return replace(
            self,
            at_s=now_s,
            began_s=_later(self.began_s, jump),
            grew_s=_later(self.grew_s, jump),
            removed_s=_later(self.removed_s, jump),
            regretted_s=_later(self.regretted_s, jump),
            written_s=self.written_s + jump,
            most=tuple((at_s + jump, groups) for at_s, groups in self.most),
            least=tuple((at_s + jump, groups) for at_s, groups in self.least),
            moves=tuple(Move(each.at_s + jump, each.groups) for each in self.moves),
            arrivals=tuple(replace(each, at_s=each.at_s + jump) for each in self.arrivals),
            held=tuple(replace(each, at_s=each.at_s + jump) for each in self.held),
            ages=tuple(Age(each.at_s + jump, each.waited_s) for each in self.ages),
            hung={name: at_s + jump for name, at_s in self.hung.items()},
            idle=self.idle.moved_by(jump),
            starts=replace(self.starts, pending=tuple(_later(at_s, jump) for at_s in self.starts.pending)),
        )

    def seen(self, spec_groups: int, now_s: float) -> "Memory":
        """Return the memory after spec.replicas was looked at. Timers begin anew where somebody else set it."""
        if self.spec_groups is None:
            return replace(self, spec_groups=spec_groups)
        if spec_groups == self.spec_groups:
            return self
        if spec_groups == self.desired:
            ours = Move(now_s, spec_groups - self.spec_groups)
            return replace(self._turned(ours.groups, now_s), spec_groups=spec_groups, moves=(*self.moves, ours))
        if not self.is_by_hand(spec_groups):
            return self  # our write is not seen yet
        return replace(
            self, spec_groups=spec_groups, before_write=None, began_s=now_s, most=(), least=(), moves=(), desired=None
        )

    def moved(self, sign: int, within_s: float, now_s: float) -> int:
        """Return how many groups we added (sign 1) or removed (sign -1) within a time."""
        return sum(abs(each.groups) for each in self.moves if each.groups * sign > 0 and now_s - each.at_s < within_s)

    def _still_before_write(self, now_s: float) -> int | None:
        return self.before_write if now_s - self.written_s <= WRITE_LAG_S else None


def _later(at_s: float | None, seconds: float) -> float | None:
    return None if at_s is None else at_s + seconds


def say(said: Said, now_s: float, groups: int, keep_s: float) -> Said:
    """Return what was said with a number that is wanted now. What holds no longer than keep_s ago is dropped.

    A number holds until the next is said: while nothing is known, nothing is said, and the last one holds.
    """
    held = _pushed(said, now_s, said[-1][1]) if said else said
    return tuple(each for each in _pushed(held, now_s, groups) if now_s - each[0] <= keep_s)


def hold(said: Said, now_s: float) -> Said:
    """Return what was said with the last number still held now."""
    return _pushed(said, now_s, said[-1][1]) if said else said


def most_within(said: Said, now_s: float, within_s: float) -> int | None:
    """Return the largest number that held within a time. None: none did."""
    return next((groups for at_s, groups in said if at_s > now_s - within_s), None)


def _pushed(said: Said, now_s: float, groups: int) -> Said:
    """Return the numbers with one more. A smaller one before a larger one is never the most again, so it goes."""
    kept = list(said)
    while kept and kept[-1][1] <= groups:
        kept.pop()
    return (*kept, (now_s, groups))
