"""Fleet: is everybody served, how fast, how full, and what does it cost?"""

from grafana.board import GREEN, RED, Board, Panel, Row
from grafana.lines import LEGEND, NAME, OF, RATE, Line, attainment, burn, hours, rate_of, share, stuck_groups
from grafana.panels import attained, burn_rate, false_conditions, gpu_hours, gpus, limits, metrics_age

BY_CLASS = f"{NAME}, slo_class"


def condition(kind: str, status: str) -> str:
    return f'max by ({NAME}) (glm_operator_condition{{{OF}, type="{kind}", status="{status}"}})'


SERVED = Row(
    "Are users served?",
    (
        Panel(
            title="Deployments ready",
            text="Of how many GLMDeployments clients are served.",
            kind="number",
            width=4,
            height=5,
            lines=(
                Line(f"sum({condition('Ready', 'True')})", "ready", high=10_000),
                Line(f"count({condition('Ready', 'True')})", "of", high=10_000),
            ),
        ),
        Panel(
            title="Degraded",
            text="Deployments of which somebody has to do something.",
            kind="number",
            width=4,
            height=5,
            steps=((None, GREEN), (1, RED)),
            runbook="GLMDeploymentDegraded",
            lines=(Line(f"sum({condition('Degraded', 'True')})", "degraded", high=10_000),),
        ),
        Panel(
            title="Up but not serving",
            text="Groups that say that they serve, while their requests wait and none runs.",
            kind="number",
            width=4,
            height=5,
            steps=((None, GREEN), (1, RED)),
            runbook="GLMUpButNotServing",
            lines=(
                Line(
                    f'sum({stuck_groups(NAME)}) or 0 * sum(max by ({NAME}) (glm_group_state{{{OF}, state="serving"}}))',
                    "groups",
                    high=10_000,
                ),
            ),
        ),
        Panel(
            title="Groups that serve",
            text="Replica groups in the state serving, by their own word.",
            kind="number",
            width=4,
            height=5,
            lines=(
                Line(f'sum(max by ({NAME}, group) (glm_group_state{{{OF}, state="serving"}}))', "groups", high=10_000),
            ),
        ),
        Panel(
            title="Requests",
            text="Requests that were admitted, a second.",
            kind="number",
            unit="reqps",
            width=4,
            height=5,
            decimals=2,
            lines=(Line(f"sum(rate(glm_requests_received_total{{{OF}}}[{RATE}]))", "arriving", high=100_000),),
        ),
        attained(
            "Worst attainment",
            "The class that keeps its promise least, over 5 minutes.",
            Line(f"min({attainment(BY_CLASS, OF)})", "worst", due="traffic", high=1),
            width=4,
            height=5,
        ),
    ),
)

PROMISES = Row(
    "Are promises kept?",
    (
        Panel(
            title="Attainment by class",
            text="Share of requests that met every threshold of their class, over 5 minutes.",
            unit="percentunit",
            width=12,
            high=1,
            nothing="no traffic",
            runbook="GLMSLOBurnFast",
            lines=(Line(attainment(BY_CLASS, OF), f"{LEGEND} {{{{slo_class}}}}", due="traffic", high=1),),
        ),
        burn_rate(
            "Burn rate by class, 1 hour",
            "How many times faster than evenly a class uses up its error budget. 1 uses it up by the end of its "
            "window; 14.4 pages if the last 5 minutes agree.",
            (Line(burn("1h", BY_CLASS, OF), f"{LEGEND} {{{{slo_class}}}}", due="traffic", high=100_000),),
            width=12,
        ),
        Panel(
            title="Requests by deployment",
            text="Requests that were admitted, a second.",
            unit="reqps",
            lines=(Line(rate_of("glm_requests_received_total", NAME), LEGEND, high=100_000),),
        ),
        Panel(
            title="Requests that did not finish",
            text="Share of the requests that ended otherwise than finished or cancelled by their client.",
            unit="percentunit",
            high=1,
            nothing="no traffic",
            runbook="GLMGroupFailed",
            lines=(
                Line(
                    share(
                        rate_of("glm_requests_total", NAME, ', outcome!~"finished|cancelled"'),
                        rate_of("glm_requests_total", NAME),
                    ),
                    LEGEND,
                    due="traffic",
                    high=1,
                ),
            ),
        ),
        Panel(
            title="Oldest waiting request",
            text="Age of the oldest request that no step has computed yet. The first sign of too few groups.",
            unit="s",
            lines=(Line(f"max by ({NAME}) (glm_oldest_waiting_seconds{{{OF}}})", LEGEND, high=7200),),
        ),
    ),
)

GROUPS = Row(
    "How many groups, and why not more?",
    (
        Panel(
            title="Groups wanted and serving",
            text="What autoscaling decided on, within all limits, and what serves.",
            width=12,
            lines=(
                Line(f"max by ({NAME}) (glm_autoscaler_desired_groups{{{OF}}})", f"{LEGEND} desired", high=10_000),
                Line(f"max by ({NAME}) (glm_autoscaler_serving_groups{{{OF}}})", f"{LEGEND} serving", high=10_000),
            ),
        ),
        limits({"0": "no", "1": "limits"}),
        gpus(
            "GPUs by namespace",
            "GPUs of the wanted groups, and the budget of the namespace (chart value gpuBudgets).",
        ),
        gpu_hours(
            "GPU-hours",
            "GPU-hours of the wanted groups over the chosen time, and what the smallest fixed fleet for the same load "
            "would have taken: the most groups that were wanted within a day, all the time.",
        ),
        Panel(
            title="Group-hours",
            text="The same in groups, which says something of CPUs, too.",
            kind="bars",
            decimals=2,
            lines=(
                Line(f"sum({hours(f'max by ({NAME}) (glm_autoscaler_spec_groups{{{OF}}})')})", "scaled by load"),
                Line(f"sum({hours(f'max by ({NAME}) (glm_autoscaler_static_groups{{{OF}}})')})", "fixed fleet"),
            ),
        ),
        metrics_age(
            "Age of metrics",
            "Of the newest sample that autoscaling has of a deployment. It holds on old ones.",
            width=12,
        ),
        false_conditions(
            "Planned|GroupsReady|Ready|MetricsAvailable|SLOMet|PolicyApplied", ((None, GREEN), (1, RED)), width=12
        ),
    ),
)

BOARD = Board(
    slug="fleet",
    title="Fleet",
    text="Every GLMDeployment at a glance: who is served, which promises are kept, what it costs.",
    rows=(SERVED, PROMISES, GROUPS),
    variables=("namespace", "deployment"),
)
