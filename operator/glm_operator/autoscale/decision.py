"""What a decision is about, and what it is. Pure.

`decide(scaling, slo, situation, signals, memory, now_s) -> (Decision, Memory)` in decide.py makes one from the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Cause = Literal[
    "Steady",  # what there is carries the load
    "Demand",  # seconds of work against what a group was measured to do
    "Waiting",  # the age of the oldest waiting request
    "KVCache",  # tokens in the KV cache
    "Latency",  # the percentile of a class, through the safety factor
    "Lookahead",  # what arrives or runs rises, and a group takes its cold start to help
    "Schedule",  # a window with other bounds
    "Bounds",  # somebody set a number outside of them
    "Surplus",  # fewer groups carry the load
    "NoData",  # unknown or stale: hold
    "Woken",  # gateways hold requests, and there is no group
    "Idle",  # no gateway is asked anything, so that none is needed
]

Limit = Literal[
    "Max",
    "Min",
    "GPUBudget",
    "NamespaceGPUBudget",
    "ResourceQuota",
    "UpRate",
    "DownRate",
    "UpStabilization",
    "DownStabilization",
    "Starting",  # groups that start are waited for
    "Rollout",  # groups move to another revision; scale-downs wait
    "Survivors",  # the groups that would be left could not carry the load
    "MissingMetrics",
    "Infeasible",  # more groups cannot help
    "IdleAfter",  # somebody asked lately, or the group has not served for that long
    "NoGateway",  # there is none that would hold requests
    "GatewayUnknown",  # one does not say what it is asked, so what it holds is not known
]

CEILINGS: frozenset[Limit] = frozenset({"Max", "GPUBudget", "NamespaceGPUBudget", "ResourceQuota"})
"""Limits that only a person moves."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the cluster says of a deployment, apart from its metrics."""

    spec_groups: int  # spec.replicas
    serving: int  # groups that serve
    starting: int  # groups that exist, or will, and do not serve yet
    gpus_per_group: int = 0
    namespace_gpus_left: int | None = None  # of the namespace's budget, not counting this deployment; None: no budget
    quota_groups: int | None = None  # most groups that a ResourceQuota leaves room for; None: not limited by one
    is_moving: bool = False  # a rollout or an adoption is on its way
    floor_s: Mapping[str, float] = field(default_factory=dict)  # by signal: what one request alone takes at least
    floor_on: str = ""  # the hardware that floor_s is of, for people; empty: not said


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How many groups there should be, and why."""

    desired: int  # within all limits: what spec.replicas is to be
    wanted: int  # before limits
    current: int  # spec.replicas when it was decided
    starting: int
    cause: Cause
    message: str  # the numbers, in a sentence
    limited_by: Limit | None = None
    least: int | None = None  # fewest and most groups at the moment, schedules and the GPU budget included
    most: int | None = None
    scheduled: tuple[str, ...] = ()  # schedules whose windows are open
    is_blind: bool = False  # no group that serves shows anything fresh, so the number is held
    infeasible: Mapping[str, str] = field(default_factory=dict)  # by class: why more groups cannot keep its promise
    inputs: Mapping[str, object] = field(
        default_factory=dict
    )  # by name with unit: signals.Input, for status and metrics


def number(value: float) -> str:
    """Return a number for a message: three digits, or all before the point, and no exponent."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
