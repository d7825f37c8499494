"""A deployment as the law sees it: groups that do known work, and stories in which decisions are carried out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.autoscale.decide import decide
from glm_operator.autoscale.decision import Decision, Situation
from glm_operator.autoscale.estimate.rates import Rates, StepTime
from glm_operator.autoscale.memory import Memory
from glm_operator.autoscale.series import Series
from glm_operator.autoscale.signals import ClassSignals, GroupSignals, Input, Signals, State

BEGAN_S = 1_767_571_200.0
"""A Monday, 0:00 UTC."""

PERIOD_S = 5.0

PROMPT, ANSWER = 1000.0, 200.0
"""Tokens of every request."""

PREFILL = 10_000.0
"""Prompt tokens a second of one group: 0.1 s a request."""

BASE_S, EACH_S, SEATS = 0.02, 0.0005, 32.0
"""A decode step takes BASE_S + EACH_S * batch, and up to SEATS requests run: 0.225 s of a group a request when full."""

KV = 100_000.0
HELD = 1_200.0
"""Tokens that a group's cache holds, and that a running request takes of it."""

GROUPS_PER_RPS = PROMPT / PREFILL + ANSWER * (BASE_S + EACH_S * SEATS) / SEATS
"""Groups that a request a second keeps busy: 0.325."""


def step_s(batch: float) -> float:
    return BASE_S + EACH_S * batch


def a_scaling(**given: object) -> Scaling:
    return Scaling.model_validate({"max": 20, "targetUtilization": 80, **given})


def a_slo(**promises: str) -> Slo:
    return Slo.model_validate({"classes": [{"name": "chat", **(promises or {"ttft": "2s"})}]})


NO_SLO = Slo()


def knowing(**changes: object) -> Memory:
    """Return a memory that has measured what a group can do."""
    steps = tuple(StepTime(place, batch, step_s(batch)) for place, batch in enumerate((1.0, 4.0, 16.0, 32.0)))
    rates = Rates(
        prefill_tokens_per_s=PREFILL,
        steps=steps,
        prompt_tokens=PROMPT,
        answer_tokens=ANSWER,
        kv_tokens=KV,
        max_running=SEATS,
        sequence_tokens=HELD,
        revisions=frozenset({"r1"}),
    )
    return replace(Memory(rates=rates), **changes)  # type: ignore[arg-type]


def a_group(name: str = "g0", rps: float = 1.0, at_s: float = BEGAN_S, **changes: object) -> GroupSignals:
    """Return a group that serves so many requests a second, as far as it can."""
    served = min(rps, 1.0 / GROUPS_PER_RPS)
    prefill, tokens = served * PROMPT, served * ANSWER
    room = 1.0 - prefill / PREFILL - EACH_S * tokens
    batch = min(max(tokens * BASE_S / room, 1.0), SEATS) if room > 0.0 else SEATS
    steps = tokens / batch
    running = served * ANSWER * step_s(batch) / (1.0 - prefill / PREFILL)
    group = GroupSignals(
        group=name,
        revision="r1",
        at_s=at_s,
        serving_since_s=BEGAN_S - 3600.0,
        requests_running=running,
        in_flight_tokens=running * HELD,
        kv_usage=min(running * HELD / KV, 1.0),
        kv_tokens=KV,
        max_running=SEATS,
        running_rising=0.0,
        arrivals=rps,
        prompt_tokens_arriving=rps * PROMPT,
        tokens_generated=tokens,
        requests_ended=served,
        prefill_tokens=prefill,
        prefill_busy=prefill / PREFILL,
        decode_tokens=tokens,
        decode_steps=steps,
        decode_busy=steps * step_s(batch),
    )
    return replace(group, **changes)  # type: ignore[arg-type]


def idle(name: str = "g0", at_s: float = BEGAN_S) -> GroupSignals:
    return a_group(name, 0.0, at_s, requests_running=0.0, in_flight_tokens=0.0, kv_usage=0.0)


def of(*groups: GroupSignals, classes: Sequence[ClassSignals] = (), **changes: object) -> Signals:
    """Return the signals of groups that are all expected."""
    signals = Signals(
        groups={each.group: each for each in groups},
        expected=frozenset(each.group for each in groups),
        classes=tuple(classes),
        at_s=max((each.at_s for each in groups), default=None),
    )
    return replace(signals, **changes)  # type: ignore[arg-type]


def a_fleet(count: int, rps: float, at_s: float = BEGAN_S, **changes: object) -> Signals:
    """Return groups that share so many requests a second evenly. changes: of every group."""
    return of(*(a_group(f"g{place}", rps / count, at_s, **changes) for place in range(count)))


def silence(count: int) -> Signals:
    """Return the signals of groups of which nothing is known."""
    return Signals(groups={}, expected=frozenset(f"g{place}" for place in range(count)))


def a_situation(spec: int, serving: int | None = None, **given: object) -> Situation:
    serves = spec if serving is None else serving
    return Situation(spec_groups=spec, serving=serves, starting=max(spec - serves, 0), **given)  # type: ignore[arg-type]


def slow(seconds: float, signal: str = "ttft", count: float = 100.0, at_s: float = BEGAN_S) -> ClassSignals:
    """Return a class chat of which a percentile was measured."""
    return ClassSignals(
        name="chat", latency={signal: Input(State.VALUE, seconds, at_s)}, samples={signal: count}, requests_ended=count
    )


