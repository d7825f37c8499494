"""Recording rules that let Prometheus aggregate latencies once for everybody, and the names of what they record. Pure.

With them the operator reads a few series a deployment instead of every bucket of every group. The chart puts
`recording_rules()` into its PrometheusRule; the operator reads them with GLM_OPERATOR_PROMETHEUS_RECORDING_RULES=true.
"""

from collections.abc import Mapping

from glm_operator.autoscale.series import ATTAINED, BURN_WINDOW_S, HISTOGRAMS, SHORT_WINDOW_S, STATUS_WINDOW_S

PREFIX = "glm:"
BY_CLASS = "namespace, deployment, slo_class"

LABELS = {"1m": SHORT_WINDOW_S, "5m": STATUS_WINDOW_S, "1h": BURN_WINDOW_S}
"""How windows are written in names."""


def written(window_s: float) -> str:
    """Return a window as it stands in the names of recorded series, and in PromQL."""
    return next(label for label, seconds in LABELS.items() if seconds == window_s)


def of_gateways(metric: str) -> str:
    """Return the name of what gateways measure for what workers do under another one."""
    return f"glm_gateway_{metric.removeprefix('glm_')}"


def recorded_increase(metric: str, window_s: float) -> str:
    """Return the name under which the increase of a counter or of a histogram's buckets is recorded."""
    return f"{PREFIX}{metric.removeprefix('glm_')}:increase{written(window_s)}"


def recorded_samples(metric: str, window_s: float) -> str:
    """Return the name under which it is recorded how many samples the window has of each edge."""
    return f"{PREFIX}{metric.removeprefix('glm_')}:samples{written(window_s)}"


def recording_rules() -> list[Mapping[str, str]]:
    """Return the rules, each with `record` and `expr`, in a stable order. All keep namespace and deployment."""
    rules = []
    for histogram in (*HISTOGRAMS.values(), *map(of_gateways, HISTOGRAMS.values())):
        metric = f"{histogram}_bucket"
        for window_s in (SHORT_WINDOW_S, STATUS_WINDOW_S):
            window = f"{metric}[{written(window_s)}]"
            rules += [
                _rule(recorded_increase(metric, window_s), f"sum by ({BY_CLASS}, le) (increase({window}))"),
                _rule(recorded_samples(metric, window_s), f"sum by ({BY_CLASS}, le) (count_over_time({window}))"),
            ]
    for metric in (ATTAINED, of_gateways(ATTAINED)):
        for window_s in (STATUS_WINDOW_S, BURN_WINDOW_S):
            window = f"{metric}[{written(window_s)}]"
            rules.append(_rule(recorded_increase(metric, window_s), f"sum by ({BY_CLASS}, met) (increase({window}))"))
    return rules


def _rule(record: str, expr: str) -> Mapping[str, str]:
    return {"record": record, "expr": expr}
