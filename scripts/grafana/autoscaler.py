"""Autoscaler: what was decided, on which inputs, and at what cost?"""

from grafana.board import GREEN, RED, YELLOW, Board, Panel, Row
from grafana.lines import LEGEND, NAME, OF, RATE, Line
from grafana.panels import gpu_hours, gpus, limits, metrics_age


def given(name: str) -> str:
    """Return an input of the law by its name; nothing while it is unknown."""
    known = f'max by ({NAME}) (glm_autoscaler_input_state{{{OF}, input="{name}", state=~"Value|Idle|Stale"}}) == 1'
    return f'max by ({NAME}) (glm_autoscaler_input{{{OF}, input="{name}"}}) and on ({NAME}) ({known})'


def inputs(title: str, text: str, lines: dict[str, tuple[str, float]], unit: str = "short") -> Panel:
    """Return the panel of some inputs: by name what they are called and the most they may be."""
    return Panel(
        title=title,
        text=text,
        unit=unit,
        nothing="not known yet",
        lines=tuple(
            Line(given(name), f"{LEGEND} {legend}".strip(), due="sometimes", high=high)
            for name, (legend, high) in lines.items()
        ),
    )


DECISIONS = Row(
    "What was decided",
    (
        Panel(
            title="Desired, spec, serving, starting",
            text="Annotations are decisions, with reason and limit. Desired is within all limits; spec is "
            "spec.replicas.",
            width=16,
            height=9,
            runbook="GLMAtMaxWhileSLOMissed",
            lines=tuple(
                Line(f"max by ({NAME}) (glm_autoscaler_{what}_groups{{{OF}}})", f"{LEGEND} {what}", high=10_000)
                for what in ("desired", "spec", "serving", "starting")
            ),
        ),
        Panel(
            title="Scale decisions by reason",
            text="Changes of the number of groups over the chosen time.",
            kind="bars",
            width=8,
            height=9,
            decimals=0,
            nothing="none",
            lines=(
                Line(
                    f"sum by (reason, direction) (increase(glm_autoscaler_decisions_total{{{OF}, "
                    f'direction=~"up|down"}}[$__range])) > 0',
                    "{{direction}} for {{reason}}",
                    due="sometimes",
                    high=100_000,
                ),
            ),
        ),
        limits({"1": "limits"}),
        Panel(
            title="Reasons, also of holding",
            text="Decisions a second by reason. NoData means that inputs are unknown or stale.",
            width=12,
            stacked=True,
            lines=(
                Line(
                    f"sum by (reason) (rate(glm_autoscaler_decisions_total{{{OF}}}[{RATE}]))", "{{reason}}", high=1000
                ),
            ),
        ),
    ),
)

INPUTS = Row(
    "On which inputs",
    (
        Panel(
            title="Groups that the load needs",
            text="Seconds of work over measured speed, before limits; the most of them is needed. Above "
            "serving, groups are missing.",
            width=12,
            nothing="not known yet",
            lines=(
                *(
                    Line(given(name), f"{LEGEND} {legend}", due="sometimes", high=1e6)
                    for name, legend in (
                        ("needed, groups", "needed"),
                        ("prefill demand, groups", "prefill"),
                        ("decode demand, groups", "decode"),
                    )
                ),
                Line(
                    f"max by ({NAME}) (glm_autoscaler_serving_groups{{{OF}}})",
                    f"{LEGEND} serving",
                    high=10_000,
                    is_limit=True,
                ),
            ),
        ),
        Panel(
            title="Age of inputs",
            text="Age of the oldest sample in each. Stale inputs hold: they never scale down.",
            unit="s",
            width=12,
            steps=((None, GREEN), (60, RED)),
            runbook="GLMMetricsStale",
            lines=(Line(f"max by (input) (glm_autoscaler_input_age_seconds{{{OF}}}) >= 0", "{{input}}", high=3600),),
        ),
        inputs(
            "Arrivals",
            "Requests a second over 30 s.",
            {"arrivals, requests/s": ("", 1e6)},
            unit="reqps",
        ),
        inputs(
            "Waiting",
            "Age of the oldest waiting request, and the work that waits.",
            {"oldest waiting, s": ("oldest", 7200), "backlog, s of work": ("backlog", 1e7)},
            unit="s",
        ),
        inputs("KV cache in use", "Of all groups that serve.", {"KV use, %": ("", 100)}, unit="percent"),
        inputs(
            "Latency against its promise",
            "The worst class; above 1 the promise is missed, and the safety factor rises.",
            {
                "latency against its promise, ratio": ("latency", 1e6),
                "safety factor by latency, ratio": ("safety factor", 100),
            },
        ),
        inputs(
            "Measured prefill speed of a group",
            "Prompt tokens a second.",
            {"prefill rate, tokens/s a group": ("", 1e9)},
        ),
        inputs("Cold start, p95", "How far the law looks ahead.", {"cold start p95, s": ("", 7200)}, unit="s"),
        Panel(
            title="Inputs that are not known",
            text="Unknown: no data. Stale: too old to decide on. Both hold.",
            kind="states",
            width=24,
            names={"1": "so"},
            steps=((None, YELLOW),),
            nothing="all are known",
            runbook="GLMMetricsStale",
            lines=(
                Line(
                    f'max by ({NAME}, input, state) (glm_autoscaler_input_state{{{OF}, state=~"Unknown|Stale"}}) == 1',
                    f"{LEGEND} {{{{input}}}}: {{{{state}}}}",
                    due="sometimes",
                    low=1,
                    high=1,
                ),
            ),
        ),
    ),
)

