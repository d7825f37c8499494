"""Deployment: are its promises kept, what is its load, and how are its groups?"""

from grafana.board import GREEN, RED, YELLOW, Board, Panel, Row
from grafana.lines import OF, OF_CLASS, RATE, Line, attainment, burn, quantile, rate_of, share, stuck_groups
from grafana.panels import attained, burn_rate

BY_CLASS = "slo_class"
BY_GROUP = "namespace, deployment, group"


def latency(title: str, text: str, signal: str, histogram: str) -> Panel:
    """Return the panel of one signal: median and 95th percentile of each class, and what is promised."""
    return Panel(
        title=title,
        text=text,
        unit="s",
        nothing="no traffic",
        runbook="GLMSLOBurnFast",
        lines=(
            Line(quantile(0.95, histogram, BY_CLASS), "{{slo_class}} p95", due="traffic", high=7680),
            Line(quantile(0.5, histogram, BY_CLASS), "{{slo_class}} p50", due="traffic", high=7680),
            Line(
                f'max by ({BY_CLASS}) (glm_slo_threshold_seconds{{{OF_CLASS}, signal="{signal}"}})',
                "{{slo_class}} promised",
                due="sometimes",
                high=3600,
                is_limit=True,
            ),
        ),
    )


PROMISES = Row(
    "Promises",
    (
        attained(
            "Attainment, 5 minutes",
            "Share of requests that met every threshold of their class.",
            Line(attainment(BY_CLASS, OF_CLASS), "{{slo_class}}", due="traffic", high=1),
            width=6,
        ),
        Panel(
            title="Attainment by class",
            text="As left, over time. The objective is dashed.",
            unit="percentunit",
            width=9,
            high=1,
            nothing="no traffic",
            runbook="GLMSLOBurnFast",
            lines=(
                Line(attainment(BY_CLASS, OF_CLASS), "{{slo_class}}", due="traffic", high=1),
                Line(
                    f"max by ({BY_CLASS}) (glm_slo_objective_ratio{{{OF_CLASS}}})",
                    "{{slo_class}} objective",
                    low=0.5,
                    high=1,
                    is_limit=True,
                ),
            ),
        ),
        burn_rate(
            "Burn rate",
            "How many times faster than evenly the error budget is used up. A page needs 14.4 over 5 minutes and "
            "1 hour, or 6 over 30 minutes and 6 hours.",
            (
                Line(burn("5m", BY_CLASS), "{{slo_class}} 5 minutes", due="traffic", high=100_000),
                Line(burn("1h", BY_CLASS), "{{slo_class}} 1 hour", due="traffic", high=100_000),
                Line(burn("6h", BY_CLASS), "{{slo_class}} 6 hours", due="traffic", high=100_000),
            ),
            width=9,
        ),
        latency(
            "Time to first token",
            "From arrival to the first token, thinking or answer: queue and prefill.",
            "ttft",
            "glm_time_to_first_token_seconds",
        ),
        latency(
            "Time to first answer token",
            "From arrival to the first token that is no thinking: what a reader waits for.",
            "ttfa",
            "glm_time_to_first_answer_token_seconds",
        ),
        latency(
            "Time between tokens",
            "Between two tokens of a request: the size of batches, and decode.",
            "itl",
            "glm_inter_token_latency_seconds",
        ),
        latency(
            "Time of a whole request",
            "From arrival to the last token. It is known only at the end.",
            "e2e",
            "glm_e2e_request_latency_seconds",
        ),
        Panel(
            title="Queue time, p95",
            text="From arrival until the engine begins with a request. Known when it begins; see the oldest "
            "waiting request for now.",
            unit="s",
            nothing="no traffic",
            lines=(
                Line(
                    quantile(0.95, "glm_request_queue_time_seconds", BY_CLASS),
                    "{{slo_class}}",
                    due="traffic",
                    high=2560,
                ),
            ),
        ),
        Panel(
            title="Requests by how they ended",
            text="A second. Failed and refused ones count as missed promises.",
            unit="reqps",
            stacked=True,
            runbook="GLMGroupFailed",
            lines=(Line(rate_of("glm_requests_total", "outcome"), "{{outcome}}", high=100_000),),
        ),
    ),
)

LOAD = Row(
    "Load",
    (
        Panel(
            title="Requests arriving",
            text="Admitted requests a second, at arrival.",
            unit="reqps",
            lines=(Line(rate_of("glm_requests_received_total", BY_CLASS, of=OF_CLASS), "{{slo_class}}", high=100_000),),
        ),
        Panel(
            title="Requests running and waiting",
            text="Of all groups.",
            lines=(
                Line(f"sum(glm_num_requests_running{{{OF}}})", "running", high=1_000_000),
                Line(f"sum(glm_num_requests_waiting{{{OF}}})", "waiting", high=1_000_000),
            ),
        ),
        Panel(
            title="Oldest waiting request",
            text="Age of the oldest request of a group that no step has computed yet.",
            unit="s",
            lines=(Line(f"max by ({BY_GROUP}) (glm_oldest_waiting_seconds{{{OF}}})", "{{group}}", high=7200),),
        ),
        Panel(
            title="Thinking share",
            text="Share of the requests that think before they answer. They take longer, and more KV cache.",
            unit="percentunit",
            high=1,
            nothing="no traffic",
            lines=(
                Line(
                    share(
                        f'sum(rate(glm_thinking_requests_total{{{OF}, thinking="enabled"}}[{RATE}]))',
                        f"sum(rate(glm_thinking_requests_total{{{OF}}}[{RATE}]))",
                    ),
                    "thinking",
                    due="traffic",
                    high=1,
                ),
            ),
        ),
        Panel(
            title="Tokens generated",
            text="A second, thinking and answer apart.",
            stacked=True,
            lines=(Line(rate_of("glm_generation_tokens_total", "kind"), "{{kind}}", high=10_000_000),),
        ),
        Panel(
            title="Prompt tokens not computed yet",
            text="That no cache holds: of requests that wait, and of those that run.",
            stacked=True,
            lines=(
                Line(f"sum(glm_prompt_tokens_waiting{{{OF}}})", "waiting", high=1e9),
                Line(f"sum(glm_prompt_tokens_left{{{OF}}})", "running", high=1e9),
            ),
        ),
    ),
)

