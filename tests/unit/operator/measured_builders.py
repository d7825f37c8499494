"""Builders of what the autoscaler saw. Every argument has a harmless default."""

from typing import Any

from glm_operator.api.trouble import Trouble
from glm_operator.autoscale.decision import Decision, Situation
from glm_operator.autoscale.signals import ClassSignals, Input, State
from glm_operator.status.measured import Change, Measured

READ = Trouble("metrics", "MetricsRead", "read from Prometheus")
NO_SERIES = Trouble("metrics", "NoSeries", 'no series for {deployment="chat"}')
NOW_S = 1_767_323_045.0


def value(number: float, at_s: float | None = NOW_S) -> Input:
    return Input(State.VALUE, number, at_s)


def a_decision(desired: int = 2, current: int = 2, **changes: Any) -> Decision:
    fields: dict[str, Any] = {"wanted": desired, "starting": 0, "cause": "Steady", "message": "1.4 groups of work"}
    return Decision(desired=desired, current=current, **{**fields, **changes})


def a_change(before: int = 1, after: int = 3, **changes: Any) -> Change:
    fields: dict[str, Any] = {"at_s": NOW_S, "reason": "Demand", "message": "2.4 groups of work"}
    return Change(before=before, after=after, **{**fields, **changes})


def a_class(name: str = "chat", ttft: float | None = 0.3, **changes: Any) -> ClassSignals:
    latency = {"ttft": value(ttft)} if ttft is not None else {"ttft": Input(State.IDLE)}
    fields: dict[str, Any] = {"status_latency": latency, "attainment": value(0.995), "budget_left": value(0.87)}
    return ClassSignals(name=name, **{**fields, **changes})


def measured(**changes: Any) -> Measured:
    fields: dict[str, Any] = {
        "at_s": NOW_S,
        "uid": "uid-1",
        "mode": "Active",
        "metrics": READ,
        "source": "Prometheus",
        "latency": {"ttft": value(0.42), "itl": value(0.031)},
        "classes": (a_class(),),
        "met": {"chat": True},
        "decision": a_decision(),
        "situation": Situation(spec_groups=2, serving=2, starting=0),
    }
    return Measured(**{**fields, **changes})
