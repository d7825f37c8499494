"""Gateway: what do clients get, what waits for what, and does the gateway have what it needs?"""

from grafana.board import BLUE, GREEN, RED, YELLOW, Board, Panel, Row
from grafana.lines import LEGEND, NAME, OF, OF_CLASS, RATE, STATUS_WINDOW, Line, quantile, rate_of, share
from grafana.panels import attained

BY_CLASS = "slo_class"
BY_MODEL = "model"
SLO_REQUESTS = "glm_gateway_slo_requests_total"
USED = rate_of("glm_gateway_tokens_total", "key", ', kind!="cached"')
"""Tokens by key; cached ones are a part of the prompt's."""


def attainment() -> str:
    """Return the share of requests that met every threshold of their class, at the gateway."""
    met = f'sum by ({BY_CLASS}) (increase({SLO_REQUESTS}{{{OF_CLASS}, met="true"}}[{STATUS_WINDOW}]))'
    ended = f"sum by ({BY_CLASS}) (increase({SLO_REQUESTS}{{{OF_CLASS}}}[{STATUS_WINDOW}]))"
    return share(met, ended)


def latency(title: str, text: str, signal: str, time: str, *, at_workers: bool = True) -> Panel:
    """Return one signal as clients have it: median and 95th percentile of each class, and what is promised.

    at_workers: also what of it the workers see.
    """
    lines = [
        Line(quantile(0.95, f"glm_gateway_{time}", BY_CLASS), "{{slo_class}} p95", due="traffic", high=7680),
        Line(quantile(0.5, f"glm_gateway_{time}", BY_CLASS), "{{slo_class}} p50", due="traffic", high=7680),
    ]
    if at_workers:
        lines.append(
            Line(quantile(0.95, f"glm_{time}", BY_CLASS), "{{slo_class}} p95, workers", due="traffic", high=7680)
        )
    lines.append(
        Line(
            f'max by ({BY_CLASS}) (glm_gateway_slo_threshold_seconds{{{OF_CLASS}, signal="{signal}"}})',
            "{{slo_class}} promised",
            due="sometimes",
            high=3600,
            is_limit=True,
        )
    )
    return Panel(
        title=title,
        text=text,
        unit="s",
        width=12,
        nothing="no traffic",
        runbook="GLMSLOBurnFast",
        lines=tuple(lines),
    )


REQUESTS = Row(
    "Requests",
    (
        attained(
            "Attainment, 5 minutes",
            "Share of requests that met every threshold of their class, with what they waited here. Nothing is told "
            "while groups answer without frames.",
            Line(attainment(), "{{slo_class}}", due="traffic", high=1),
            width=6,
        ),
        Panel(
            title="Requests by how they ended",
            text="Of each model and upstream. refused: a fault of the request, or a limit. failed: no fault of it.",
            unit="reqps",
            width=9,
            stacked=True,
            runbook="GLMGatewayNotReady",
            lines=(
                Line(
                    rate_of("glm_gateway_requests_total", "model, outcome") + " > 0",
                    "{{model}} {{outcome}}",
                    due="traffic",
                    high=1e5,
                ),
            ),
            nothing="no traffic",
        ),
        Panel(
            title="Failed requests",
            text="Share of the requests that ended. With another group to go on with them there are none.",
            unit="percentunit",
            width=9,
            nothing="no traffic",
            steps=((None, GREEN), (0.01, RED)),
            lines=(
                Line(
                    share(
                        rate_of("glm_gateway_requests_total", BY_MODEL, ', outcome="failed"'),
                        rate_of("glm_gateway_requests_total", BY_MODEL),
                    ),
                    "{{model}}",
                    due="traffic",
                    high=1,
                ),
            ),
        ),
    ),
)