GROUPS = Row(
    "Groups",
    (
        Panel(
            title="Desired, spec, serving, starting",
            text="What autoscaling decided on, spec.replicas, and what is there. Lines that part for longer "
            "than a cold start mean "
            "that groups do not come up.",
            width=12,
            runbook="GLMGroupFailed",
            lines=tuple(
                Line(f"sum(max by (namespace, deployment) (glm_autoscaler_{what}_groups{{{OF}}}))", what, high=10_000)
                for what in ("desired", "spec", "serving", "starting")
            ),
        ),
        Panel(
            title="Up but not serving",
            text="Groups that say that they serve, while their requests wait and none runs.",
            kind="states",
            width=12,
            names={"0": "serves", "1": "serves nobody"},
            steps=((None, GREEN), (1, RED)),
            runbook="GLMUpButNotServing",
            lines=(
                Line(
                    f'({stuck_groups(BY_GROUP)}) or 0 * max by ({BY_GROUP}) (glm_group_state{{{OF}, state="serving"}})',
                    "{{group}}",
                    high=1,
                ),
            ),
        ),
        Panel(
            title="State",
            text="What each group says of itself.",
            kind="states",
            width=12,
            names={"1": "yes"},
            steps=((None, GREEN),),
            lines=(
                Line(
                    f"max by ({BY_GROUP}, state) (glm_group_state{{{OF}}}) == 1", "{{group}}: {{state}}", low=1, high=1
                ),
            ),
        ),
        Panel(
            title="KV cache in use",
            text="1 is full: then requests wait, and some are put back.",
            unit="percentunit",
            width=12,
            high=1,
            lines=(Line(f"max by ({BY_GROUP}) (glm_kv_cache_usage_ratio{{{OF}}})", "{{group}}", high=1),),
        ),
        Panel(
            title="How busy",
            text="Share of the time that steps took, prefill and decode apart. Near 1 a group is at its limit.",
            unit="percentunit",
            high=1,
            lines=(
                Line(rate_of("glm_prefill_busy_seconds_total", BY_GROUP), "{{group}} prefill", high=1.1),
                Line(rate_of("glm_decode_busy_seconds_total", BY_GROUP), "{{group}} decode", high=1.1),
            ),
        ),
        Panel(
            title="Measured speed",
            text="Tokens a second of the time that they took: what a group can do, whatever it was asked for.",
            nothing="no traffic",
            lines=(
                Line(
                    share(
                        rate_of("glm_prefill_tokens_total", BY_GROUP),
                        rate_of("glm_prefill_busy_seconds_total", BY_GROUP),
                    ),
                    "{{group}} prefill",
                    due="traffic",
                    high=1e8,
                ),
                Line(
                    share(
                        rate_of("glm_decode_tokens_total", BY_GROUP), rate_of("glm_decode_busy_seconds_total", BY_GROUP)
                    ),
                    "{{group}} decode",
                    due="traffic",
                    high=1e8,
                ),
            ),
        ),
        Panel(
            title="Expert imbalance",
            text="Tokens for the experts of the busiest rank against the mean over ranks; 1 is even. All wait "
            "for the busiest one.",
            steps=((None, GREEN), (1.5, YELLOW), (2, RED)),
            low=1,
            lines=(Line(f"max by ({BY_GROUP}) (glm_expert_load_imbalance_ratio{{{OF}}})", "{{group}}", high=1024),),
        ),
        Panel(
            title="Cold start by phase",
            text="Of each group's first start: imports, the generation until it served, and all in all.",
            kind="bars",
            unit="s",
            lines=(
                Line(f"max by ({BY_GROUP}, phase) (glm_cold_start_seconds{{{OF}}})", "{{group}} {{phase}}", high=7200),
            ),
        ),
        Panel(
            title="Generations that ended",
            text="Ranks that died, hung or were lost, by reason, and HTTP servers. A group starts again by itself.",
            runbook="GLMRankHung",
            lines=(
                Line(f"sum by (reason) (increase(glm_generation_ends_total{{{OF}}}[5m]))", "{{reason}}", high=1000),
                Line(f"sum(increase(glm_server_deaths_total{{{OF}}}[5m]))", "HTTP server", high=1000),
            ),
        ),
        Panel(
            title="Starts that failed in a row",
            text="Two or more: the group does not come up, and answers 503 meanwhile.",
            steps=((None, GREEN), (2, RED)),
            runbook="GLMGroupFailed",
            lines=(Line(f"max by ({BY_GROUP}) (glm_consecutive_start_failures{{{OF}}})", "{{group}}", high=1000),),
        ),
    ),
)

BOARD = Board(
    slug="deployment",
    title="Deployment",
    text="One GLMDeployment: its promises by class, its load, its groups.",
    rows=(PROMISES, LOAD, GROUPS),
    variables=("namespace", "deployment", "slo_class"),
)
