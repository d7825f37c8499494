"""A run in the terminal: curves, what it was worth, and every decision with its reason. Pure."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from glm_operator.cli.replay.braille import area
from glm_operator.cli.replay.story import Curve, Story, clock

ROWS = 3
LATENCY_ROWS = 2
LABEL = 24
RATIO_TOP = 2.0  # of a latency curve: twice the promise


def draw(story: Story) -> RenderableType:
    """Return the picture for a terminal."""
    groups = max(1, *story.desired, *story.serving)
    parts: list[RenderableType] = [
        Text(story.title, style="bold"),
        Text(story.summary + ("; observed only, nothing was set" if story.is_observed else "")),
        Text(),
        *_chart("arrivals", f"up to {max(story.arrivals):.1f} a second", story.arrivals, max(story.arrivals), "cyan"),
        *_chart("groups wanted", f"up to {max(story.desired)}", story.desired, groups, "yellow"),
        *_chart("groups serving", f"up to {max(story.serving)}", story.serving, groups, "green"),
        _marks(story),
    ]
    for curve in story.curves:
        parts += _latency(curve)
    parts += [_axis(story), Text(), _decisions(story)]
    return Group(*parts)


def _chart(name: str, scale: str, values: Sequence[float | None], top: float, style: str) -> Iterator[Text]:
    labels = [name, scale, ""]
    for label, line in zip(labels, area(values, top, ROWS), strict=True):
        yield Text.assemble((f"{label:<{LABEL}}", "dim" if label == scale else ""), (line, style))


def _latency(curve: Curve) -> Iterator[Text]:
    """A latency against its promise, which is half of the height: what is above it is red."""
    labels = [f"{curve.name} p{curve.percentile}", f"red: over {_seconds(curve.promise_s)}"]
    values = [*curve.ratios, *([None] * (len(curve.ratios) % 2))]
    is_late = [
        any(ratio is not None and ratio > 1 for ratio in pair) for pair in zip(values[::2], values[1::2], strict=True)
    ]
    for label, line in zip(labels, area(curve.ratios, RATIO_TOP, LATENCY_ROWS), strict=True):
        text = Text(f"{label:<{LABEL}}", style="" if label == labels[0] else "dim")
        for late, cell in zip(is_late, line, strict=True):
            text.append(cell, style="red" if late else "blue")
        yield text


def _marks(story: Story) -> Text:
    """A line of arrows where a decision was made."""
    cells = [" "] * ((len(story.arrivals) + 1) // 2)
    for change in story.changes:
        cells[min(len(cells) - 1, int(change.at_s / story.step_s / 2))] = "▲" if change.desired > change.before else "▼"
    return Text(f"{'decisions':<{LABEL}}" + "".join(cells), style="bold")


def _axis(story: Story) -> Text:
    width = (len(story.arrivals) + 1) // 2
    middle, end = clock(story.duration_s / 2), clock(story.duration_s)
    left = "0:00:00".ljust(width // 2 - len(middle) // 2) + middle
    return Text(" " * LABEL + left + end.rjust(width - len(left)), style="dim")


def _decisions(story: Story) -> RenderableType:
    if not story.changes:
        return Text("No decision changed the number of groups.")
    table = Table(box=None, pad_edge=False)
    for column in ("at", "groups", "limited by"):
        table.add_column(column, no_wrap=True)
    table.add_column("why", overflow="fold")
    for change in story.changes:
        style = "yellow" if change.desired > change.before else "green"
        moved = Text(f"{change.before} -> {change.desired}", style=style)
        table.add_row(clock(change.at_s), moved, change.limited_by or "", Text(change.why))
    return table


def _seconds(value: float) -> str:
    return f"{value * 1000:g} ms" if value < 1 else f"{value:g} s"
