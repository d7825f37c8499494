"""Panels that more than one dashboard has; each says which words and sizes are its own."""

from grafana.board import GREEN, RED, YELLOW, Panel
from grafana.lines import LEGEND, NAME, OF, Line, gpus_of_static, hours


def limits(names: dict[str, str]) -> Panel:
    """Return what limits each deployment. names: what 0 and 1 are called."""
    return Panel(
        title="What limits",
        text="What keeps the last decision from what the load asks for.",
        kind="states",
        width=12,
        names=names,
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
    )


def gpu_hours(title: str, text: str) -> Panel:
    """Return the GPU-hours of the wanted groups beside those of the smallest fixed fleet."""
    return Panel(
        title=title,
        text=text,
        kind="bars",
        decimals=1,
        lines=(
            Line(f"sum({hours(f'max by ({NAME}) (glm_autoscaler_gpus{{{OF}}})')})", "scaled by load"),
            Line(f"sum({hours(gpus_of_static())})", "fixed fleet"),
        ),
    )


def gpus(title: str, text: str) -> Panel:
    """Return the GPUs that the wanted groups of a namespace take, and its budget."""
    return Panel(
        title=title,
        text=text,
        runbook="GLMGPUBudgetLimits",
        lines=(
            Line(f"sum by (namespace) (max by ({NAME}) (glm_autoscaler_gpus{{{OF}}}))", "{{namespace}}", high=100_000),
            Line(
                'max by (namespace) (glm_autoscaler_namespace_gpu_budget{namespace=~"$namespace"})',
                "{{namespace}} budget",
                due="sometimes",
                high=1_000_000,
                is_limit=True,
            ),
        ),
    )


def metrics_age(title: str, text: str, width: int = 8) -> Panel:
    """Return how old the newest sample of each deployment is."""
    return Panel(
        title=title,
        text=text,
        unit="s",
        width=width,
        steps=((None, GREEN), (60, RED)),
        runbook="GLMMetricsStale",
        lines=(Line(f"max by ({NAME}) (glm_autoscaler_metrics_age_seconds{{{OF}}}) >= 0", LEGEND, high=3600),),
    )


def false_conditions(types: str, steps: tuple[tuple[float | None, str], ...], width: int, height: int = 8) -> Panel:
    """Return which conditions of these types are False. types: as a regular expression."""
    return Panel(
        title="Conditions that are False",
        text="Of those that should be True.",
        kind="states",
        width=width,
        height=height,
        names={"1": "False"},
        steps=steps,
        nothing="all are as they should be",
        runbook="GLMDeploymentDegraded",
        lines=(
            Line(
                f'max by ({NAME}, type) (glm_operator_condition{{{OF}, type=~"{types}", status="False"}}) == 1',
                f"{LEGEND}: {{{{type}}}}",
                due="sometimes",
                low=1,
                high=1,
            ),
        ),
    )


def burn_rate(title: str, text: str, lines: tuple[Line, ...], width: int) -> Panel:
    """Return how fast classes use up their error budgets."""
    return Panel(
        title=title,
        text=text,
        width=width,
        nothing="no traffic",
        steps=((None, GREEN), (1, YELLOW), (14.4, RED)),
        runbook="GLMSLOBurnFast",
        lines=lines,
    )


def attained(title: str, text: str, line: Line, width: int, height: int = 8) -> Panel:
    """Return a share of requests that met their class's thresholds, as a number."""
    return Panel(
        title=title,
        text=text,
        kind="number",
        unit="percentunit",
        width=width,
        height=height,
        high=1,
        decimals=1,
        steps=((None, RED), (0.95, YELLOW), (0.99, GREEN)),
        nothing="no traffic",
        runbook="GLMSLOBurnFast",
        lines=(line,),
    )
