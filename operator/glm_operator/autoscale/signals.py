"""What is known of a deployment at one moment: every input with its state. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from glm_operator.autoscale.zero.asked import Asked


class State(Enum):
    """What is known of an input."""

    VALUE = "Value"
    IDLE = "Idle"  # fresh data say that it is nothing
    UNKNOWN = "Unknown"  # no data
    STALE = "Stale"  # data too old to decide on


@dataclass(frozen=True)
class Input:
    """One number, and whether it may be believed."""

    state: State
    value: float = 0.0
    at_s: float | None = None  # unix time of the oldest sample in it

    @property
    def is_known(self) -> bool:
        return self.state in (State.VALUE, State.IDLE)


UNKNOWN = Input(State.UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class GroupSignals:
    """One group as its newest samples show it. Rates are per second, over the samples of the demand window."""

    group: str
    revision: str
    at_s: float  # of the newest sample
    serving_since_s: float | None = None  # unix time; None: it does not serve
    is_draining: bool = False
    requests_running: float = 0.0
    requests_waiting: float = 0.0
    oldest_waiting_s: float = 0.0
    prompt_tokens_waiting: float = 0.0  # uncached, of requests that wait
    prompt_tokens_left: float = 0.0  # uncached and not yet computed, of requests that run
    in_flight_tokens: float = 0.0
    kv_usage: float = 0.0  # 1 is full
    kv_tokens: float = 0.0  # that the cache holds when full; 0: not reported
    max_running: float = 0.0  # requests that may run at once; 0: not reported
    running_rising: float | None = None  # by how much requests_running rose a second, from the window's start on
    arrivals: float | None = None  # requests; None where there are too few samples for a rate
    prompt_tokens_arriving: float | None = None
    arrivals_lately: float | None = None  # over the newest samples alone, which show a step sooner
    prompt_tokens_arriving_lately: float | None = None
    tokens_generated: float | None = None
    requests_ended: float | None = None
    prefill_tokens: float | None = None
    prefill_busy: float | None = None  # seconds a second
    decode_tokens: float | None = None
    decode_steps: float | None = None
    decode_busy: float | None = None  # seconds a second
    cold_start_s: float | None = None
    missing: frozenset[str] = frozenset()  # fields above that nothing believable was reported for, and are 0 here
    is_hung: bool = False  # requests run or wait, and no step has computed any token for HUNG_S


RATES: tuple[str, ...] = (
    "running_rising",
    "arrivals",
    "prompt_tokens_arriving",
    "arrivals_lately",
    "prompt_tokens_arriving_lately",
    "tokens_generated",
    "requests_ended",
    "prefill_tokens",
    "prefill_busy",
    "decode_tokens",
    "decode_steps",
    "decode_busy",
)
"""Fields of GroupSignals that are rates over its samples."""


@dataclass(frozen=True, kw_only=True)
class ClassSignals:
    """One class of spec.slo."""

    name: str
    latency: Mapping[str, Input] = field(default_factory=dict)  # by signal: at the class's percentile, SHORT_WINDOW_S
    samples: Mapping[str, float] = field(default_factory=dict)  # by signal: how many requests or tokens latency is of
    status_latency: Mapping[str, Input] = field(default_factory=dict)  # the same as latency, STATUS_WINDOW_S
    prompt_tokens: Input = UNKNOWN  # mean uncached prompt of the requests that arrived
    attainment: Input = UNKNOWN  # share of requests, STATUS_WINDOW_S
    requests_ended: float = 0.0  # within STATUS_WINDOW_S
    fast_burn: Input = UNKNOWN  # budget burnt against an even burn, STATUS_WINDOW_S
    slow_burn: Input = UNKNOWN  # BURN_WINDOW_S
    budget_left: Input = UNKNOWN  # share of the error budget over the class's window


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Everything that a decision rests on.

    expected: groups of which the cluster says that they serve. One of them that is not in groups, or whose samples are
    old, makes the sums over groups unknown or stale: a partial sum is no sum.
    """

    groups: Mapping[str, GroupSignals]
    expected: frozenset[str]
    stale: frozenset[str] = frozenset()  # of groups, those whose samples are too old
    classes: tuple[ClassSignals, ...] = ()
    at_s: float | None = None  # of the newest sample of any group
    asked: Asked = field(default_factory=Asked)  # what gateways say; none: nobody waits there