LATENCY = Row(
    "Latency, as clients have it",
    (
        latency(
            "Time to first token",
            "From a request's last byte to the first token: hold, line, queue and prefill. What is between the two "
            "p95 waited at the gateway.",
            "ttft",
            "time_to_first_token_seconds",
        ),
        latency(
            "Time to first answer token",
            "From a request's last byte to the first token behind the thoughts. It is known at the end of a reply.",
            "ttfa",
            "time_to_first_answer_token_seconds",
            at_workers=False,
        ),
        latency(
            "Time between tokens",
            "Between two tokens of an answer, with the pause while another group goes on.",
            "itl",
            "inter_token_latency_seconds",
            at_workers=False,
        ),
        latency(
            "Time of a whole request",
            "From a request's last byte to the end of its reply.",
            "e2e",
            "e2e_request_latency_seconds",
            at_workers=False,
        ),
    ),
)

WAITING = Row(
    "Waiting",
    (
        Panel(
            title="Requests held",
            text="Requests that wait for a group: for its start, or for their turn.",
            width=6,
            runbook="GLMRequestsHeldLong",
            lines=(Line(f"sum by ({BY_MODEL}) (glm_gateway_requests_held{{{OF}}})", "{{model}}", high=1e6),),
        ),
        Panel(
            title="Oldest request held",
            text="How long the first of them has waited. Past the hold's time it is refused.",
            unit="s",
            width=6,
            steps=((None, GREEN), (300, RED)),
            runbook="GLMRequestsHeldLong",
            lines=(Line(f"max by ({BY_MODEL}) (glm_gateway_oldest_held_seconds{{{OF}}})", "{{model}}", high=86_400),),
        ),
        Panel(
            title="Hold, p95",
            text="What requests were held, of those that were.",
            unit="s",
            width=6,
            nothing="nobody was held",
            lines=(
                Line(
                    quantile(0.95, "glm_gateway_hold_seconds", BY_MODEL, of=OF), "{{model}}", due="sometimes", high=600
                ),
            ),
        ),
        Panel(
            title="Refused for load",
            text="Requests that the last rung of overload has refused.",
            unit="reqps",
            width=6,
            runbook="GLMGatewaySheds",
            lines=(Line(rate_of("glm_gateway_shed_total", BY_MODEL), "{{model}}", high=1e5),),
        ),
        Panel(
            title="Rung of overload",
            text="What gives way while the oldest wait is longer than its promise.",
            kind="states",
            width=24,
            height=4,
            names={"0": "none", "1": "short thoughts", "2": "no thoughts", "3": "in turn", "4": "shed"},
            steps=((None, GREEN), (1, BLUE), (2, YELLOW), (4, RED)),
            runbook="GLMGatewaySheds",
            lines=(Line(f"max by ({BY_MODEL}) (glm_gateway_overload_rung{{{OF}}})", "{{model}}", high=4),),
        ),
    ),
)

GROUPS = Row(
    "Groups",
    (
        Panel(
            title="Picks, by what decided",
            text="prefix: most of the prompt is known there. least_loaded: it waits least there. only: there was no "
            "other. arm: the only one of its arm.",
            unit="reqps",
            stacked=True,
            lines=(Line(rate_of("glm_gateway_picks_total", "why"), "{{why}}", high=1e5),),
        ),
        Panel(
            title="Tokens in flight by group",
            text="Prompts and answers so far of this gateway's requests. Even is good, unless prefixes pull.",
            lines=(Line(f"sum by (group) (glm_gateway_in_flight_tokens{{{OF}}})", "{{group}}", high=1e9),),
        ),
        Panel(
            title="Groups, as gateways see them",
            text="Known, ready, kept out as they fail, and without frames. Of several pods the highest number.",
            runbook="GLMGroupsEjected",
            lines=tuple(
                Line(f"max by ({BY_MODEL}) (glm_gateway_groups{what}{{{OF}}})", f"{{{{model}}}} {word}", high=10_000)
                for what, word in (("", "known"), ("_ready", "ready"), ("_ejected", "kept out"), ("_plain", "plain"))
            ),
        ),
        Panel(
            title="Continuations",
            text="Replies that another group went on with, as the one that wrote them was lost.",
            unit="reqps",
            lines=(Line(rate_of("glm_gateway_continuations_total", BY_MODEL), "{{model}}", high=1e5),),
        ),
        Panel(
            title="Retries",
            text="Requests sent to another group before a byte of their reply; denied: the budget had none left.",
            unit="reqps",
            lines=(
                Line(rate_of("glm_gateway_retries_total", BY_MODEL, ', allowed="true"'), "{{model}}", high=1e5),
                Line(rate_of("glm_gateway_retries_total", BY_MODEL, ', allowed="false"'), "{{model}} denied", high=1e5),
            ),
        ),
        Panel(
            title="Requests running",
            text="Requests of the gateways that groups have.",
            lines=(Line(f"sum by ({BY_MODEL}) (glm_gateway_requests_running{{{OF}}})", "{{model}}", high=1e6),),
        ),
    ),
)

