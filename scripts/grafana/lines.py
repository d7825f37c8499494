"""What a panel asks Prometheus, and what may come back; and the PromQL that several panels share.

Idle must read as nothing, never as NaN: a quantile or a share of nothing is left out, and the panel says "no traffic".
Rates are over $__rate_interval. Histograms have other edges for each class, so that they are never added over classes.
"""

from dataclasses import dataclass
from typing import Literal

OF = 'namespace=~"$namespace", deployment=~"$deployment"'
"""Selects what the variables of a dashboard choose."""

NAME = "namespace, deployment"
LEGEND = "{{namespace}}/{{deployment}}"
"""By what series of a deployment are summed up, and how it is called."""

OF_CLASS = f'{OF}, slo_class=~"$slo_class"'
RATE = "$__rate_interval"
STATUS_WINDOW = "5m"
"""Of attainment, as in `kubectl get glmd`."""

Due = Literal["always", "traffic", "sometimes"]


@dataclass(frozen=True)
class Line:
    """One query.

    due: always (from the first scrape on), traffic (once requests have ended), sometimes (nothing may be good news).
    low, high: no value is below or above.
    """

    expr: str
    legend: str
    due: Due = "always"
    low: float = 0.0
    high: float = float("inf")
    is_limit: bool = False  # drawn dashed: a promise, a budget, what could have been


def rate_of(metric: str, by: str, more: str = "", of: str = OF) -> str:
    """Return the rate a second of a counter, summed by labels."""
    return f"sum by ({by}) (rate({metric}{{{of}{more}}}[{RATE}]))"


def share(part: str, whole: str) -> str:
    """Return a part of a whole; nothing where the whole is nothing."""
    return f"{part} / ({whole} > 0)"


def quantile(q: float, histogram: str, by: str, of: str = OF_CLASS, window: str = RATE) -> str:
    """Return a quantile of a histogram by labels; nothing where nothing was counted."""
    buckets = f"sum by ({by}, le) (rate({histogram}_bucket{{{of}}}[{window}]))"
    counted = f"sum by ({by}) (rate({histogram}_count{{{of}}}[{window}])) > 0"
    return f"histogram_quantile({q}, {buckets}) and on ({by}) ({counted})"


def attainment(by: str, of: str, window: str = STATUS_WINDOW) -> str:
    """Return the share of requests that met every threshold of their class."""
    met = f'sum by ({by}) (increase(glm_slo_requests_total{{{of}, slo_class!="default", met="true"}}[{window}]))'
    ended = f'sum by ({by}) (increase(glm_slo_requests_total{{{of}, slo_class!="default"}}[{window}]))'
    return share(met, ended)


def burn(window: str, by: str = "namespace, deployment, slo_class", of: str = OF_CLASS) -> str:
    """Return how many times faster than evenly a class uses up its error budget."""
    missed = f'sum by ({by}) (increase(glm_slo_requests_total{{{of}, met="false"}}[{window}]))'
    ended = f"sum by ({by}) (increase(glm_slo_requests_total{{{of}}}[{window}]))"
    budget = f"(1 - max by ({by}) (glm_slo_objective_ratio{{{of}}}))"
    return f"({share(missed, ended)}) / on ({by}) {budget}"


def stuck_groups(by: str, of: str = OF) -> str:
    """Return how many groups are up and serve nobody: requests wait, none runs, and the group says that it serves."""
    group = "namespace, deployment, group"
    return (
        f"count by ({by}) (sum by ({group}) (glm_num_requests_waiting{{{of}}}) > 0 "
        f"and sum by ({group}) (glm_num_requests_running{{{of}}}) == 0 "
        f'and max by ({group}) (glm_group_state{{{of}, state="serving"}}) == 1)'
    )


def hours(groups: str) -> str:
    """Return the integral over the chosen range in hours; times without data count nothing."""
    return f"sum_over_time(({groups})[$__range:$__interval]) * $__interval_ms / 3600000"


def gpus_of_static(by: str = NAME) -> str:
    """Return the GPUs that the smallest fixed fleet would hold: as many a group as those that there are."""
    each = f"max by ({by}) (glm_autoscaler_gpus{{{OF}}}) / (max by ({by}) (glm_autoscaler_spec_groups{{{OF}}}) > 0)"
    return f"max by ({by}) (glm_autoscaler_static_groups{{{OF}}}) * on ({by}) ({each})"


def decisions() -> str:
    """Return where a decision changed the number of groups: with reason, direction and, where one holds, the limit."""
    by = NAME
    changed = (
        f"sum by ({by}, reason, direction) (increase(glm_autoscaler_decisions_total{{{OF}, "
        f'direction=~"up|down"}}[{RATE}]))'
        " > 0"
    )
    limit = f"max by ({by}, limit) (glm_autoscaler_limited{{{OF}}}) == 1"
    return f"(({changed}) * on ({by}) group_left (limit) ({limit})) or on ({by}, reason, direction) ({changed})"
