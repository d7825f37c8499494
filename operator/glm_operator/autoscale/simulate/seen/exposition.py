"""What a group shows when it is scraped: the names and labels of docs/design/0007-autoscaling.md. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from glm_operator.api.slo import DEFAULT_CLASS, SIGNALS, Slo
from glm_operator.autoscale.series import ATTAINED, DEMAND_METRICS, HISTOGRAMS
from glm_operator.autoscale.simulate.model.group import Group

FIRST_TOKEN_EDGES_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
GAP_EDGES_S = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
)  # fmt: skip
WHOLE_EDGES_S = (
    0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)  # fmt: skip
_EDGES_S = {"ttft": FIRST_TOKEN_EDGES_S, "ttfa": FIRST_TOKEN_EDGES_S, "itl": GAP_EDGES_S, "e2e": WHOLE_EDGES_S}

_OF_CLASS = ("glm_requests_received_total", "glm_prompt_tokens_received_total")
_OF_GROUP = (
    *(name for name in DEMAND_METRICS if name not in _OF_CLASS),
    "glm_group_starting_timestamp_seconds",
    "busy_seconds_total",  # for laws that scale by utilisation; no metric of ours
)


@dataclass(frozen=True)
class Column:
    """One series of a group, apart from the labels that say which group it is."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


class Exposition:
    """The series of a deployment's groups, in one order, and the values of a group in that order."""

    def __init__(self, slo: Slo, began_s: float) -> None:
        """began_s: unix time of second 0 of the simulation."""
        self._began_s = began_s
        self.classes = (*(each.name for each in slo.classes), DEFAULT_CLASS)
        self.thresholds: dict[str, Mapping[str, float]] = {
            each.name: {str(signal): limit for signal, limit in each.thresholds.items()} for each in slo.classes
        }
        self.edges: dict[tuple[str, str], tuple[float, ...]] = {
            (slo_class, str(signal)): _with_threshold(_EDGES_S[signal], self.thresholds.get(slo_class, {}).get(signal))
            for slo_class in self.classes
            for signal in SIGNALS
        }
        self.columns = tuple(self._columns())
        self.index = {column: place for place, column in enumerate(self.columns)}
        self.places: dict[str, tuple[int, ...]] = {}
        for place, column in enumerate(self.columns):
            self.places[column.name] = (*self.places.get(column.name, ()), place)
        self.promised = tuple(place for place, column in enumerate(self.columns) if self._is_promised(column))

    def _columns(self) -> Iterator[Column]:
        for name in _OF_GROUP:
            yield Column(name)
        for slo_class in self.classes:
            label = ("slo_class", slo_class)
            for name in _OF_CLASS:
                yield Column(name, (label,))
            yield Column(ATTAINED, (label, ("met", "true")))
            yield Column(ATTAINED, (label, ("met", "false")))
        for (slo_class, signal), edges in self.edges.items():
            label = ("slo_class", slo_class)
            for edge in (*edges, float("inf")):
                text = "+Inf" if edge == float("inf") else f"{float(edge)}"
                yield Column(f"{HISTOGRAMS[signal]}_bucket", (label, ("le", text)))
            yield Column(f"{HISTOGRAMS[signal]}_sum", (label,))

    def _is_promised(self, column: Column) -> bool:
        """Whether a series says how a promise is kept: latency queries read no other."""
        promises = self.thresholds.get(dict(column.labels).get("slo_class", ""), {})
        names = [ATTAINED, *(f"{HISTOGRAMS[signal]}_bucket" for signal in promises)]
        return bool(promises) and column.name in names

    def row(self, group: Group, now_s: float) -> tuple[float, ...]:
        """Return the values of a group, in the order of columns. Settles the group."""
        group.settle(now_s)
        counters, calibration = group.counters, group.calibration
        shown = {
            "glm_group_serving_timestamp_seconds": group.serving_since_s + self._began_s,
            "glm_group_starting_timestamp_seconds": 0.0,
            "glm_group_draining": float(group.is_draining),
            "glm_num_requests_running": group.num_running,
            "glm_num_requests_waiting": group.num_waiting,
            "glm_oldest_waiting_seconds": group.oldest_waiting_s(now_s),
            "glm_prompt_tokens_waiting": group.prompt_tokens_waiting,
            "glm_prompt_tokens_left": group.prompt_tokens_left,
            "glm_in_flight_tokens": group.in_flight_tokens(now_s),
            "glm_kv_cache_usage_ratio": group.kv_usage,
            "glm_kv_cache_tokens": calibration.kv_tokens,
            "glm_max_running_requests": calibration.max_num_seqs,
            "glm_cold_start_seconds": group.cold_start_s,
            "glm_generation_tokens_total": counters.generated_tokens,
            "glm_requests_total": counters.requests_ended,
            "glm_prefill_tokens_total": counters.prefill_tokens,
            "glm_prefill_busy_seconds_total": counters.prefill_busy_s,
            "glm_decode_tokens_total": counters.decode_tokens,
            "glm_decode_steps_total": counters.decode_steps,
            "glm_decode_busy_seconds_total": counters.decode_busy_s,
            "busy_seconds_total": counters.busy_s,
        }
        values: list[float] = [shown[name] for name in _OF_GROUP]
        for slo_class in self.classes:
            values += (
                counters.requests_received[slo_class],
                counters.prompt_tokens_received[slo_class],
                counters.met[slo_class],
                counters.missed[slo_class],
            )
        for key in self.edges:
            values += accumulate(counters.histograms[key])
            values.append(counters.sums[key])
        return tuple(values)


def _with_threshold(edges: tuple[float, ...], threshold: float | None) -> tuple[float, ...]:
    """Add a promise, its half and its double to the edges, as workers do."""
    if threshold is None:
        return edges
    return tuple(sorted({*edges, threshold / 2, threshold, threshold * 2}))
