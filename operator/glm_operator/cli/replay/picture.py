"""A run as SVG or PNG. matplotlib is imported only when a picture is wanted: extra `plot`."""

import textwrap
from pathlib import Path
from typing import Any

from glm_operator.cli.console import CommandError
from glm_operator.cli.replay.story import Story, clock

FORMATS = (".svg", ".png")
MOST_TIMES = 50.0
"""A latency is drawn up to so many times its promise; what is above leaves the picture."""

LEFT = 0.085  # where curves and words begin
TOLD = 14
"""Decisions that are told in words; the others are in the table that the terminal shows."""

BLUE, ORANGE, GREEN, RED, GREY = "#1f5fa8", "#e07b00", "#2e8b57", "#c0392b", "#777777"
LINES = (BLUE, "#8e44ad", "#00838f", "#6d4c41", "#5d6d7e", "#ad1457")


def save(story: Story, path: Path) -> None:
    """Write the picture. Raises CommandError without matplotlib, for another ending, and for a path it cannot write."""
    if path.suffix.lower() not in FORMATS:
        raise CommandError(f"{path} ends in {path.suffix or 'nothing'}; a picture is .svg or .png")
    try:
        import matplotlib as mpl
    except ImportError:
        raise CommandError('pictures need matplotlib: pip install "glm-operator[plot]"') from None
    mpl.use("Agg")
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "glm", "axes.axisbelow": True}):
        figure = _figure(story, Figure)
        try:
            if path.suffix.lower() == ".svg":
                figure.savefig(path, metadata={"Date": None})
            else:
                _save_small(figure, path)
        except OSError as error:
            raise CommandError(f"cannot write {path}: {error.strerror}") from error