COST = Row(
    "At what cost",
    (
        gpu_hours(
            "GPU-hours beside a fixed fleet",
            "Over the chosen time: what scaling took, and the smallest fixed fleet that would have carried the day's "
            "peak.",
        ),
        Panel(
            title="Groups beside a fixed fleet",
            text="The area between both is what scaling saved.",
            lines=(
                Line(f"max by ({NAME}) (glm_autoscaler_spec_groups{{{OF}}})", f"{LEGEND} scaled", high=10_000),
                Line(
                    f"max by ({NAME}) (glm_autoscaler_static_groups{{{OF}}})",
                    f"{LEGEND} fixed fleet",
                    high=10_000,
                    is_limit=True,
                ),
            ),
        ),
        gpus("GPUs and budgets", "GPUs of the wanted groups in a namespace, and its budget."),
    ),
)

READING = Row(
    "How metrics are read",
    (
        metrics_age("Age of the newest sample", "Of each deployment."),
        Panel(
            title="Time of a query, p95",
            text="Of Prometheus. Nothing where the operator asks the workers itself.",
            unit="s",
            nothing="no queries",
            lines=(
                Line(
                    f"histogram_quantile(0.95, sum by (le) "
                    f"(rate(glm_autoscaler_query_duration_seconds_bucket[{RATE}]))) "
                    f"and on () (sum(rate(glm_autoscaler_query_duration_seconds_count[{RATE}])) > 0)",
                    "p95",
                    due="sometimes",
                    high=60,
                ),
            ),
        ),
        Panel(
            title="Queries that failed",
            text="A second, by the reason that MetricsAvailable gives.",
            steps=((None, GREEN), (0.001, RED)),
            runbook="GLMMetricsStale",
            lines=(
                Line(f"sum by (reason) (rate(glm_autoscaler_query_errors_total[{RATE}]))", "{{reason}}", high=1000),
            ),
        ),
        Panel(
            title="Promises that more groups cannot keep",
            text="1 while one request alone takes longer than its class is promised.",
            kind="states",
            width=24,
            height=6,
            names={"0": "feasible", "1": "infeasible"},
            steps=((None, GREEN), (1, RED)),
            nothing="no class",
            runbook="GLMSLOInfeasible",
            lines=(
                Line(
                    f"max by ({NAME}, slo_class) (glm_autoscaler_slo_infeasible{{{OF}}})",
                    f"{LEGEND} {{{{slo_class}}}}",
                    due="sometimes",
                    high=1,
                ),
            ),
        ),
    ),
)

BOARD = Board(
    slug="autoscaler",
    title="Autoscaler",
    text="Each decision of the autoscaler with its reason, what limited it, what it was decided on, and what it cost.",
    rows=(DECISIONS, INPUTS, COST, READING),
    variables=("namespace", "deployment"),
)
