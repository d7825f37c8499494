"""A recorded range under other thresholds of mode auto: a row each, and what of it is an estimate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from glm_operator.autoscale.simulate.outcome import outcome
from glm_operator.autoscale.simulate.run import Result
from glm_operator.autoscale.simulate.thresholds import AutoThinking, tokens_per_request, with_threshold
from glm_operator.autoscale.simulate.trace import Arrival
from glm_operator.cli.console import CommandError

MOST_THRESHOLDS = 20
UNKNOWN = "not known"

OF_RECORDED = (
    "as recorded: counted by the workers, with the threshold of each moment and those of requests; its groups are "
    "simulated, as those of the others."
)
OF_SHARES = (
    "auto thinks: as scores were counted where a threshold is a multiple of 0.05; between two of them an estimate, as "
    "if scores lay evenly there. A request that brought a threshold of its own counts as the others."
)
OF_TOKENS = (
    "tokens a request: an estimate. Answers are taken to be as long with a thought as without: counters do not tell "
    "their lengths apart. Who would think, would think as long as those that did around then."
)
NO_THOUGHT = "no request of the range thought, so nobody knows how long a thought is: not known where more would think."
OF_FLEETS = (
    "groups, GPU-hours and promises: the operator's law over a simulated fleet, with the requests that change spread "
    "evenly over the others. Who thinks may be of another class of spec.slo."
)
NO_LAW = "groups, GPU-hours and promises: not known; the deployment has no spec.scaling that decides."

Simulate = Callable[[tuple[Arrival, ...]], Result]


@dataclass(frozen=True)
class Fleet:
    """What the law made of a trace."""

    most_groups: int  # that were wanted at once
    gpu_hours: float
    attainment: float
    ups: int
    downs: int


@dataclass(frozen=True)
class Row:
    """One threshold. None: not known, and the notes say why."""

    threshold: float | None  # None: as it was, whatever it was
    thinks: float  # share of auto's requests
    tokens: float | None  # generated for a request, of all requests
    fleet: Fleet | None


@dataclass(frozen=True)
class Sweep:
    """All rows, the recorded one first."""

    title: str
    requests: int  # all that arrived
    auto_requests: int  # about which auto decided
    thought_tokens: float | None  # mean of a thought
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def thresholds_of(text: str) -> tuple[float, ...]:
    """Return the thresholds of an option, each once, in order. Raises CommandError."""
    found = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = -1.0
        if not 0.0 <= value <= 1.0:
            raise CommandError(f"--auto-threshold {text}: {part.strip()!r} is no number from 0 to 1; as in 0.3,0.5,0.7")
        found.append(value)
    chosen = tuple(sorted(set(found)))
    if len(chosen) > MOST_THRESHOLDS:
        raise CommandError(f"--auto-threshold has {len(chosen)} thresholds; at most {MOST_THRESHOLDS} are compared")
    return chosen


def sweep(
    title: str,
    arrivals: tuple[Arrival, ...],
    auto: AutoThinking,
    thresholds: Sequence[float],
    begin_s: float,
    most_tokens: int,
    simulate: Simulate | None,
) -> Sweep:
    """Return what each threshold would have made. simulate: runs the law over a trace; None: there is no law."""
    rows = [Row(None, auto.thought_share, tokens_per_request(arrivals), _fleet(arrivals, simulate))]
    for threshold in thresholds:
        share = auto.scores.share_from(threshold)
        changed = with_threshold(arrivals, auto, threshold, begin_s, most_tokens)
        tokens = None if changed is None else tokens_per_request(changed)
        rows.append(Row(threshold, share, tokens, None if changed is None else _fleet(changed, simulate)))
    return Sweep(
        title=title,
        requests=len(arrivals),
        auto_requests=round(auto.decided),
        thought_tokens=auto.thought_tokens(),
        rows=tuple(rows),
        notes=tuple(_notes(auto, simulate)),
    )


def draw(found: Sweep) -> RenderableType:
    """Return the table for a terminal, with what of it is an estimate."""
    table = Table(box=None, pad_edge=False)
    for column in ("threshold", "auto thinks", "tokens a request", "most groups", "GPU-hours", "promises met"):
        table.add_column(column, no_wrap=True, justify="left" if column == "threshold" else "right")
    recorded = found.rows[0]
    for row in found.rows:
        fleet = row.fleet
        table.add_row(
            "as recorded" if row.threshold is None else f"{row.threshold:g}",
            f"{100 * row.thinks:.1f} %",
            _tokens(row, recorded),
            UNKNOWN if fleet is None else str(fleet.most_groups),
            UNKNOWN if fleet is None else f"{fleet.gpu_hours:.2f}",
            UNKNOWN if fleet is None else f"{100 * fleet.attainment:.1f} %",
        )
    about = f"auto decided about {found.auto_requests:,} chats"
    thought = "" if found.thought_tokens is None else f"; a thought had {found.thought_tokens:,.0f} tokens on average"
    notes = [Text(f"- {note}", style="dim") for note in found.notes]
    return Group(Text(found.title, style="bold"), Text(about + thought), Text(), table, Text(), *notes)


def _tokens(row: Row, recorded: Row) -> str:
    if row.tokens is None or recorded.tokens is None:
        return UNKNOWN
    change = f" ({100 * (row.tokens / recorded.tokens - 1):+.1f} %)" if row.threshold is not None else ""
    return f"{row.tokens:,.0f}{change}"


def _fleet(arrivals: tuple[Arrival, ...], simulate: Simulate | None) -> Fleet | None:
    if simulate is None:
        return None
    result = simulate(arrivals)
    found = outcome(result)
    most = max((result.setup.start_groups, *(change.desired for change in result.changes)))
    return Fleet(most, found.gpu_hours, found.attainment, found.ups, found.downs)


def _notes(auto: AutoThinking, simulate: Simulate | None) -> list[str]:
    unknown = [] if auto.thought_tokens() is not None else [NO_THOUGHT]
    return [OF_RECORDED, OF_SHARES, OF_TOKENS, *unknown, OF_FLEETS if simulate is not None else NO_LAW]