KEYS = Row(
    "Keys",
    (
        Panel(
            title="Tokens by key",
            text="Of requests that have ended, prompt and answer. The ten that use most.",
            unit="short",
            stacked=True,
            nothing="no traffic",
            lines=(
                Line(
                    f"topk(10, {USED} > 0)",
                    "{{key}}",
                    due="traffic",
                    high=1e9,
                ),
            ),
        ),
        Panel(
            title="Tokens by kind",
            text="cached is a part of prompt.",
            nothing="no traffic",
            lines=(Line(rate_of("glm_gateway_tokens_total", "kind"), "{{kind}}", due="traffic", high=1e9),),
        ),
        Panel(
            title="Refused by a limit",
            text="Of a key or its group; shadow: would have been refused.",
            unit="reqps",
            nothing="nothing was refused",
            lines=(
                Line(
                    rate_of("glm_gateway_limit_refusals_total", "key, limit", ', shadow="false"'),
                    "{{key}} {{limit}}",
                    due="sometimes",
                    high=1e5,
                ),
                Line(
                    rate_of("glm_gateway_limit_refusals_total", "key, limit", ', shadow="true"'),
                    "{{key}} {{limit}} shadow",
                    due="sometimes",
                    high=1e5,
                ),
            ),
        ),
    ),
)

ITSELF = Row(
    "The gateway itself",
    (
        Panel(
            title="File",
            text="Whether every pod goes by all of its file.",
            kind="states",
            height=5,
            names={"0": "not all of it", "1": "in use"},
            steps=((None, RED), (1, GREEN)),
            runbook="GLMGatewayFileNotTaken",
            lines=(Line(f"min by ({NAME}) (glm_gateway_config_is_current{{{OF}}})", LEGEND, high=1),),
        ),
        Panel(
            title="Store of limits",
            text="Whether every pod reaches it.",
            kind="states",
            height=5,
            names={"0": "gone", "1": "up"},
            steps=((None, RED), (1, GREEN)),
            nothing="there is none",
            runbook="GLMGatewayStoreDown",
            lines=(Line(f"min by ({NAME}) (glm_gateway_store_is_up{{{OF}}})", LEGEND, due="sometimes", high=1),),
        ),
        Panel(
            title="Pods, and what went wrong in them",
            text="Pods that are scraped; requests cut by the deadline of a drain, counted by one pod alone while the "
            "store was gone, and lines of the audit log that were lost.",
            height=5,
            runbook="GLMGatewayMetricsMissing",
            lines=(
                Line(f"count by ({NAME}) (glm_gateway_config_is_current{{{OF}}})", f"{LEGEND} pods", low=1, high=1000),
                Line(f"sum by ({NAME}) (increase(glm_gateway_requests_cut_total{{{OF}}}[{RATE}]))",
                     f"{LEGEND} cut", high=1e6),
                Line(f"sum by ({NAME}) (increase(glm_gateway_requests_counted_here_total{{{OF}}}[{RATE}]))",
                     f"{LEGEND} counted alone", due="sometimes", high=1e6),
                Line(f"sum by ({NAME}) (increase(glm_gateway_audit_lines_lost_total{{{OF}}}[{RATE}]))",
                     f"{LEGEND} audit lines lost", due="sometimes", high=1e6),
            ),
        ),
    ),
)  # fmt: skip

BOARD = Board(
    slug="gateway",
    title="Gateway",
    text="What clients of a gateway get, hold included; what waits for what; keys; and the gateway itself.",
    rows=(REQUESTS, LATENCY, WAITING, GROUPS, KEYS, ITSELF),
    variables=("namespace", "deployment", "slo_class"),
)
