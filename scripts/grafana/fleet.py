"""Fleet: is everybody served, how fast, how full, and what does it cost?"""

from grafana.board import GREEN, RED, YELLOW, Board, Panel, Row
from grafana.lines import OF, RATE, Line, attainment, burn, gpus_of_static, hours, rate_of, share, stuck_groups

OF_ALL = OF
NAME = "namespace, deployment"
LEGEND = "{{namespace}}/{{deployment}}"
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
        Panel(
            title="Worst attainment",
            text="The class that keeps its promise least, over 5 minutes.",
            kind="number",
            unit="percentunit",
            width=4,
            height=5,
            high=1,
            decimals=1,
            steps=((None, RED), (0.95, YELLOW), (0.99, GREEN)),
            nothing="no traffic",
            runbook="GLMSLOBurnFast",
            lines=(Line(f"min({attainment(BY_CLASS, OF)})", "worst", due="traffic", high=1),),
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
        Panel(
            title="Burn rate by class, 1 hour",
            text="How many times faster than evenly a class uses up its error budget. 1 uses it up by the end "
            "of its window; "
            "14.4 pages if the last 5 minutes agree.",
            width=12,
            nothing="no traffic",
            steps=((None, GREEN), (1, YELLOW), (14.4, RED)),
            runbook="GLMSLOBurnFast",
            lines=(Line(burn("1h", BY_CLASS, OF), f"{LEGEND} {{{{slo_class}}}}", due="traffic", high=100_000),),
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
        Panel(
            title="What limits",
            text="What keeps the last decision from what the load asks for.",
            kind="states",
            width=12,
            names={"0": "no", "1": "limits"},
            steps=((None, GREEN), (1, YELLOW)),
            runbook="GLMGPUBudgetLimits",
            nothing="nothing limits",
            lines=(
                Line(
                    f"max by ({NAME}, limit) (glm_autoscaler_limited{{{OF}}}) == 1",
                    f"{LEGEND}: {{{{limit}}}}",
                    due="sometimes",
                    high=1,
                ),
            ),
        ),
        Panel(
            title="GPUs by namespace",
            text="GPUs of the wanted groups, and the budget of the namespace (chart value gpuBudgets).",
            runbook="GLMGPUBudgetLimits",
            lines=(
                Line(
                    f"sum by (namespace) (max by ({NAME}) (glm_autoscaler_gpus{{{OF}}}))", "{{namespace}}", high=100_000
                ),
                Line(
                    'max by (namespace) (glm_autoscaler_namespace_gpu_budget{namespace=~"$namespace"})',
                    "{{namespace}} budget",
                    due="sometimes",
                    high=1_000_000,
                    is_limit=True,
                ),
            ),
        ),
        Panel(
            title="GPU-hours",
            text="GPU-hours of the wanted groups over the chosen time, and what the smallest fixed fleet for "
            "the same load would "
            "have taken: the most groups that were wanted within a day, all the time.",
            kind="bars",
            decimals=1,
            lines=(
                Line(f"sum({hours(f'max by ({NAME}) (glm_autoscaler_gpus{{{OF}}})')})", "scaled by load"),
                Line(f"sum({hours(gpus_of_static())})", "fixed fleet"),
            ),
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
        Panel(
            title="Age of metrics",
            text="Of the newest sample that autoscaling has of a deployment. It holds on old ones.",
            unit="s",
            width=12,
            steps=((None, GREEN), (60, RED)),
            runbook="GLMMetricsStale",
            lines=(Line(f"max by ({NAME}) (glm_autoscaler_metrics_age_seconds{{{OF}}}) >= 0", LEGEND, high=3600),),
        ),
        Panel(
            title="Conditions that are False",
            text="Of those that should be True.",
            kind="states",
            width=12,
            names={"1": "False"},
            steps=((None, GREEN), (1, RED)),
            nothing="all are as they should be",
            runbook="GLMDeploymentDegraded",
            lines=(
                Line(
                    f"max by ({NAME}, type) (glm_operator_condition{{{OF}, "
                    f'type=~"Planned|GroupsReady|Ready|MetricsAvailable|SLOMet", '
                    'status="False"}) == 1',
                    f"{LEGEND}: {{{{type}}}}",
                    due="sometimes",
                    high=1,
                ),
            ),
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