def _save_small(figure: Any, path: Path) -> None:
    """Write a PNG with a palette: a third of the bytes, and nobody sees a difference in curves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(100)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba()))
    image.convert("RGB").quantize(96, method=Image.Quantize.MAXCOVERAGE).save(path, format="PNG", optimize=True)


def _figure(story: Story, figure_class: Any) -> Any:
    told = min(TOLD, len(story.changes))
    words = 0.5 + 0.19 * (told + (len(story.changes) > told))
    height = 6.4 + words
    figure = figure_class(figsize=(10, height))
    top, bottom = 1 - 0.75 / height, (words + 0.45) / height
    axes = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": (2, 3, 3), "top": top, "bottom": bottom, "hspace": 0.32}
    )
    figure.subplots_adjust(left=LEFT, right=0.985)
    figure.text(LEFT, 1 - 0.3 / height, story.title, fontsize=12, fontweight="bold")
    figure.text(LEFT, 1 - 0.55 / height, story.summary, color="#333333")
    minutes = [i * story.step_s / 60 for i in range(len(story.arrivals))]
    _arrivals(axes[0], story, minutes)
    _groups(axes[1], story, minutes)
    _latency(axes[2], story, minutes)
    for each in axes:
        each.yaxis.set_label_coords(-0.05, 0.5)
        each.set_xlim(0, story.duration_s / 60)
        each.grid(visible=True, color="#e5e5e5")
        for side in ("top", "right"):
            each.spines[side].set_visible(False)
    axes[2].set_xlabel("minutes", labelpad=2)
    _words(figure, story, told, (words - 0.1) / height, 0.19 / height)
    return figure


def _arrivals(axes: Any, story: Story, minutes: list[float]) -> None:
    axes.fill_between(minutes, story.arrivals, step="post", color=BLUE, alpha=0.25, linewidth=0)
    axes.step(minutes, story.arrivals, where="post", color=BLUE, linewidth=1)
    axes.set_ylabel("requests\na second")
    axes.set_ylim(0, max(story.arrivals) * 1.15 + 0.01)


def _groups(axes: Any, story: Story, minutes: list[float]) -> None:
    both = [serving + starting for serving, starting in zip(story.serving, story.starting, strict=True)]
    axes.fill_between(
        minutes, story.serving, both, step="post", color=ORANGE, alpha=0.35, linewidth=0, label="starting"
    )
    axes.fill_between(minutes, story.serving, step="post", color=GREEN, alpha=0.35, linewidth=0, label="serving")
    axes.step(minutes, story.desired, where="post", color="black", linewidth=1.4, label="wanted")
    axes.axhline(
        story.static_groups, color=GREY, linestyle=":", linewidth=1.4, label="fixed fleet that keeps the same promise"
    )
    highest = max(*story.desired, *both, story.static_groups)
    for number, change in enumerate(story.changes[:TOLD], 1):
        is_up = change.desired > change.before
        axes.plot(
            change.at_s / 60, change.desired, marker="^" if is_up else "v", color=RED if is_up else GREEN, markersize=5
        )
        axes.annotate(
            str(number),
            (change.at_s / 60, change.desired),
            textcoords="offset points",
            xytext=(0, 5 if is_up else -13),
            ha="center",
            fontsize=8,
        )
    axes.set_ylabel("groups")
    axes.set_ylim(0, highest * 1.12 + 0.8)
    axes.yaxis.get_major_locator().set_params(integer=True)
    _legend(axes, 4)


def _latency(axes: Any, story: Story, minutes: list[float]) -> None:
    for curve, color in zip(story.curves, LINES * len(story.curves), strict=False):
        promise = f"{curve.promise_s * 1000:g} ms" if curve.promise_s < 1 else f"{curve.promise_s:g} s"
        values = [float("nan") if ratio is None else max(0.01, ratio) for ratio in curve.ratios]
        axes.plot(
            minutes, values, color=color, linewidth=1.1, label=f"{curve.name} p{curve.percentile}, promised {promise}"
        )
    axes.axhline(1, color=RED, linewidth=1.4, linestyle="--")
    axes.axhspan(1, 1000, color=RED, alpha=0.05, linewidth=0)
    axes.set_yscale("log")
    worst = max((ratio for curve in story.curves for ratio in curve.ratios if ratio is not None), default=1.0)
    axes.set_ylim(0.05, 3 if worst < 2.5 else 8 if worst < 7 else MOST_TIMES)
    axes.set_yticks([0.1, 0.5, 1, 2, *([5] if worst >= 2.5 else []), *([20] if worst >= 7 else [])])
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_ylabel("latency,\nof its promise")
    if story.curves:
        _legend(axes, 4 if len(story.curves) in (4, 7, 8) else 3)
    else:
        axes.text(0.5, 0.5, "spec.slo promises nothing", transform=axes.transAxes, ha="center", color=GREY)


def _legend(axes: Any, columns: int) -> None:
    """Explain lines above their axes, where no curve runs."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.008, 0.97), ncols=columns, frameon=False, fontsize=8, borderaxespad=0.2
    )


def _words(figure: Any, story: Story, told: int, top: float, line: float) -> None:
    """Write below the curves what each numbered decision was about."""
    verb = "would have set" if story.is_observed else "set"
    heading = f"Decisions ({verb})" if story.changes else "No decision changed the number of groups."
    figure.text(LEFT, top, heading, fontweight="bold", va="top")
    for number, change in enumerate(story.changes[:told], 1):
        why = textwrap.shorten(change.why, 112, placeholder=" …")
        y = top - number * line
        figure.text(LEFT, y, f"{number}", va="top", fontsize=8)
        figure.text(0.11, y, clock(change.at_s), va="top", fontsize=8)
        figure.text(0.165, y, f"{change.before} → {change.desired}", va="top", fontsize=8)
        figure.text(0.225, y, why, va="top", fontsize=8)
    if len(story.changes) > told:
        more = len(story.changes) - told
        figure.text(0.11, top - (told + 1) * line, f"and {more} more", va="top", fontsize=8, color=GREY)