@dataclass
class Story:
    """Decisions one after the other, carried out as the operator does: what is decided is written, and groups start."""

    groups: int
    scaling: Scaling = field(default_factory=a_scaling)
    slo: Slo = NO_SLO
    memory: Memory = field(default_factory=knowing)
    now_s: float = BEGAN_S
    start_s: float = 60.0  # until a new group serves
    serving: int = 0
    orders: list[float] = field(default_factory=list)  # when each group that starts was ordered
    numbers: list[int] = field(default_factory=list)  # spec.replicas after every decision
    last: Decision | None = None

    def __post_init__(self) -> None:
        self.serving = self.serving or self.groups
        self.numbers.append(self.groups)

    def run(self, seconds: float, seen: Callable[["Story"], Signals], **situation: object) -> "Story":
        """Let time pass, with a decision every PERIOD_S on what is seen."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += PERIOD_S
            while self.orders and self.now_s - self.orders[0] >= self.start_s:
                self.orders.pop(0)
                self.serving += 1
            self.decide(seen(self), **situation)
        return self

    def decide(self, signals: Signals, **situation: object) -> Decision:
        around = a_situation(self.groups, min(self.serving, self.groups), **situation)
        decision, memory = decide(self.scaling, self.slo, around, signals, self.memory, self.now_s)
        if decision.desired != self.groups:
            memory = memory.noted(decision.desired)
        self.memory, self.last = memory, decision
        for _ in range(decision.desired - self.groups):
            self.orders.append(self.now_s)
        gone = self.groups - decision.desired
        while gone > 0 and self.orders:
            self.orders.pop()
            gone -= 1
        self.groups = decision.desired
        self.serving = min(self.serving, self.groups)
        self.numbers.append(self.groups)
        return decision

    @property
    def moves(self) -> list[tuple[int, int]]:
        """Every change of spec.replicas."""
        pairs = zip(self.numbers, self.numbers[1:], strict=False)
        return [(before, after) for before, after in pairs if before != after]


def under(rps: float, **changes: object) -> Callable[[Story], Signals]:
    """Return what is seen while so many requests a second arrive."""
    return lambda story: a_fleet(story.serving, rps, story.now_s, **changes)


def quiet(story: Story) -> Signals:
    return of(*(idle(f"g{place}", story.now_s) for place in range(story.serving)))


def unknown(story: Story) -> Signals:
    return silence(story.serving)


# -- raw samples


def a_series(
    name: str, value: float, group: str = "g0", *, now_s: float = BEGAN_S, rising: bool = False, **labels: str
) -> Series:
    """Return ten samples, 5 s apart, the newest at now_s. rising: value is a rate, else it is constant."""
    times = [now_s - 45.0 + 5.0 * place for place in range(1, 10)]
    samples = tuple((at_s, value * (at_s - now_s + 10_000.0) if rising else value) for at_s in times)
    return Series(name, {"group": group, "revision": "r1", **labels}, samples)


def raw(group: str = "g0", rps: float = 1.0, now_s: float = BEGAN_S, **labels: str) -> list[Series]:
    """Return every series of a group as its worker exposes them. labels: of the target."""
    of_group = a_group(group, rps)
    gauges = {
        "glm_group_serving_timestamp_seconds": now_s - 3600.0,
        "glm_group_draining": 0.0,
        "glm_num_requests_running": of_group.requests_running,
        "glm_num_requests_waiting": 0.0,
        "glm_oldest_waiting_seconds": 0.0,
        "glm_prompt_tokens_waiting": 0.0,
        "glm_prompt_tokens_left": 0.0,
        "glm_in_flight_tokens": of_group.in_flight_tokens,
        "glm_kv_cache_usage_ratio": of_group.kv_usage,
        "glm_kv_cache_tokens": KV,
        "glm_max_running_requests": SEATS,
    }
    counters = {
        "glm_prefill_tokens_total": of_group.prefill_tokens,
        "glm_prefill_busy_seconds_total": of_group.prefill_busy,
        "glm_decode_tokens_total": of_group.decode_tokens,
        "glm_decode_steps_total": of_group.decode_steps,
        "glm_decode_busy_seconds_total": of_group.decode_busy,
    }
    found = [a_series(name, value, group, now_s=now_s, **labels) for name, value in gauges.items()]
    found += [
        a_series(name, value or 0.0, group, now_s=now_s, rising=True, **labels) for name, value in counters.items()
    ]
    for slo_class, share in (("chat", 0.75), ("default", 0.25)):
        for name, rate in (("glm_requests_received_total", rps), ("glm_prompt_tokens_received_total", rps * PROMPT)):
            found.append(a_series(name, rate * share, group, now_s=now_s, rising=True, slo_class=slo_class, **labels))
    for kind, share in (("reasoning", 0.5), ("answer", 0.5)):
        tokens = (of_group.tokens_generated or 0.0) * share
        found.append(
            a_series("glm_generation_tokens_total", tokens, group, now_s=now_s, rising=True, kind=kind, **labels)
        )
    for outcome, rate in (("finished", of_group.requests_ended or 0.0), ("refused", 5.0)):
        found.append(a_series("glm_requests_total", rate, group, now_s=now_s, rising=True, outcome=outcome, **labels))
    found.append(a_series("glm_cold_start_seconds", 42.0, group, now_s=now_s, phase="total", **labels))
    return found
