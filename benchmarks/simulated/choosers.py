"""Who chooses: the gateway's router, in one or more replicas, and three that know nothing of prefixes."""

import random
from collections.abc import Callable
from typing import Protocol

from simulated.engine import Engine
from simulated.workload import BYTES_PER_TOKEN, Turn

from glm_gateway.routing.book import Load
from glm_gateway.routing.pick import Choice, Group, Request
from glm_gateway.routing.prefix import ENDS
from glm_gateway.routing.router import Router
from glm_operator.autoscale.simulate.model.calibration import H200_AIR_FP8

GROUPS = 4
NAMES = tuple(f"nano-g{number}" for number in range(GROUPS))


class Chooser(Protocol):
    """A router under test."""

    def choose(self, turn: Turn, now: float) -> tuple[int, object]: ...
    def opened(self, handle: object, turn: Turn, now: float) -> None: ...
    def token(self, handle: object) -> None: ...
    def end(self, handle: object) -> None: ...
    def hear(self, group: int, engine: Engine, now: float) -> None: ...


class Plain:
    """The three that know nothing of prefixes."""

    def __init__(self, kind: str) -> None:
        self.kind, self.dice, self.turn = kind, random.Random(0), 0
        self.in_flight = [0] * GROUPS

    def choose(self, turn: Turn, now: float) -> tuple[int, object]:  # noqa: ARG002 - the shape of Chooser
        self.turn += 1
        group = self.turn % GROUPS
        if self.kind == "random":
            group = self.dice.randrange(GROUPS)
        elif self.kind == "least loaded":
            least = min(self.in_flight)
            group = self.dice.choice([group for group in range(GROUPS) if self.in_flight[group] == least])
        self.in_flight[group] += turn.prompt_tokens
        return group, (group, turn.prompt_tokens)

    def opened(self, handle: object, turn: Turn, now: float) -> None: ...

    def token(self, handle: object) -> None: ...

    def end(self, handle: object) -> None:
        assert isinstance(handle, tuple)
        group, tokens = handle
        self.in_flight[group] -= tokens

    def hear(self, group: int, engine: Engine, now: float) -> None: ...


class CacheAware:
    """The law of the Rust routers, as they are by default: a request goes where most of it was sent before, if that is
    more than three tenths of it; else, and while requests in flight are uneven, to whom has the fewest."""

    THRESHOLD, UNEVEN, UNEVEN_TIMES = 0.3, 64, 1.5

    def __init__(self) -> None:
        self.in_flight = [0] * GROUPS
        self.sent: list[set[int]] = [set() for _ in range(GROUPS)]

    def choose(self, turn: Turn, now: float) -> tuple[int, object]:  # noqa: ARG002 - the shape of Chooser
        least, most = min(self.in_flight), max(self.in_flight)
        matched = [self._matched(sent, turn) for sent in self.sent]
        group = self.in_flight.index(least)
        is_uneven = most - least > self.UNEVEN and most > self.UNEVEN_TIMES * least
        if not is_uneven and max(matched) > self.THRESHOLD:
            group = matched.index(max(matched))
        self.in_flight[group] += 1
        self.sent[group].update(turn.prefix.hashes)
        return group, group

    @staticmethod
    def _matched(sent: set[int], turn: Turn) -> float:
        num_known = next((place for place, each in enumerate(turn.prefix.hashes) if each not in sent), None)
        ends = (0, *ENDS)
        return ends[len(turn.prefix.hashes) if num_known is None else num_known] / turn.prefix.num_bytes

    def opened(self, handle: object, turn: Turn, now: float) -> None: ...

    def token(self, handle: object) -> None: ...

    def end(self, handle: object) -> None:
        assert isinstance(handle, int)
        self.in_flight[handle] -= 1

    def hear(self, group: int, engine: Engine, now: float) -> None: ...


class Ours:
    """The gateway's router, in one or more replicas."""

    def __init__(self, replicas: int, *, tell: bool = False) -> None:
        self.routers = [Router() for _ in range(replicas)]
        self.tell = tell
        self.asked = 0

    def choose(self, turn: Turn, now: float) -> tuple[int, object]:
        self.asked += 1
        router = self.routers[self.asked % len(self.routers)]
        tokens = turn.prefix.num_bytes // BYTES_PER_TOKEN
        request = Request(key=f"r{self.asked}", prompt_tokens=tokens, prefix=turn.prefix)
        groups = [Group(name=name) for name in NAMES]
        choice = router.route(request, groups, now)
        assert choice is not None
        for other in self.routers if self.tell else ():
            if other is not router:
                other.book.use(choice.group, turn.prefix, now)
        return NAMES.index(choice.group), (router, choice)

    @staticmethod
    def _of(handle: object) -> tuple[Router, Choice]:
        assert isinstance(handle, tuple)
        return handle

    def opened(self, handle: object, turn: Turn, now: float) -> None:
        router, choice = self._of(handle)
        router.succeed(choice, now, turn.prompt_tokens)

    def token(self, handle: object) -> None:
        router, choice = self._of(handle)
        router.book.grow(choice.charge, 1)

    def end(self, handle: object) -> None:
        router, choice = self._of(handle)
        router.end(choice)

    def hear(self, group: int, engine: Engine, now: float) -> None:
        speed = engine.measured_tokens / engine.prefill_busy_s if engine.prefill_busy_s else None
        load = Load(
            in_flight_tokens=engine.in_flight_tokens,
            tokens_to_prefill=engine.tokens_to_prefill,
            oldest_wait_s=max((now - flight.came_s for flight in engine.waiting if flight.hits is None), default=0.0),
            prefill_tokens_per_s=speed,
            kv_tokens=H200_AIR_FP8.kv_tokens,
        )
        for router in self.routers:
            router.book.hear(NAMES[group], load)


CHOOSERS: dict[str, Callable[[], Chooser]] = {
    "round robin": lambda: Plain("round robin"),
    "random": lambda: Plain("random"),
    "least loaded": lambda: Plain("least loaded"),
    "cache-aware": CacheAware,
    "ours": lambda: Ours(1),
    "ours x2": lambda: Ours(2),
    "x2, told": lambda: Ours(2, tell=True),
}
PLAIN = ("round robin", "random", "least loaded", "cache-aware")
