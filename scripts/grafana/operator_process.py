"""Operator: does it get its work done, and what does it say of deployments?"""

from grafana.board import GREEN, RED, YELLOW, Board, Panel, Row
from grafana.lines import LEGEND, NAME, OF, RATE, Line
from grafana.panels import false_conditions

GOOD = "Planned|GroupsReady|UpToDate|MetricsAvailable|ScalingActive|SLOMet|PolicyApplied|Ready"

WORK = Row(
    "Does it get its work done?",
    (
        Panel(
            title="Time since a pass ended well",
            text="Near zero also while nothing is due. It rises while the API server is away.",
            unit="s",
            steps=((None, GREEN), (120, RED)),
            runbook="GLMOperatorStuck",
            lines=(Line("max(glm_operator_last_pass_age_seconds)", "age", high=7200),),
        ),
        Panel(
            title="Deployments that wait for a pass",
            text="A queue that stays long means passes that are slow.",
            lines=(Line("sum(glm_operator_queue_length)", "waiting", high=100_000),),
        ),
        Panel(
            title="Passes by outcome",
            text="A second. A settled fleet has few, and they change nothing.",
            stacked=True,
            lines=(
                Line(
                    f"sum by (outcome) (rate(glm_operator_reconcile_duration_seconds_count[{RATE}]))",
                    "{{outcome}}",
                    high=10_000,
                ),
            ),
        ),
        Panel(
            title="Time of a pass, p95",
            text="By outcome.",
            unit="s",
            nothing="no passes",
            lines=(
                Line(
                    f"histogram_quantile(0.95, sum by (outcome, le) "
                    f"(rate(glm_operator_reconcile_duration_seconds_bucket[{RATE}]))) "
                    f"and on (outcome) (sum by (outcome) "
                    f"(rate(glm_operator_reconcile_duration_seconds_count[{RATE}])) > 0)",
                    "{{outcome}}",
                    due="sometimes",
                    high=60,
                ),
            ),
        ),
        Panel(
            title="Passes that failed",
            text="A second. error: a fault of the operator itself, with a traceback in its log. unavailable: "
            "the API server.",
            steps=((None, GREEN), (0.001, RED)),
            runbook="GLMOperatorErrors",
            lines=(
                Line(
                    f"sum by (outcome) (rate(glm_operator_reconcile_errors_total[{RATE}]))", "{{outcome}}", high=10_000
                ),
            ),
        ),
        Panel(
            title="Age of watches",
            text="Time since the watch of a kind last heard anything. Silent ones are begun anew.",
            unit="s",
            runbook="GLMOperatorStuck",
            lines=(
                Line("max by (kind) (glm_operator_watch_age_seconds)", "{{kind}}", high=7200),
                Line(
                    "sum by (kind) (increase(glm_operator_watch_restarts_total[5m])) > 0",
                    "{{kind}} begun anew, 5 minutes",
                    due="sometimes",
                    high=1000,
                ),
            ),
        ),
    ),
)

SAYS = Row(
    "What does it say of deployments?",
    (
        Panel(
            title="Deployments by condition",
            text="For how many each condition is True.",
            kind="bars",
            width=8,
            height=10,
            decimals=0,
            lines=(
                Line(
                    f"sum by (type) (max by ({NAME}, type) (glm_operator_condition{{{OF}, "
                    f'type=~"{GOOD}|Degraded", status="True"}}))',
                    "{{type}}",
                    high=10_000,
                ),
            ),
        ),
        false_conditions(GOOD, ((None, YELLOW),), width=16, height=10),
        Panel(
            title="Degraded",
            text="Somebody has to act: `kubectl describe glmd` says what to do.",
            kind="states",
            width=12,
            names={"0": "healthy", "1": "degraded"},
            steps=((None, GREEN), (1, RED)),
            runbook="GLMDeploymentDegraded",
            lines=(
                Line(
                    f'max by ({NAME}) (glm_operator_condition{{{OF}, type="Degraded", status="True"}})', LEGEND, high=1
                ),
            ),
        ),
        Panel(
            title="Rollouts that are stuck",
            text="A group is not available at the new revision in time; the others serve at the old one.",
            kind="states",
            width=12,
            names={"0": "not stuck", "1": "stuck"},
            steps=((None, GREEN), (1, RED)),
            runbook="GLMRolloutStuck",
            lines=(Line(f"max by ({NAME}) (glm_operator_rollout_stuck{{{OF}}})", LEGEND, high=1),),
        ),
    ),
)

BOARD = Board(
    slug="operator",
    title="Operator",
    text="The operator itself: passes, watches, and what it says of deployments.",
    rows=(WORK, SAYS),
    variables=("namespace", "deployment"),
    has_decisions=False,
)
